"""Checkpoints without torch: what counts as one, what is trusted, what stays, and services that fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ichigo.errors import IntegrityError, PlatformError, UserError
from ichigo.recipe.schema import Checkpoints, Launch, Stage
from ichigo.store import MemoryObjects
from ichigo.training import StageJob
from ichigo.training.checkpoint import (
    JOURNAL,
    MANIFEST,
    Checkpoint,
    finish_saving,
    kept,
    saving_folder,
    seal,
    sealed,
    unsealed,
    verified,
)
from ichigo.training.keeper import Keeper
from ichigo.training.resume import resume_from
from ichigo.training.shelf import POINTER, Shelf, place_of

STAGE = Stage(name="pretrain", mix={"text": 1.0}, examples=8, steps=100, sequence_length=64, learning_rate=1e-3)


def save(place: Path, step: int, attempt: str = "aaaaaaaa") -> Path:
    """What ranks leave: the state in two files, and the journal."""
    folder = saving_folder(place, step, attempt)
    (folder / "state").mkdir(parents=True)
    for rank in range(2):
        (folder / "state" / f"rank_{rank}.pt").write_bytes(f"{step} {rank} {attempt}".encode() * 50)
    (folder / JOURNAL).write_text(f'{{"step": {step - 1}}}\n')
    finish_saving(folder)
    return place / folder.name.removeprefix("saving-")


def sealed_save(place: Path, step: int, attempt: str = "aaaaaaaa") -> Checkpoint:
    return seal(save(place, step, attempt), "lineage", world=2, zero=1)


def recorded(*checkpoints: Checkpoint) -> dict[str, str]:
    return {one.name: one.manifest.digest for one in checkpoints}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, MemoryObjects(), "lineage")


def elsewhere(shelf: Shelf, folder: Path) -> Shelf:
    """The same store seen from another machine."""
    folder.mkdir()
    return replace(shelf, place=folder)


def silent(_: str) -> None:
    """Nobody listens."""


class TestTrust:
    """What may be unpickled."""

    def test_a_sealed_save_is_what_was_saved(self, tmp_path: Path) -> None:
        made = sealed_save(tmp_path, 40)
        found = verified(made.folder, made.manifest.digest)
        assert found == made
        assert (found.manifest.step, found.manifest.world, found.manifest.zero) == (40, 2, 1)
        assert [file.path for file in found.manifest.files] == [JOURNAL, "state/rank_0.pt", "state/rank_1.pt"]

    @pytest.mark.parametrize("name", ["state/rank_1.pt", JOURNAL])
    def test_one_changed_byte_is_refused(self, tmp_path: Path, name: str) -> None:
        made = sealed_save(tmp_path, 40)
        data = bytearray((made.folder / name).read_bytes())
        data[-2] ^= 1
        (made.folder / name).write_bytes(data)
        with pytest.raises(IntegrityError, match=name):
            verified(made.folder, made.manifest.digest)

    def test_files_exchanged_together_with_their_manifest_are_refused(self, tmp_path: Path) -> None:
        made = sealed_save(tmp_path, 40)
        digest = made.manifest.digest
        (made.folder / "state" / "rank_0.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        (made.folder / MANIFEST).unlink()
        seal(made.folder, "lineage", world=2, zero=1)
        with pytest.raises(IntegrityError, match="not the one that was recorded"):
            verified(made.folder, digest)

    def test_what_was_not_recorded_is_never_used(self, shelf: Shelf) -> None:
        sealed_save(shelf.place, 40)
        said: list[str] = []
        assert shelf.newest({}, said.append) is None
        assert said == ["the checkpoint 00000040-aaaaaaaa was never recorded and is not used"]
        assert sealed(shelf.place) == []

    def test_saves_that_were_killed_are_no_checkpoints(self, shelf: Shelf) -> None:
        whole = sealed_save(shelf.place, 20)
        (saving_folder(shelf.place, 40, "aaaaaaaa") / "state").mkdir(parents=True)
        save(shelf.place, 60)  # every rank was done, but nobody came to seal it
        found = shelf.newest(recorded(whole), silent)
        assert found == whole
        assert [folder.name for folder in shelf.place.iterdir()] == [whole.name]


class TestChoice:
    """Which checkpoint a stage goes on from."""

    def test_the_newest_recorded_one_here(self, shelf: Shelf) -> None:
        made = [sealed_save(shelf.place, step) for step in (20, 40, 60)]
        assert shelf.newest(recorded(*made), silent) == made[-1]

    def test_a_damaged_one_gives_way_to_the_one_before(self, shelf: Shelf) -> None:
        older, newer = sealed_save(shelf.place, 20), sealed_save(shelf.place, 40)
        (newer.folder / "state" / "rank_0.pt").write_bytes(b"")
        said: list[str] = []
        assert shelf.newest(recorded(older, newer), said.append) == older
        assert "damaged" in said[0]
        assert not newer.folder.exists()

    def test_a_damaged_one_here_is_fetched_from_the_store(self, shelf: Shelf) -> None:
        made = sealed_save(shelf.place, 40)
        shelf.publish(made, last=2, every=0)
        (made.folder / "state" / "rank_0.pt").write_bytes(b"")
        found = shelf.newest(recorded(made), silent)
        assert found == made
        assert verified(made.folder, made.manifest.digest)

    def test_another_machine_fetches_it(self, shelf: Shelf, tmp_path: Path) -> None:
        made = sealed_save(shelf.place, 40)
        shelf.publish(made, last=2, every=0)
        there = elsewhere(shelf, tmp_path / "other")
        found = there.newest(recorded(made), silent)
        assert found
        assert (found.folder, found.manifest) == (there.place / made.name, made.manifest)
        assert {path.name for path in there.place.iterdir()} == {made.name}

    def test_changed_bytes_in_the_store_are_not_used(self, shelf: Shelf, tmp_path: Path) -> None:
        older, newer = sealed_save(shelf.place, 20), sealed_save(shelf.place, 40)
        for one in (older, newer):
            shelf.publish(one, last=2, every=0)
        shelf.objects.put(f"{shelf.prefix}/{newer.name}/state/rank_0.pt", b"other")
        said: list[str] = []
        found = elsewhere(shelf, tmp_path / "other").newest(recorded(older, newer), said.append)
        assert found
        assert found.name == older.name
        assert "in the store is damaged" in said[0]

    def test_a_stage_that_begins_anew_leaves_nothing_to_go_on_from(self, shelf: Shelf) -> None:
        made = sealed_save(shelf.place, 40)
        shelf.publish(made, last=2, every=20)
        shelf.begin_anew()
        assert shelf.newest(recorded(made), silent) is None
        assert list(shelf.objects.list("")) == []


class TestPublishing:
    """What others see of a checkpoint on its way into the store."""

    def test_nobody_ever_sees_a_part(self, tmp_path: Path) -> None:
        """Killed before each of its writes, an upload leaves what was there before, or all of the new one."""
        writes = 0
        while True:
            place = tmp_path / str(writes)
            place.mkdir()
            shelf = Shelf(place, DyingObjects(), "lineage")
            first, second = sealed_save(place, 20), sealed_save(place, 40)
            shelf.publish(first, last=1, every=0)
            assert isinstance(shelf.objects, DyingObjects)
            shelf.objects.left = writes
            try:
                shelf.publish(second, last=1, every=0)
            except Killed:
                died = True
            else:
                died = False
            shelf.objects.left = None
            found = elsewhere(shelf, place / "other").newest(recorded(first, second), refuse_to_hear)
            assert found
            assert found.name == (second if shelf.published().keys() == {second.name} else first).name
            if not died:
                break
            writes += 1
        assert writes > 5
        assert {key.split("/")[2] for key, _ in shelf.objects.list("checkpoints/")} == {POINTER, second.name}

    def test_the_rules_say_which_stay(self) -> None:
        names = [f"{step:08d}-aaaaaaaa" for step in (20, 40, 60, 80, 100)]

        def steps(last: int, every: int) -> list[int]:
            return sorted(int(name[:8]) for name in kept(names, last, every))

        assert steps(2, 0) == [80, 100]
        assert steps(1, 40) == [40, 80, 100]
        assert steps(0, 50) == [100]
        assert steps(9, 0) == [20, 40, 60, 80, 100]
        assert steps(0, 0) == []

    def test_a_finished_stage_keeps_those_for_good_alone(self, shelf: Shelf) -> None:
        for step in (20, 40, 60):
            shelf.publish(sealed_save(shelf.place, step), last=2, every=40)
        shelf.retire(40)
        assert list(shelf.published()) == ["00000040-aaaaaaaa"]
        shelf.retire(0)
        assert list(shelf.objects.list("")) == []


class Killed(BaseException):
    """As good as SIGKILL: nobody catches it."""


class DyingObjects(MemoryObjects):
    """A store whose user dies before a write: ``left`` more writes are carried out, all of them without a number."""

    left: int | None = None

    def _spend(self) -> None:
        if self.left == 0:
            raise Killed
        self.left = None if self.left is None else self.left - 1

    def put(self, key: str, data: bytes) -> None:
        self._spend()
        super().put(key, data)

    def delete(self, key: str) -> None:
        self._spend()
        super().delete(key)


def refuse_to_hear(message: str) -> None:
    raise AssertionError(message)


@dataclass
class Services:
    """MLflow and S3 of a keeper; while ``down``, neither takes anything."""

    down: bool = False
    recorded: dict[str, str] = field(default_factory=dict)

    def record(self, name: str, digest: str) -> None:
        if self.down:
            raise PlatformError("MLflow does not answer")
        self.recorded[name] = digest


def job(folder: Path, rules: Checkpoints, stage: Stage = STAGE) -> StageJob:
    return StageJob(
        model=folder, data=folder, output=folder, journal=folder, stage=stage, seed=1, launch=Launch(checkpoints=rules)
    )


def keeper_of(shelf: Shelf, record: Callable[[str, str], None], rules: Checkpoints, said: list[str]) -> Keeper:
    return Keeper(shelf, job(shelf.place, rules), record, said.append, None)


class TestKeeper:
    """The thread that looks after checkpoints; leaving its block is its last round."""

    def test_saves_are_recorded_and_the_newest_uploaded(self, shelf: Shelf) -> None:
        services, said = Services(), list[str]()
        with keeper_of(shelf, services.record, Checkpoints(keep_last=2), said):
            for step in (20, 40, 60):
                save(shelf.place, step)
        assert {"00000040-aaaaaaaa", "00000060-aaaaaaaa"} <= services.recorded.keys()  # 20 may have been overtaken
        assert max(shelf.published()) == "00000060-aaaaaaaa"
        assert shelf.published().items() <= services.recorded.items()
        assert [folder.name[:8] for folder in sealed(shelf.place)] == ["00000040", "00000060"]
        assert said == []

    def test_those_for_good_are_uploaded_however_many_came_since(self, shelf: Shelf) -> None:
        with keeper_of(shelf, Services().record, Checkpoints(keep_last=1, keep_every=20), []):
            for step in (20, 30, 40, 50):
                save(shelf.place, step)
        assert [name[:8] for name in sorted(shelf.published())] == ["00000020", "00000040", "00000050"]

    def test_an_outage_costs_no_checkpoint_and_is_said_once(self, shelf: Shelf) -> None:
        services, said = Services(down=True), list[str]()
        with keeper_of(shelf, services.record, Checkpoints(), said):
            save(shelf.place, 20)
            wait_for(lambda: bool(said))
            save(shelf.place, 40)
            services.down = False
        assert said == [f"checkpoints stay in {shelf.place} for now: MLflow does not answer"]
        assert [name[:8] for name in services.recorded] == ["00000020", "00000040"]
        assert "00000040-aaaaaaaa" in shelf.published()

    def test_a_long_outage_fills_no_disk_and_takes_nothing_that_is_needed(self, shelf: Shelf) -> None:
        services, said = Services(), list[str]()
        keeper = keeper_of(shelf, services.record, Checkpoints(keep_last=2, keep_every=50), said)
        with keeper:
            save(shelf.place, 20)
            wait_for(lambda: "00000020-aaaaaaaa" in shelf.published())
            services.down = True
            for step in (30, 40, 50, 60, 70, 80):
                save(shelf.place, step)
                wait_for(lambda: not unsealed(shelf.place))
        left = [int(folder.name[:8]) for folder in sealed(shelf.place)]
        assert left == [20, 50, 70, 80]  # the one to go on from, the one for good, the two newest
        assert len(said) == 1

    def test_what_a_dead_store_did_not_take_is_found_here_by_the_next_try(self, shelf: Shelf) -> None:
        services, dead = Services(), DeadObjects()
        cut_off = replace(shelf, objects=dead)
        keeper = keeper_of(cut_off, services.record, Checkpoints(), [])
        dead.dead = True
        with keeper:
            save(shelf.place, 20)
        found = shelf.newest(services.recorded, refuse_to_hear)
        assert found
        assert found.manifest.step == 20
        with Keeper(shelf, job(shelf.place, Checkpoints()), services.record, refuse_to_hear, found):
            pass
        assert list(shelf.published()) == ["00000020-aaaaaaaa"]


class DeadObjects(MemoryObjects):
    """A store that does not answer once it is ``dead``."""

    dead = False

    def put(self, key: str, data: bytes) -> None:
        if self.dead:
            raise PlatformError("S3 does not answer")
        super().put(key, data)


def wait_for(happened: Callable[[], bool]) -> None:
    """Return when ``happened``; the test's own time limit ends a wait in vain."""
    while not happened():
        pass


