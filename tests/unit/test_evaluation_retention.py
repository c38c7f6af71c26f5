"""Text retention: the paper's formula on the paper's numbers, and lm-eval over our engine against our own scorer."""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path

import pytest
import torch

from ichigo.cli import retention as verb
from ichigo.errors import DataError, ModelError
from ichigo.evaluation.asking import open_text_engine
from ichigo.evaluation.choices import by_likelihood
from ichigo.evaluation.retention import TaskScores, compare, degradation, measure, plain, spelled, task_of
from ichigo.inference.engine import Engine
from tests.unit.evaluation_support import make_base, make_model

TASKS = Path(__file__).with_name("retention")
ROWS = [json.loads(line) for line in (TASKS / "choice.jsonl").read_text(encoding="utf-8").splitlines()]


def scores(*right: float, task: str = "x") -> list[TaskScores]:
    return [TaskScores(task, "acc", right, ("",) * len(right))]


@pytest.mark.parametrize(
    ("trained", "printed"),
    [((50.27, 26.56, 53.58), 0.292), ((63.08, 28.35, 76.50), 0.089), ((63.79, 29.69, 75.28), 0.084)],
)
def test_the_papers_scores_give_the_papers_degradation(trained: tuple[float, ...], printed: float) -> None:
    """Table 4 of arXiv 2410.15316: MMLU, GPQA and GSM8K of v0.2 and of v0.3 after its second and third phase."""
    assert degradation(sum((69.4, 30.4, 84.5)) / 3, sum(trained) / 3) == pytest.approx(printed, abs=5e-4)


def test_the_loss_is_paired_and_positive_where_something_was_lost() -> None:
    base = [*scores(1, 1, 1, 0, task="a"), *scores(1, 0, task="b")]
    metrics = compare(base, [*scores(1, 0, 0, 0, task="a"), *scores(1, 1, task="b")], seed=1)
    assert (metrics["retention.a.lost_points"], metrics["retention.b.lost_points"]) == (50.0, -50.0)
    assert metrics["retention.a.p"] == 0.5  # two discordant items, both lost
    assert metrics["retention.a.lost_points.low"] <= 50 <= metrics["retention.a.lost_points.high"]
    assert metrics["retention.lost_points"] == pytest.approx(100 * (0.625 - 0.625))
    assert "the paper's degradation: 0.0 %" in plain(metrics)


def test_a_base_without_any_right_answer_has_no_degradation() -> None:
    assert "retention.degradation" not in compare(scores(0, 0), scores(0, 1), seed=1)


def test_other_items_are_not_compared() -> None:
    with pytest.raises(DataError, match="different tasks or items"):
        compare(scores(1, 0), scores(1), seed=1)


def test_a_task_file_names_its_data_beside_it(tmp_path: Path) -> None:
    assert task_of(TASKS / "choice.yaml")["dataset_kwargs"]["data_files"] == {"test": str(TASKS / "choice.jsonl")}
    for text in ("task: x", "[", "task: x\ndataset_kwargs: {data_files: {test: absent.jsonl}}"):
        (tmp_path / "task.yaml").write_text(text)
        with pytest.raises(DataError, match=r"task.yaml: no task with data of its own"):
            task_of(tmp_path / "task.yaml")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("retention")
    return make_base(root / "base"), make_model(root / "base", root / "model")


def test_white_space_between_context_and_continuation_belongs_to_the_latter(folders: tuple[Path, Path]) -> None:
    engine = Engine.open(folders[1])
    assert spelled(engine, "turn on ", "the light") == spelled(engine, "turn on", " the light")
    assert spelled(engine, "", "light")[0] == [engine.contract.bos]


def test_lm_eval_over_our_engine_chooses_what_our_scorer_chooses(folders: tuple[Path, Path]) -> None:
    pytest.importorskip("lm_eval", reason="the extra `retention` is not installed")
    engine = Engine.open(folders[1])
    (found,) = measure(engine, [str(TASKS / "choice.yaml")], examples=None, items=None, batch=8)
    questions = [
        ([engine.contract.bos, *engine.layouts.spell(row["question"])], [f" {option}" for option in row["options"]])
        for row in ROWS
    ]
    ours = by_likelihood(engine, questions, batch=8)
    right = [float(one.chosen == row["answer"]) for one, row in zip(ours, ROWS, strict=True)]
    assert list(found.right) == right
    logged = [[nats for nats, _ in ast.literal_eval(reply)] for reply in found.replies]
    for theirs, one in zip(logged, ours, strict=True):
        assert theirs == pytest.approx(one.log_likelihoods, rel=1e-5)


def test_lm_eval_reads_the_greedy_reply_up_to_the_stop_string(folders: tuple[Path, Path]) -> None:
    pytest.importorskip("lm_eval", reason="the extra `retention` is not installed")
    engine = Engine.open(folders[1])
    (found,) = measure(engine, [str(TASKS / "reply.yaml")], examples=None, items=5, batch=2)
    assert (found.metric, len(found.right)) == ("exact_match", 5)
    for row, reply in zip(ROWS[:5], found.replies, strict=True):
        prompt = [engine.contract.bos, *engine.layouts.spell(row["question"])]
        said = engine.decode(engine.generate([prompt], 6, 1)[0].tokens).split("\n")[0]
        assert ast.literal_eval(reply) == [said]


def test_the_verb_compares_base_and_model_in_one_precision(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval", reason="the extra `retention` is not installed")
    parser = argparse.ArgumentParser()
    verb.arguments(parser)
    model = ["--model", str(folders[1]), "--base", str(folders[0]), "--json"]
    assert verb.main(parser.parse_args([str(TASKS / "choice.yaml"), *model])) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["retention.named_thing.items"] == len(ROWS)
    contract = Engine.open(folders[1]).contract
    base = open_text_engine(folders[0], contract)
    (before,) = measure(base, [str(TASKS / "choice.yaml")], examples=None, items=None, batch=4)
    assert metrics["retention.named_thing.base"] == before.share


def test_models_in_two_precisions_are_not_compared(folders: tuple[Path, Path], tmp_path: Path) -> None:
    from ichigo.language.checkpoint import open_llama

    half = tmp_path / "half"
    half.mkdir()
    open_llama(folders[0]).to(torch.bfloat16).save_pretrained(half)  # type: ignore[arg-type]
    (half / "tokenizer.json").write_bytes((folders[0] / "tokenizer.json").read_bytes())
    parser = argparse.ArgumentParser()
    verb.arguments(parser)
    with pytest.raises(ModelError, match=r"is in torch.bfloat16, .* in torch.float32"):
        verb.main(parser.parse_args(["x.yaml", "--model", str(folders[1]), "--base", str(half)]))
