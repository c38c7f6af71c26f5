"""The platform's folder: ``<home>/platform/`` with the state file, logs and data, for this user's eyes only.

::

    platform/           0700
      state.json        0600   ports, processes, keys, MLflow's password
      lock                     held by whoever starts or stops servers
      logs/{s3,mlflow}.log     of the last start, and .log.1 of the one before
      s3/  mlflow/             data; stays when the servers stop

All of it, and the home if it is made here, has modes without a bit for others.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ichigo.engines.platform.endpoints import Endpoints
from ichigo.errors import PlatformError

HOST = "127.0.0.1"
BUCKET = "ichigo"
STORE = f"s3://{BUCKET}/store"
ARTIFACTS = f"s3://{BUCKET}/mlflow"
USER = "ichigo"  # of MLflow
ACCOUNT = "ichigo"  # part of the data's identity in Swift, so it stays the same when the keys change

ServerName = Literal["s3", "mlflow"]
SERVERS: tuple[ServerName, ...] = ("s3", "mlflow")


@dataclass(frozen=True)
class Server:
    """One server's place: its port, and its process while it should run (``started``: seconds since the epoch)."""

    port: int
    pid: int | None = None
    started: float | None = None


@dataclass(frozen=True)
class State:
    """What the state file holds; ``servers`` lacks those that never ran."""

    access_key: str
    secret_key: str = field(repr=False)
    password: str = field(repr=False)  # of MLflow
    servers: Mapping[ServerName, Server]

    @classmethod
    def fresh(cls) -> State:
        """A state with new random keys and password, no servers; the access key has Swift's form ``account:user``."""
        return cls(f"{ACCOUNT}:{secrets.token_hex(8)}", secrets.token_hex(32), new_password(), {})

    def with_server(self, name: ServerName, server: Server) -> State:
        """The same state with another entry for ``name``."""
        return replace(self, servers={**self.servers, name: server})

    def endpoints(self) -> Endpoints:
        """Addresses and keys; both servers must have a port."""
        return Endpoints(
            mlflow=address(self.servers["mlflow"].port),
            s3=address(self.servers["s3"].port),
            store=STORE,
            access_key=self.access_key,
            secret_key=self.secret_key,
            login={"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": self.password},
            embedded=True,
        )


def new_password() -> str:
    """A random password of 192 bits that a person can copy with a double click."""
    return secrets.token_hex(24)


def address(port: int) -> str:
    """The URL of a server of ours."""
    return f"http://{HOST}:{port}"


class Folder:
    """Paths and files of one platform; ``home`` is ``ICHIGO_HOME``."""

    def __init__(self, home: Path) -> None:
        self.path = home.expanduser().resolve() / "platform"
        self.state_file = self.path / "state.json"

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether a platform was ever started here."""
        return self.path.is_dir()

    def data(self, name: ServerName) -> Path:
        """Where a server keeps its data."""
        return self.path / name

    def log(self, name: ServerName) -> Path:
        """The log of a server's last start."""
        return self.path / "logs" / f"{name}.log"

    def prepare(self) -> None:
        """Create the folders, closed to other users.

        Raises:
            PlatformError: the folder cannot be created or belongs to another user.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in (self.path, self.path / "logs", *map(self.data, SERVERS)):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.chmod(0o700)
        except OSError as error:
            raise PlatformError(
                f"{self} cannot hold the embedded platform: {error}. Set ICHIGO_HOME to a folder of your own."
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by one process at a time; others wait. The kernel releases it when its holder dies."""
        with os.fdopen(os.open(self.path / "lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def read(self) -> State | None:
        """The state, or None before the first start.

        Raises:
            PlatformError: the file is not one that :meth:`write` wrote.
        """
        try:
            text = self.state_file.read_text()
        except FileNotFoundError:
            return None
        try:
            return _parse(json.loads(text))
        except (ValueError, TypeError, KeyError) as error:
            raise PlatformError(
                f"{self.state_file} is damaged ({type(error).__name__}). Delete it and run `ichigo up`: "
                "running servers are found and restarted with new keys, the data stays."
            ) from error

    def write(self, state: State) -> None:
        """Replace the state file in one move; mode 0600 from its first byte on."""
        temporary = self.state_file.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            json.dump(asdict(state), handle, indent=1, sort_keys=True)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(self.state_file)

    def last_words(self, name: ServerName, lines: int = 15) -> str:
        """The end of a server's log."""
        try:
            return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""


def _parse(value: dict[str, Any]) -> State:
    servers = {name: Server(**value["servers"][name]) for name in SERVERS if name in value["servers"]}
    return State(str(value["access_key"]), str(value["secret_key"]), str(value.get("password", "")), servers)


def check_extended_attributes(folder: Path, setxattr: Callable[[str, str, bytes], None] = os.setxattr) -> None:
    """Try to store a user extended attribute of 2000 bytes, in which Swift keeps an object's metadata.

    Raises:
        PlatformError: the file system under ``folder`` refuses.
    """
    probe = folder / ".probe"
    probe.touch(mode=0o600)
    try:
        setxattr(str(probe), "user.ichigo.probe", bytes(2000))
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "?")
        raise PlatformError(
            f"{folder} is on a file system ({_file_system(folder)}) that refuses extended attributes of users "
            f"({reason}: {error.strerror}), in which the embedded S3 server keeps its objects' metadata. "
            "Set ICHIGO_HOME to a folder on a local disk (ext4, xfs, btrfs)."
        ) from error
    finally:
        probe.unlink()


def _file_system(folder: Path) -> str:
    """Type and mount point of the file system that holds ``folder``."""
    import psutil

    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    best = max(mounts, key=lambda part: len(part.mountpoint), default=None)
    return f"{best.fstype} at {best.mountpoint}" if best else "of unknown type"
