"""The file that holds points until MLflow has them: whatever kills its process, each point is handed on once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ichigo.errors import IntegrityError, PlatformError
from ichigo.steps import curves
from ichigo.steps.curves import CURVES, Curves, Spool
from ichigo.tracking.runs import Point


def point(step: int, time: int = 0, **changes: float) -> dict[str, float]:
    made = {"step": step, "time": time or 1000 + step, "loss": 1 / (step + 1), "learning_rate": 1e-3 / 3}
    return made | {"grad_norm": step / 7, "tokens_per_second": 1e4 / 3, "tokens": 96} | changes


class Tree:
    """A run in memory; does not answer while ``silent``."""

    def __init__(self) -> None:
        self.logged: list[Point] = []
        self.silent = False

    def points(self, run_id: str, names: tuple[str, ...]) -> dict[int, dict[str, float]]:
        self._answer()
        found: dict[int, dict[str, float]] = {}
        for entry in self.logged:
            found.setdefault(entry.step, {})[entry.name] = entry.value
        return found

    def log_points(self, run_id: str, points: list[Point]) -> None:
        self._answer()
        self.logged += points

    def _answer(self) -> None:
        if self.silent:
            raise PlatformError("no answer")


def steps_of(tree: Tree) -> list[int]:
    """The steps of every curve, which have to be the same."""
    found = [[entry.step for entry in tree.logged if entry.name == name] for name in CURVES]
    assert all(steps == found[0] for steps in found)
    return found[0]


def test_what_was_not_taken_waits_for_the_next_process(tmp_path: Path) -> None:
    tree, path = Tree(), tmp_path / "points" / "run.jsonl"
    spool = Spool(path)
    for step in range(2000):
        spool.append(point(step))
        if step == 500:
            spool.ship(Curves(tree, "run").send)  # type: ignore[arg-type]
            tree.silent = True
    with pytest.raises(PlatformError):
        spool.ship(Curves(tree, "run").send)  # type: ignore[arg-type]
    spool.close()
    assert path.stat().st_mode & 0o777 == 0o600
    tree.silent = False
    later = Spool(path)
    later.ship(Curves(tree, "run").send)  # type: ignore[arg-type]
    later.close()
    assert steps_of(tree) == list(range(2000))
    assert tree.logged[4 * 1500] == Point("loss", 1 / 1501, 1500, 2500)
    assert not path.exists()


def test_a_line_that_a_killed_process_left_unfinished_is_no_point(tmp_path: Path) -> None:
    tree, path = Tree(), tmp_path / "run.jsonl"
    first = Spool(path)
    first.append(point(0))
    first.close()
    with path.open("a") as file:
        file.write('{"step": 1, "loss": 0.')
    second = Spool(path)
    second.append(point(1))
    second.ship(Curves(tree, "run").send)  # type: ignore[arg-type]
    assert steps_of(tree) == [0, 1]


def test_a_file_is_held_by_one_living_process(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    code = (
        "import sys, pathlib; from ichigo.steps.curves import Spool\n"
        "spool = Spool(pathlib.Path(sys.argv[1])); spool.append({'step': 3}); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            Spool(path)
        holder.kill()
    taken: list[dict[str, float]] = []
    Spool(path).ship(taken.extend)
    assert taken == [{"step": 3}]


def test_a_repeated_step_is_not_logged_again_and_may_take_another_time() -> None:
    tree = Tree()
    Curves(tree, "run").send([point(step) for step in range(10)])  # type: ignore[arg-type]
    again = Curves(tree, "run")  # type: ignore[arg-type]
    repeated = [point(step, time=9000 + step, tokens_per_second=1.0) for step in range(5, 15)]
    tree.silent = True
    with pytest.raises(PlatformError):
        again.send(repeated)
    tree.silent = False
    again.send([*repeated, point(12, time=99)])
    again.send([point(12, time=98)])
    assert steps_of(tree) == list(range(15))
    assert [entry.time for entry in tree.logged if entry.name == "loss"][5:11] == [1005, 1006, 1007, 1008, 1009, 9010]


@pytest.mark.parametrize("name", ["loss", "learning_rate", "grad_norm"])
def test_a_repeated_step_with_another_number_is_another_training(name: str) -> None:
    tree = Tree()
    Curves(tree, "run").send([point(step) for step in range(10)])  # type: ignore[arg-type]
    held = point(7)[name]
    other = held * (1 + 2**-52)
    assert other != held
    with pytest.raises(IntegrityError, match=f"step 7 has {name} {held!r} in MLflow .run run., but {other!r}"):
        Curves(tree, "run").send([point(6), point(7, **{name: other})])  # type: ignore[arg-type]
    assert steps_of(tree) == list(range(10))


def test_a_curve_that_a_crash_cut_between_two_requests_is_completed() -> None:
    tree = Tree()
    tree.logged = [Point("loss", 1.0, 0, 1000)]
    Curves(tree, "run").send([point(0)])  # type: ignore[arg-type]
    assert steps_of(tree) == [0]


def test_the_folder_is_in_the_home_of_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ICHIGO_HOME", str(tmp_path))
    assert curves._folder() == tmp_path / "points"
