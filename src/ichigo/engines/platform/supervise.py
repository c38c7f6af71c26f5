"""``up``, ``down``, ``status``: the life of the two servers, and the choice between them and configured ones."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from ichigo.engines.platform import health, processes
from ichigo.engines.platform.endpoints import Endpoints, from_environment
from ichigo.engines.platform.state import (
    ARTIFACTS,
    SERVERS,
    Folder,
    Server,
    ServerName,
    State,
    address,
    check_extended_attributes,
    new_password,
)
from ichigo.errors import PlatformError

START_SECONDS = 120.0  # MLflow's first start took 22 s on a busy machine with 2 cores
ASK_SECONDS = 5.0


@dataclass(frozen=True)
class ServerStatus:
    """One server as found: sizes in bytes, ``uptime`` in seconds; None for what only a running server has."""

    name: ServerName
    running: bool  # its process lives
    answers: bool  # and says that it works
    address: str | None
    pid: int | None
    uptime: float | None
    rss: int | None
    data: int
    log: Path


@dataclass(frozen=True)
class Status:
    """Both servers of one home."""

    home: Path
    servers: tuple[ServerStatus, ...]

    @property
    def running(self) -> bool:
        """Whether every server runs and answers."""
        return all(server.answers for server in self.servers)


def resolve(home: Path, environ: Mapping[str, str]) -> Endpoints:
    """The services that ``environ`` configures, used as they are; the embedded ones, started if need be, otherwise.

    Raises:
        UserError: the environment configures the services only in part.
        PlatformError: the embedded platform cannot start.
    """
    return from_environment(environ) or up(home)


def up(home: Path) -> Endpoints:
    """Make both servers run and answer, starting only what is missing; safe to call at any time by several processes.

    Raises:
        PlatformError: the folder cannot hold the platform, or a server does not start; carries its last log lines.
    """
    _check_installed()
    folder = Folder(home)
    folder.prepare()
    with folder.lock():
        state = folder.read() or State.fresh()
        if not state.password:  # of a version whose MLflow asked for none
            state = _with_password(folder, state)
        missing = [name for name in SERVERS if not processes.find(state.servers.get(name), folder.path)]
        if missing:
            state = _start(folder, state, missing)
        for name in SERVERS:
            _await(folder, state, name)
        if "s3" in missing:
            health.create_bucket(state, START_SECONDS)
    return state.endpoints()


def _check_installed() -> None:
    if missing := [name for name in ("mlflow", "swift") if importlib.util.find_spec(name) is None]:
        raise PlatformError(
            f"The embedded platform needs {' and '.join(missing)}: pip install 'ichigo-train[platform]', "
            "or configure running servers by MLFLOW_TRACKING_URI, ICHIGO_STORE and the AWS_ variables."
        )


def _with_password(folder: Folder, state: State) -> State:
    """Give the platform a password, and stop the MLflow that asks for none."""
    if open_server := processes.find(state.servers.get("mlflow"), folder.path):
        processes.stop([open_server])
    return replace(state, password=new_password())


def _start(folder: Folder, state: State, missing: list[ServerName]) -> State:
    """Start the missing servers side by side; the state on disk names each as soon as it exists."""
    check_extended_attributes(folder.data("s3"))
    known = {server.pid for name, server in state.servers.items() if name not in missing}
    processes.stop([process for process in processes.ours(folder.path) if process.pid not in known])
    listeners = {name: processes.listen(_port(state, name)) for name in missing}
    for name, listener in listeners.items():
        state = state.with_server(name, Server(listener.getsockname()[1]))
    folder.write(state)
    for name, listener in listeners.items():
        module = f"ichigo.engines.platform.{name}_server"
        arguments = ["--data", str(folder.data(name)), *(["--artifacts", ARTIFACTS] if name == "mlflow" else [])]
        env = _server_environment(state, name)
        server = processes.spawn(module, arguments, listener, folder.path, folder.log(name), env)
        state = state.with_server(name, server)
        folder.write(state)
    return state


def _port(state: State, name: ServerName) -> int | None:
    server = state.servers.get(name)
    return server.port if server else None


def _server_environment(state: State, name: ServerName) -> dict[str, str]:
    """Keys and password by environment, never by command line, which ``ps`` shows to everybody."""
    endpoints = state.endpoints()
    return {
        "AWS_ACCESS_KEY_ID": state.access_key,
        "AWS_SECRET_ACCESS_KEY": state.secret_key,
        "AWS_DEFAULT_REGION": endpoints.region,
        "AWS_ENDPOINT_URL": address(state.servers["s3"].port),
        "AWS_CONFIG_FILE": os.devnull,
        "OMP_NUM_THREADS": "1",
        **(endpoints.login if name == "mlflow" else {}),
    }


def _await(folder: Folder, state: State, name: ServerName) -> None:
    """Wait until a server answers; its socket listens already, so one question usually waits as long as it takes."""
    deadline = time.monotonic() + START_SECONDS
    while not health.answers(name, state, ASK_SECONDS):
        if not processes.find(state.servers[name], folder.path):
            raise PlatformError(_failure(folder, name, "ended while it started"))
        if time.monotonic() > deadline:
            advice = f"lives but has not answered for {START_SECONDS:.0f} s; try `ichigo down` and `ichigo up`"
            raise PlatformError(_failure(folder, name, advice))
        time.sleep(0.05)


def _failure(folder: Folder, name: ServerName, what: str) -> str:
    return f"The embedded {name} server {what}. Its last words, from {folder.log(name)}:\n{folder.last_words(name)}"


def login(home: Path) -> Endpoints:
    """Endpoints of the embedded platform, with its keys and MLflow's login, started or not.

    Raises:
        PlatformError: no platform was ever started here, or its state file is damaged.
    """
    folder = Folder(home)
    state = folder.read() if folder.exists() else None
    if state is None or not state.password or set(state.servers) != set(SERVERS):
        raise PlatformError(f"no embedded platform was started in {home} yet; start it with `ichigo up`")
    return state.endpoints()


def down(home: Path) -> None:
    """Stop every server process of this home, whoever started it; data, ports and keys stay. Idempotent."""
    folder = Folder(home)
    with folder.lock() if folder.exists() else nullcontext():
        processes.stop(processes.ours(folder.path))
        if state := folder.read():
            for name, server in state.servers.items():
                state = state.with_server(name, Server(server.port))
            folder.write(state)


def status(home: Path) -> Status:
    """What runs here, without starting or waiting for anything longer than a few seconds.

    Raises:
        PlatformError: the state file is damaged.
    """
    folder = Folder(home)
    state = folder.read() if folder.exists() else None
    return Status(home, tuple(_server_status(folder, state, name) for name in SERVERS))


def _server_status(folder: Folder, state: State | None, name: ServerName) -> ServerStatus:
    server = state.servers.get(name) if state else None
    process = processes.find(server, folder.path)
    return ServerStatus(
        name=name,
        running=process is not None,
        answers=bool(process and state and health.answers(name, state, ASK_SECONDS)),
        address=address(server.port) if server else None,
        pid=process.pid if process else None,
        uptime=time.time() - process.create_time() if process else None,
        rss=process.memory_info().rss if process else None,
        data=_size(folder.data(name)),
        log=folder.log(name),
    )


def _size(folder: Path) -> int:
    """Bytes of all files below ``folder``; files that vanish meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total
