"""The platform's folder, its state file, and which processes are taken for ours."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from ichigo.engines.platform import down, processes, status
from ichigo.engines.platform.state import Folder, Server, State, check_extended_attributes
from ichigo.engines.platform.swift_hooks import MemoryCache
from ichigo.errors import PlatformError


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.prepare()
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_state_is_read_back_and_is_for_its_owner_only(folder: Folder) -> None:
    state = State.fresh().with_server("s3", Server(4711, 12, 34.5)).with_server("mlflow", Server(4712))
    before = os.umask(0)
    try:
        folder.write(state)
    finally:
        os.umask(before)
    assert folder.read() == state
    assert mode(folder.state_file) == 0o600
    assert {mode(path) for path in (folder.path, *folder.path.iterdir()) if path.is_dir()} == {0o700}


def test_a_folder_that_others_could_read_is_closed(tmp_path: Path) -> None:
    open_folder = tmp_path / "platform"
    open_folder.mkdir()
    open_folder.chmod(0o755)
    Folder(tmp_path).prepare()
    assert mode(open_folder) == 0o700


def test_keys_are_new_for_every_platform_and_not_shown() -> None:
    one, other = State.fresh(), State.fresh()
    assert one.secret_key != other.secret_key
    assert one.access_key != other.access_key
    assert one.secret_key not in repr(one)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"access_key": "a"}', '{"access_key": 1, "secret_key": 2, "servers": 3}']
)
def test_a_damaged_state_file_is_named_with_its_remedy(folder: Folder, tmp_path: Path, text: str) -> None:
    folder.state_file.write_text(text)
    with pytest.raises(PlatformError, match=r"state\.json is damaged .*Delete it"):
        status(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "platform").write_text("")
    with pytest.raises(PlatformError, match="Set ICHIGO_HOME"):
        Folder(tmp_path).prepare()


def test_status_and_down_of_a_home_that_never_was_create_nothing(tmp_path: Path) -> None:
    down(tmp_path / "home")
    found = status(tmp_path / "home")
    assert not found.running
    assert [server.address for server in found.servers] == [None, None]
    assert not (tmp_path / "home").exists()


@pytest.fixture
def marked(folder: Folder) -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries the platform's mark, as servers do, and waits."""
    env = {**os.environ, processes.MARK: processes.mark(folder.path)}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=env) as process:
        yield process
        process.kill()


def test_only_a_live_process_with_our_mark_and_start_time_is_ours(
    folder: Folder, tmp_path: Path, marked: subprocess.Popen[bytes]
) -> None:
    started = psutil.Process(marked.pid).create_time()
    found = processes.find(Server(1, marked.pid, started), folder.path)
    assert found is not None
    assert found.pid == marked.pid
    assert processes.find(Server(1, marked.pid, started - 60), folder.path) is None  # the id was recycled
    copy = Folder(tmp_path / "copy")
    copy.prepare()
    assert processes.find(Server(1, marked.pid, started), copy.path) is None  # the state file was copied
    moved = folder.path.rename(tmp_path / "moved")
    assert processes.find(Server(1, marked.pid, started), moved) is not None
    marked.kill()
    os.waitid(os.P_PID, marked.pid, os.WEXITED | os.WNOWAIT)  # dead, but a zombie still
    assert processes.find(Server(1, marked.pid, started), folder.path) is None


def test_down_ends_an_orphan_that_no_state_file_names_and_no_stranger(
    folder: Folder, tmp_path: Path, marked: subprocess.Popen[bytes]
) -> None:
    me = psutil.Process()
    folder.write(State.fresh().with_server("s3", Server(4711, me.pid, me.create_time())))
    down(tmp_path)
    assert marked.poll() is not None
    assert folder.read() is not None
    assert [server.pid for server in status(tmp_path).servers] == [None, None]


def test_down_ends_servers_whose_folder_was_deleted(
    folder: Folder, tmp_path: Path, marked: subprocess.Popen[bytes]
) -> None:
    shutil.rmtree(folder.path)
    down(tmp_path)
    assert marked.poll() is not None
    assert not folder.exists()


def test_a_free_port_is_kept_and_a_taken_one_is_left() -> None:
    with closing(processes.listen(None)) as first:
        port = first.getsockname()[1]
        with closing(processes.listen(port)) as second:
            assert second.getsockname()[1] != port
    with closing(processes.listen(port)) as again:
        assert again.getsockname() == ("127.0.0.1", port)
        assert again.family == socket.AF_INET


def test_a_file_system_without_extended_attributes_is_refused_before_any_start(tmp_path: Path) -> None:
    def refuse(path: str, name: str, value: bytes) -> None:
        assert name.startswith("user.")
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), path)

    with pytest.raises(PlatformError) as caught:
        check_extended_attributes(tmp_path, refuse)
    assert all(part in str(caught.value) for part in (str(tmp_path), "ENOTSUP", "ICHIGO_HOME"))
    assert list(tmp_path.iterdir()) == []


def test_the_cache_gives_copies_and_forgets_in_time() -> None:
    cache = MemoryCache()
    cache.set_multi({"kept": {"a": [1]}, "gone": 2}, time=60)
    cache.set("gone", 2, time=-1)
    cache.get("kept")["a"].append(2)
    assert cache.get_multi(["kept", "gone", "never"]) == [{"a": [1]}, None, None]
    assert [cache.incr("count", 3), cache.decr("count", 5), cache.incr("count")] == [3, 0, 1]


def test_the_command_line_gets_by_without_heavy_imports() -> None:
    code = (
        "import sys, ichigo.engines.platform; print(*{'torch', 'mlflow', 'kfp', 'boto3', 'swift'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
