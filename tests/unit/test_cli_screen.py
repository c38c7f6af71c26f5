"""The screen of ``ichigo run``: rows from what steps say, drawn to fit, and few lines without a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from ichigo import recipe
from ichigo.cli.screen import Board, LineScreen, LiveScreen, draw, next_steps
from ichigo.engines.pipeline import compiled_pipeline
from ichigo.engines.plan import planned_steps
from ichigo.progress import PREFIX, STEP_VARIABLE, Progress

STEPS = ("platform", "begin", "prepare", "tokenizer", "base", "tokenize", "mix", "pretrain")
SPOKEN = [
    (0, "step", "platform | starting or finding MLflow and S3"),
    (5, "step", "begin | run smoke-1, recipe smoke (779489a84c8b)"),
    (7, "step", "prepare | reused s3://b/x/corpus/1/2, made by smoke-0"),
    (7, "step", "prepare | reused in 0.1 s"),
    (10, "step", "tokenizer | runs: changed: settings.tokenizer.steps: 100 -> 150"),
    (11, "step", "base | runs: no base was made before"),
    (12, "progress", "tokenizer | fit tokenizer 29/150 · 14.2 steps/s · 9 s left · loss 2.51"),
    (13, "progress", "base | base 10/40 · 4.0 steps/s · 7 s left · loss 5.60"),
]


class Time:
    """A clock that stands where it is put."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def board(time: Time) -> Board:
    """A board that has heard :data:`SPOKEN`."""
    board = Board.planned(STEPS, time)
    for time.now, kind, text in SPOKEN:
        board.take(kind, text)
    return board


def states(board: Board) -> dict[str, str]:
    return {row.name: row.state for row in board.rows_now()}


def drawn(board: Board, width: int = 80, height: int = 24, encoding: str = "utf-8") -> list[str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    console.print(draw(board, "ichigo run smoke", console))
    out.seek(0)
    return out.read().splitlines()


def test_a_step_that_the_recipe_skips_is_over(board: Board) -> None:
    board.take("step", "pretrain | skipped in 0.1 s")
    assert states(board)["pretrain"] == "skipped"


def test_steps_side_by_side_run_each_with_its_own_progress(board: Board) -> None:
    assert states(board) == {
        "platform": "done",  # neither says that it ended
        "begin": "done",
        "prepare": "reused",
        "tokenizer": "running",
        "base": "running",
        "tokenize": "waiting",
        "mix": "waiting",
        "pretrain": "waiting",
    }
    lines = drawn(board, width=120)
    assert any(
        "tokenizer " in line and "fit tokenizer 29/150 · 14.2 steps/s · 9 s left · loss 2.51" in line for line in lines
    )
    assert any("base " in line and "━ 10/40 · 4.0 steps/s" in line for line in lines), "its own name is not repeated"


def test_a_step_that_ended_shows_its_seconds_and_facts(board: Board, time: Time) -> None:
    board.take("step", "base | done in 33.3 s: parameters 784512, loss 1.25")
    board.take("step", "tokenizer | failed in 12.0 s")
    board.take("step", "tokenizer | TokenizerError: fewer tokens than codes")
    lines = drawn(board)
    assert any("base" in line and "33 s parameters 784512, loss 1.25" in line for line in lines)
    assert any("✗ tokenizer" in line and "12 s TokenizerError: fewer tokens than codes" in line for line in lines)
    assert any("= prepare" in line and "made by smoke-0" in line for line in lines)
    assert "starting" not in states(board).values(), "after a failure nothing starts"


def test_the_next_step_is_about_to_start_when_nothing_runs(board: Board) -> None:
    for name in ("tokenizer", "base"):
        board.take("step", f"{name} | done in 1.0 s")
    assert states(board)["tokenize"] == "starting"
    assert states(board)["mix"] == "waiting"


def test_a_platform_that_said_nothing_does_not_wait_for_ever(time: Time) -> None:
    board = Board.planned(STEPS, time)
    board.take("step", "prepare | runs: no corpus was made before")
    assert list(states(board).values())[:4] == ["done", "done", "running", "waiting"]


def test_iterations_take_the_place_of_their_loop_in_order(board: Board) -> None:
    for shard in ("00001", "00000", "00002"):
        board.take("step", f"tokenize-shard-{shard} | runs: no tokens was made before")
    names = [row.name for row in board.rows]
    assert names[5:9] == ["tokenize-shard-00000", "tokenize-shard-00001", "tokenize-shard-00002", "mix"]


def test_time_goes_on_for_what_runs_and_stands_for_what_ended(board: Board, time: Time) -> None:
    board.take("step", "base | done in 33.3 s")
    time.now = 4000
    lines = drawn(board)
    assert "1:06:40" in lines[0]
    assert any("▸ tokenizer" in line and "1:06:30" in line for line in lines)
    assert any("✓ base" in line and "33 s" in line for line in lines)


def test_words_of_nobody_on_the_board_stand_at_the_top(board: Board) -> None:
    board.take("step", "engine | every process has ended; closing the run")
    assert "engine | every process has ended" in drawn(board, width=100)[0]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 10), (120, 9)])
def test_the_table_fits_the_terminal(board: Board, width: int, height: int) -> None:
    lines = drawn(board, width, height)
    assert max(len(line) for line in lines) <= width
    assert len(lines) < height
    shown = "\n".join(lines)
    assert all(name in shown for name in ("tokenizer", "base", "tokenize", "mix")), "what runs or waits stays"
    assert ("steps before" in shown) == (height < 12)


