"""Work that has ended and could not be committed: the next process commits it and does not work again."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ichigo.errors import PlatformError
from ichigo.store import Draft, Identity, MemoryObjects, Objects, Store
from ichigo.store.workplace import folder_of, kept, remove
from tests.store_contract import IDENTITY, Killed, Watched, content, taking

OTHER = Identity("model", {"steps": 11}, {}, "")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICHIGO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def work(draft: Draft) -> None:
    """A stage's worth of work."""
    (draft.folder / "nested").mkdir()
    (draft.folder / "nested" / "model.bin").write_bytes(b"weights")
    draft.facts["loss"] = 0.25


def write(objects: Objects, identity: Identity = IDENTITY) -> Draft:
    """Do the work, unless it is there."""
    with Store(objects).write(identity, parents={}, keep=True) as draft:
        if not draft.kept:
            work(draft)
    return draft


def dying(last: int, error: BaseException) -> Objects:
    """A store whose write number ``last`` and all after it raise ``error``."""

    def die(number: int) -> None:
        if number >= last:
            raise error

    return Watched(MemoryObjects(), die)


DEATHS = [PlatformError("S3 does not answer"), Killed()]


def test_what_a_draft_took_is_part_of_the_finished_work(home: Path, tmp_path: Path) -> None:
    objects = MemoryObjects()
    with Store(objects).write(OTHER, parents={}) as source:
        (source.folder / "weights").write_bytes(b"other")

    def die(number: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        taking(Store(Watched(objects, die)), IDENTITY, source.committed, {"own": b"1"})
    draft = write(objects)
    assert draft.kept
    (tmp_path / "to").mkdir()
    assert content(draft.committed, tmp_path / "to") == {"own": b"1", "weights": b"other"}


@pytest.mark.parametrize("error", DEATHS, ids=["outage", "kill"])
@pytest.mark.parametrize("last", [1, 2, 3], ids=["file", "manifest", "pointer"])
def test_finished_work_is_committed_by_the_next_process_and_not_done_again(
    home: Path, tmp_path: Path, error: BaseException, last: int
) -> None:
    with pytest.raises(type(error)):
        write(dying(last, error))
    (tmp_path / "to").mkdir()
    objects = MemoryObjects()
    draft = write(objects)
    assert draft.kept
    assert draft.committed.facts == {"loss": 0.25}
    assert content(draft.committed, tmp_path / "to") == {"nested/model.bin": b"weights"}
    assert kept(folder_of(home)) == []


def test_only_the_same_identity_takes_it_up(home: Path) -> None:
    with pytest.raises(PlatformError):
        write(dying(1, DEATHS[0]))
    assert not write(MemoryObjects(), OTHER).kept
    assert write(MemoryObjects()).kept


def test_work_that_failed_is_not_kept(home: Path) -> None:
    def fail() -> None:
        with Store(MemoryObjects()).write(IDENTITY, parents={}, keep=True) as draft:
            work(draft)
            raise Killed

    with pytest.raises(Killed):
        fail()
    assert kept(folder_of(home)) == []
    assert not write(MemoryObjects()).kept


@pytest.mark.parametrize("harm", ["change", "remove", "add"])
def test_kept_work_that_changed_is_done_again(home: Path, tmp_path: Path, harm: str) -> None:
    with pytest.raises(PlatformError):
        write(dying(1, DEATHS[0]))
    (file,) = folder_of(home).rglob("model.bin")
    if harm == "change":
        file.write_bytes(b"we1ghts")
    elif harm == "remove":
        file.unlink()
    else:
        file.with_name("more").write_bytes(b"")
    (tmp_path / "to").mkdir()
    draft = write(MemoryObjects())
    assert not draft.kept
    assert content(draft.committed, tmp_path / "to") == {"nested/model.bin": b"weights"}


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ICHIGO_HOME", raising=False)
    with pytest.raises(PlatformError):
        write(dying(1, DEATHS[0]))
    assert not write(MemoryObjects()).kept


def test_two_writers_of_one_identity_do_not_share_a_folder(home: Path, tmp_path: Path) -> None:
    objects = MemoryObjects()
    with Store(objects).write(IDENTITY, parents={}, keep=True) as first:
        work(first)
        second = write(objects)
        assert not second.kept
        assert second.folder.parent != first.folder.parent
    assert first.committed.digest == second.committed.digest


HOLD = """
    import sys
    from pathlib import Path
    from ichigo.store import Identity, MemoryObjects, Store

    with Store(MemoryObjects()).write(Identity("model", {}, {}, sys.argv[1]), parents={}, keep=True) as draft:
        (draft.folder / "half").write_bytes(b"1" * 1000)
        print(draft.folder, flush=True)
        sys.stdin.read()
"""


def test_what_a_killed_process_left_half_done_is_swept_by_the_next_and_that_of_a_living_one_is_not(home: Path) -> None:
    def start(code: str) -> tuple[subprocess.Popen[str], Path]:
        command = [sys.executable, "-c", textwrap.dedent(HOLD), code]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    (dead, left), (alive, held) = start("dead"), start("alive")
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert (left / "half").exists()
        assert [(one.folder, one.size) for one in kept(folder_of(home))] == [(left.parent, 1000)]
        write(MemoryObjects())
        assert not left.parent.exists()
        assert (held / "half").exists()
    finally:
        alive.kill()
        alive.communicate()
    (found,) = kept(folder_of(home))
    remove(found)
    assert not held.parent.exists()
