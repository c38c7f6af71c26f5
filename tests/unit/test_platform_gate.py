"""The login in front of MLflow: what passes, what does not, and that a browser knows to ask for it."""

from __future__ import annotations

import asyncio
import base64
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ichigo.engines.platform.gate import Gate, header
from ichigo.engines.platform.state import Folder, Server, State

RIGHT = header("ichigo", "pass:wörd")


def answer(kind: str, *given: tuple[bytes, bytes]) -> tuple[bool, list[dict[str, Any]]]:
    """Whether the application behind the gate was reached, and what the gate itself sent."""
    reached, sent = [], []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> None:
        return None

    scope = {"type": kind, "path": "/", "headers": list(given)}
    asyncio.run(Gate(application, "ichigo", "pass:wörd")(scope, receive, send))
    return bool(reached), sent


def test_the_login_that_clients_and_browsers_send_passes() -> None:
    assert base64.b64decode(RIGHT.removeprefix("Basic ")).decode() == "ichigo:pass:wörd"  # RFC 7617
    assert answer("http", (b"host", b"x"), (b"authorization", RIGHT.encode())) == (True, [])
    assert answer("websocket", (b"Authorization", RIGHT.encode())) == (True, [])


@pytest.mark.parametrize(
    "given",
    [
        (),
        ((b"authorization", b""),),
        ((b"authorization", RIGHT.encode()[:-1]),),
        ((b"authorization", RIGHT.encode() + b"="),),
        ((b"authorization", header("ichigo", "").encode()),),
        ((b"authorization", header("admin", "pass:wörd").encode()),),
        ((b"authorization", b"Bearer pass:w\xc3\xb6rd"),),
        ((b"x-authorization", RIGHT.encode()),),
        ((b"authorization", b"Basic other"), (b"authorization", RIGHT.encode())),  # which of the two would count?
    ],
)
def test_everything_else_is_refused_and_a_browser_asks_for_the_login(given: tuple[tuple[bytes, bytes], ...]) -> None:
    reached, (start, body) = answer("http", *given)
    assert not reached
    assert start["status"] == 401
    headers = dict(start["headers"])
    assert headers[b"www-authenticate"].startswith(b"Basic realm=")
    assert int(headers[b"content-length"]) == len(body["body"])


def test_a_websocket_without_login_is_closed_before_it_opens() -> None:
    assert answer("websocket") == (False, [{"type": "websocket.close", "code": 1008}])


@pytest.fixture
def state(tmp_path: Path) -> State:
    """The state of a platform that does not run."""
    folder, state = Folder(tmp_path), State.fresh()
    folder.prepare()
    state = state.with_server("s3", Server(4711)).with_server("mlflow", Server(4712))
    folder.write(state)
    return state


def show_login(home: Path, **streams: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ichigo.cli.main", "status", "--show-login"]
    environment = {**os.environ, "ICHIGO_HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(command, env=environment, **streams)


def test_the_login_is_shown_to_a_terminal(tmp_path: Path, state: State) -> None:
    ours, theirs = pty.openpty()
    with show_login(tmp_path, stdout=theirs):
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
        os.close(ours)
    assert f"ichigo  {state.password}" in seen.decode()
    assert state.secret_key not in seen.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's end of a terminal that nobody writes to
        return b""


def test_the_login_goes_to_no_pipe_or_file(tmp_path: Path, state: State) -> None:
    with show_login(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate()
    assert process.returncode == 2
    assert b"standard output is no terminal" in err
    assert state.password.encode() not in out + err
