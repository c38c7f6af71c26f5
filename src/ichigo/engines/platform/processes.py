"""Server processes: started so that they outlive their starter, recognised beyond doubt, stopped to the last one.

A process is ours if its environment carries :data:`MARK` with this platform's folder, so neither a recycled process
id nor a copied state file can make us stop a stranger, and an orphan is found even if the state file lacks it. The mark
names the folder by inode and by path: it may have been moved, or deleted, under running servers.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from ichigo.engines.platform.state import HOST, Server

MARK = "ICHIGO_PLATFORM"
STOP_SECONDS = 10.0


def listen(preferred: int | None) -> socket.socket:
    """A listening socket on the loopback interface: on ``preferred`` if that port is free, else on any.

    The server inherits it, so nobody can take the port between the choice and the server's start.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, preferred or 0))
    except OSError:
        listener.bind((HOST, 0))
    listener.listen(1024)
    return listener


def spawn(
    module: str, arguments: Sequence[str], listener: socket.socket, folder: Path, log: Path, env: Mapping[str, str]
) -> Server:
    """Start ``python -m module`` in a session of its own, its output in ``log``; closes our copy of ``listener``."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments, "--fd", str(listener.fileno())]
    with listener, os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_clean_environment() | {MARK: mark(folder)} | dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            start_new_session=True,
            umask=0o077,  # data of servers is for this user's eyes
        )
        process.returncode = 0  # it outlives this object on purpose; Popen would warn
        port = listener.getsockname()[1]
    return Server(port, process.pid, psutil.Process(process.pid).create_time())


def _clean_environment() -> dict[str, str]:
    """Ours without what would configure a server unasked; ``PYTHONPATH`` made absolute, as the folder changes."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_", "_MLFLOW_"))}
    if path := env.get("PYTHONPATH"):
        env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in path.split(os.pathsep) if entry)
    return env


def find(server: Server | None, folder: Path) -> psutil.Process | None:
    """The live process of ``server``, or None if it ended, even if its process id has a new owner."""
    if server is None or server.pid is None or server.started is None:
        return None
    try:
        process = psutil.Process(server.pid)
        same = abs(process.create_time() - server.started) < 1.0
        return process if same and _is_ours(process, folder) else None
    except psutil.Error:
        return None


def ours(folder: Path) -> list[psutil.Process]:
    """Every live process of this platform, whoever started it."""
    return [process for process in psutil.process_iter() if _is_ours(process, folder)]


def mark(folder: Path) -> str:
    """``device:inode path`` of a folder; the first part is ``-`` where it does not exist."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return f"- {folder}"
    return f"{found.st_dev}:{found.st_ino} {folder}"


def _is_ours(process: psutil.Process, folder: Path) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        inode, _, path = process.environ().get(MARK, "").partition(" ")
    except (psutil.Error, OSError):
        return False
    return bool(path == str(folder) or (inode and inode == mark(folder).partition(" ")[0]))


def stop(processes: Sequence[psutil.Process]) -> None:
    """Ask the processes to end, and after ``STOP_SECONDS`` end them."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