def test_a_terminal_without_unicode_gets_ascii(board: Board) -> None:
    board.take("step", "base | done in 1.0 s")
    lines = drawn(board, encoding="ascii")
    assert any(line.startswith("+ base") for line in lines)
    assert any("> tokenizer" in line and "-- " in line and "29/150" in line for line in lines)


def test_without_a_terminal_progress_is_rare_and_words_are_not_lost(
    time: Time, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = LineScreen(Board.planned(STEPS, time))
    screen.show("step", "tokenizer | runs: no tokenizer was made before")
    for second in range(1, 31):
        time.now = second
        screen.show("progress", f"tokenizer | fit tokenizer {second}/30 · 1.0 steps/s · {30 - second} s left")
        screen.show("progress", f"base | base {second}/30 · 1.0 steps/s · {30 - second} s left")
    screen.show("step", "tokenizer | done in 30.0 s: steps 30")
    screen.show("end", "the table")
    screen.close()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[5] for line in lines if "fit tokenizer" in line] == ["10/30", "20/30", "30/30"]
    assert sum("base " in line for line in lines) == 3
    assert lines[0].split() == ["0", "s", "tokenizer", "runs:", "no", "tokenizer", "was", "made", "before"]
    assert lines[-1] == "the table"
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("ended", [True, False])
def test_the_live_table_gives_way_to_the_table_of_the_run_and_stays_without_one(
    board: Board, capsys: pytest.CaptureFixture[str], ended: bool
) -> None:
    out = io.StringIO()
    screen = LiveScreen(board, Console(file=out, width=80, height=24, force_terminal=True), "ichigo run smoke")
    screen.show("step", "base | done in 33.3 s")
    if ended:
        screen.show("end", "the table")
    screen.close()
    erased = out.getvalue().rstrip().endswith("\x1b[2K")
    assert erased == ended
    assert "33 s" in out.getvalue()
    assert capsys.readouterr().out == ("\nthe table\n" if ended else "")


def test_the_plan_is_the_order_in_which_the_pipeline_runs() -> None:
    plan = planned_steps(compiled_pipeline())
    assert plan[:2] == ("begin", "prepare")
    assert plan[-4:] == ("gate", "package", "register", "finish")
    order = [
        "prepare",
        "tokenizer",
        "base",
        "contract",
        "tokenize",
        "mix",
        *("pretrain", "probe-pretrain", "instruct", "probe-instruct", "enhance", "probe-enhance"),
        "evaluate",
    ]
    places = [plan.index(name) for name in order]
    assert places == sorted(places)
    assert plan.index("contract") < plan.index("expand") < plan.index("pretrain")
    assert len(set(plan)) == len(plan)


def test_a_plan_follows_dependencies_and_names_tasks_by_what_differs(tmp_path: Path) -> None:
    (tmp_path / "ir.yaml").write_text(
        """
components:
  comp-a: {executorLabel: a}
  comp-train: {executorLabel: t}
  comp-train-2: {executorLabel: t}
  comp-loop: {dag: {tasks: {train: {componentRef: {name: comp-train}, inputs: {}}}}}
root:
  dag:
    tasks:
      a: {componentRef: {name: comp-a}, dependentTasks: [train-2], inputs: {}}
      loop:
        componentRef: {name: comp-loop}
        dependentTasks: [a]
        inputs: {}
        parameterIterator: {items: {raw: '["x", "y"]'}}
      train-2:
        componentRef: {name: comp-train-2}
        inputs: {parameters: {run: {componentInputParameter: run}, stage: {runtimeValue: {constant: first}}}}
      rest:
        componentRef: {name: comp-loop}
        dependentTasks: [loop]
        inputs: {}
        parameterIterator: {items: {inputParameter: p}}
"""
    )
    assert planned_steps(tmp_path / "ir.yaml") == ("first", "a", "x", "y", "train")


def test_progress_names_the_step_that_it_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps print into one log at the same time, and torchrun's workers print for theirs."""
    out = io.StringIO()
    Progress("rows", 1, "rows", out=out).advance()
    monkeypatch.setenv(STEP_VARIABLE, "tokenize-shard-00001")
    Progress("rows", 1, "rows", out=out).advance()
    outside, inside = out.getvalue().splitlines()
    assert outside.startswith(f"{PREFIX} rows 1/1 · ")
    assert inside.startswith(f"{PREFIX} tokenize-shard-00001 | rows 1/1 · ")
    board = Board.planned(["tokenize"])
    row = board.take("progress", inside.removeprefix(f"{PREFIX} "))
    assert row is not None
    assert row.beat is not None
    assert (row.name, row.beat.done, row.beat.total) == ("tokenize-shard-00001", 1, 1)


def test_three_things_to_try_use_the_recipe_and_the_run() -> None:
    smoke = recipe.load("smoke")
    summary = {"mlflow": {"uri": "http://127.0.0.1:5000", "experiment": "7", "mlflow_run": "abc"}}
    shown = next_steps(smoke, "my/smoke.yaml", summary, ".venv/bin/ichigo")
    assert f'.venv/bin/ichigo ask --say "{smoke.data.sentences[0].text}"' in shown
    assert "http://127.0.0.1:5000/#/experiments/7\n" in shown
    command = next(line for line in shown.splitlines() if " --set " in line).split(" --set ")
    assert command[0].strip() == ".venv/bin/ichigo run my/smoke.yaml"
    assert recipe.fingerprint(recipe.load("smoke", [command[1]])) != recipe.fingerprint(smoke)