class TestWorldSize:
    """Going on with other processes, as far as it is decided before torch."""

    def test_the_same_processes_load_what_they_saved(self, tmp_path: Path) -> None:
        made = sealed_save(tmp_path, 40)
        resume = resume_from(made, Launch(processes=2, zero=1), tmp_path)
        assert (resume.folder, resume.tag, resume.step, resume.universal) == (made.folder, "state", 40, False)
        assert resume.journal == made.folder / JOURNAL

    @pytest.mark.parametrize(("saved", "launch"), [(3, 3), (3, 1), (0, 1), (1, 3), (2, 0)])
    def test_where_there_is_no_way_the_remedy_is_told(self, tmp_path: Path, saved: int, launch: int) -> None:
        made = seal(save(tmp_path, 40), "lineage", world=2, zero=saved)
        with pytest.raises(UserError) as caught:
            resume_from(made, Launch.model_validate({"processes": 1, "zero": launch}), tmp_path)
        message = str(caught.value)
        assert f"saved by 2 processes under ZeRO {saved}" in message
        assert f"--set launch.processes=2 --set launch.zero={saved}" in message
        assert "--set launch.checkpoints.resume=false" in message

    def test_without_zero_any_number_of_processes_goes_on(self, tmp_path: Path) -> None:
        made = seal(save(tmp_path, 40), "lineage", world=2, zero=0)
        assert resume_from(made, Launch(processes=1, zero=0), tmp_path).universal is False


