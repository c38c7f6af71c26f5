"""An S3 server that a test has for itself, and may kill and start again on the same port and data."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from ichigo.engines.platform import processes
from ichigo.engines.platform.endpoints import REGION
from ichigo.engines.platform.state import ACCOUNT, address


class S3Process:
    """A context in which the server runs; its bucket is still to be made."""

    def __init__(self, data: Path) -> None:
        self.data, self.port = data, 0
        self._keys = {
            "AWS_ACCESS_KEY_ID": f"{ACCOUNT}:{secrets.token_hex(8)}",
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        """The variables for a process that uses it."""
        return {**self._keys, "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": address(self.port)}

    def start(self) -> None:
        """Listen on the same port as before; who asks now waits until it is up."""
        self.data.mkdir(exist_ok=True)
        with processes.listen(self.port or None) as listener:
            self.port, descriptor = listener.getsockname()[1], listener.fileno()
            command = ["-W", "ignore", "-m", "ichigo.engines.platform.s3_server", "--data", str(self.data)]
            self._process = subprocess.Popen(
                [sys.executable, *command, "--fd", str(descriptor)],
                env=processes._clean_environment() | self._keys,
                pass_fds=[descriptor],
                stderr=subprocess.DEVNULL,
            )

    def kill(self) -> None:
        """End it without a word."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> S3Process:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