def test_one_process_at_a_time_holds_the_place_of_a_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICHIGO_HOME", str(tmp_path))
    with place_of("one") as mine, place_of("one") as other, place_of("two") as third:
        assert mine == tmp_path / "checkpoints" / "one"
        assert third == tmp_path / "checkpoints" / "two"
        assert not other.is_relative_to(tmp_path / "checkpoints")
    with place_of("one") as again:
        assert again == mine


def test_saves_come_at_every_multiple_but_not_after_the_last_step(tmp_path: Path) -> None:
    def steps(rules: Mapping[str, int], total: int) -> list[int]:
        one = job(tmp_path, Checkpoints.model_validate(rules), STAGE.model_copy(update={"steps": total}))
        return [step + 1 for step in range(total) if replace(one, saves=tmp_path).saves_after(step)]

    assert steps({"every": 20}, 60) == [20, 40]
    assert steps({"every": 20}, 61) == [20, 40, 60]
    assert steps({"every": 0}, 60) == []
    assert not job(tmp_path, Checkpoints(every=1)).saves_after(3)  # without a place to save to


def test_the_pointer_is_plain_json_of_names_and_digests(shelf: Shelf) -> None:
    """Whoever collects garbage reads it without this package."""
    made = sealed_save(shelf.place, 40)
    shelf.publish(made, last=2, every=0)
    assert json.loads(shelf.objects.get("checkpoints/lineage/LATEST.json")) == recorded(made)
    assert unsealed(shelf.place) == []
