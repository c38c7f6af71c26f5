"""Text retention: what training took of a base model's text abilities, by the tasks of lm-eval.

Base and trained model answer the same requests of one harness through one engine in one precision, so that nothing but
the weights differs. The paper (arXiv 2410.15316, table 4) took MMLU with 5 examples, GPQA with none and GSM8K with 8
and a chain of thought, and called ``(A_base - A_model) / A_base`` with A the mean of the three the degradation; its
base was not measured but taken from a model card. :func:`compare` gives this and, beside it, plain percentage points
with paired intervals and McNemar's p for every task.

A task is a name that lm-eval knows, whose data it fetches from the Hub, or a YAML file of a task, whose data file is
named relative to it (``dataset_path: json``, ``dataset_kwargs: data_files: …``) and needs no network.

A prompt is ``<|begin_of_text|>`` and the task's text, without chat headers, as lm-eval asks by default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ichigo.errors import DataError, UserError
from ichigo.evaluation.measures import Metrics
from ichigo.evaluation.statistics import bootstrap_ratio, mcnemar_exact

if TYPE_CHECKING:
    from ichigo.inference.engine import Engine

PAPER_TASKS: Mapping[str, int] = {"mmlu": 5, "gpqa_main_zeroshot": 0, "gsm8k_cot": 8}
"""The paper's three tasks under their names in lm-eval 0.4.13, and how many examples precede a question."""

_METRICS = ("acc", "exact_match")
_NEW_TOKENS = 256  # lm-eval's own limit where a task names none


@dataclass(frozen=True)
class TaskScores:
    """One task's items, in the order of their ids: 1.0 where the answer is right.

    Attributes:
        task: the name of the task, or of the group.
        metric: lm-eval's name of what is counted.
        right: per item.
        replies: what the model chose or said, as lm-eval logs it.
    """

    task: str
    metric: str
    right: tuple[float, ...]
    replies: tuple[str, ...]

    @property
    def share(self) -> float:
        """The mean over the items."""
        return math.fsum(self.right) / len(self.right)


def measure(
    engine: Engine, tasks: Sequence[str], *, examples: int | None, items: int | None, batch: int
) -> list[TaskScores]:
    """The scores of ``engine`` on ``tasks``, in their order.

    Args:
        engine: the model.
        tasks: as the module says.
        examples: that precede a question; None takes each task's own number, of the paper's tasks the paper's.
        items: the first of each task; None takes all.
        batch: requests at once.

    Raises:
        UserError: lm-eval is not installed.
        DataError: a task that lm-eval does not know or cannot read, or that counts neither ``acc`` nor ``exact_match``.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(f"text retention needs lm-eval ({error}); install ichigo-train[retention]") from error
    model = _harness_model(engine, batch)
    scores: list[TaskScores] = []
    for task in tasks:
        shots = examples if examples is not None else PAPER_TASKS.get(task)
        known = task_of(Path(task)) if task.endswith((".yaml", ".yml")) else task
        asked = {"num_fewshot": shots, "limit": items, "bootstrap_iters": 0, "task_manager": TaskManager()}
        try:
            found = simple_evaluate(model=model, tasks=[known], **asked)
        except (KeyError, ValueError, OSError) as error:
            raise DataError(
                f"{task}: lm-eval cannot ask it ({error}); name a task of its list or a YAML file"
            ) from error
        scores.append(_scores(known if isinstance(known, str) else known["task"], found["samples"]))
    return scores


def task_of(path: Path) -> dict[str, Any]:
    """A task's YAML file with its data files as absolute paths; :class:`DataError` where it is none."""
    try:
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        files, _ = task["dataset_kwargs"]["data_files"], task["task"]
        absolute = {split: str((path.parent / name).resolve(strict=True)) for split, name in files.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no task with data of its own ({error!r}); it needs task, dataset_path: json and, under "
            "dataset_kwargs, data_files: {test: FILE}"
        ) from error
    return {**task, "dataset_kwargs": {**task["dataset_kwargs"], "data_files": absolute}}


def compare(base: Sequence[TaskScores], trained: Sequence[TaskScores], seed: int) -> Metrics:
    """``retention.<task>.base``, ``.trained``, ``.lost_points`` (with interval and McNemar's ``p``) and ``.items``;
    over all tasks ``retention.degradation``, the paper's formula, and ``retention.lost_points``, both of means over
    tasks. A positive loss is a loss.

    Raises :class:`DataError` where the two have not answered the same items.
    """
    if [(one.task, one.metric, len(one.right)) for one in base] != [
        (one.task, one.metric, len(one.right)) for one in trained
    ]:
        raise DataError(
            "base and trained model answered different tasks or items; measure both with the same arguments"
        )
    metrics: Metrics = {}
    for before, after in zip(base, trained, strict=True):
        metrics |= _task(f"retention.{before.task}", before.right, after.right, seed)
    before_mean, after_mean = (math.fsum(one.share for one in scores) / len(scores) for scores in (base, trained))
    metrics["retention.lost_points"] = 100 * (before_mean - after_mean)
    if before_mean:
        metrics["retention.degradation"] = degradation(before_mean, after_mean)
    return metrics


def degradation(base: float, trained: float) -> float:
    """The paper's share of the base's mean score that is lost: ``(base - trained) / base``."""
    return (base - trained) / base


def plain(metrics: Metrics) -> str:
    """The table for a person."""
    tasks = [name.removeprefix("retention.").removesuffix(".items") for name in metrics if name.endswith(".items")]
    lines = [f"{'task':<28} {'items':>6}  {'base':>7}  {'trained':>7}  lost points"]
    for task in tasks:
        of = {end: metrics[f"retention.{task}.{end}"] for end in ("items", "base", "trained", "lost_points", "p")}
        low, high = metrics[f"retention.{task}.lost_points.low"], metrics[f"retention.{task}.lost_points.high"]
        lines.append(
            f"{task:<28} {of['items']:>6.0f}  {100 * of['base']:>5.1f} %  {100 * of['trained']:>5.1f} %  "
            f"{of['lost_points']:.1f} [{low:.1f}, {high:.1f}], p {of['p']:.2f}"
        )
    lines.append(f"mean over tasks: {metrics['retention.lost_points']:.1f} points lost")
    if "retention.degradation" in metrics:
        lines.append(f"the paper's degradation: {100 * metrics['retention.degradation']:.1f} %")
    return "\n".join(lines)


def _task(name: str, before: Sequence[float], after: Sequence[float], seed: int) -> Metrics:
    lost = [100 * (first - second) for first, second in zip(before, after, strict=True)]
    low, high = bootstrap_ratio(lost, [1.0] * len(lost), range(len(lost)), seed)
    return {
        f"{name}.items": float(len(lost)),
        f"{name}.base": math.fsum(before) / len(before),
        f"{name}.trained": math.fsum(after) / len(after),
        f"{name}.lost_points": math.fsum(lost) / len(lost),
        f"{name}.lost_points.low": low,
        f"{name}.lost_points.high": high,
        f"{name}.p": mcnemar_exact(sum(one > 0 for one in lost), sum(one < 0 for one in lost)),
    }


def _scores(task: str, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> TaskScores:
    """The items of a task, or of all members of a group together, as lm-eval pools MMLU's 57 subjects."""
    pooled: dict[tuple[str, int], Mapping[str, Any]] = {}
    for member, logged in samples.items():
        for sample in logged:  # one per filter of an item; the last, the most lenient, counts
            pooled[member, sample["doc_id"]] = sample
    ordered = [pooled[place] for place in sorted(pooled)]
    metric = next((name for name in _METRICS if ordered and all(name in sample for sample in ordered)), None)
    if metric is None:
        raise DataError(f"{task}: lm-eval counts none of {', '.join(_METRICS)} there; name another task")
    replies = tuple(str(sample["filtered_resps"]) for sample in ordered)
    return TaskScores(task, metric, tuple(float(sample[metric]) for sample in ordered), replies)


def _harness_model(engine: Engine, batch: int) -> Any:
    """``engine`` as lm-eval asks a model; the class is made here because lm-eval is optional."""
    from lm_eval.api.model import LM

    class HarnessModel(LM):  # type: ignore[misc]  # lm-eval is not typed
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            scored = engine.score([spelled(engine, *request.args) for request in requests], batch)
            return [(one.log_likelihood, one.greedy) for one in scored]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            replies: dict[int, str] = {}
            limits = [_limit(request.args[1]) for request in requests]
            for limit in sorted(set(limits)):
                places = [place for place, one in enumerate(limits) if one == limit]
                prompts = [[engine.contract.bos, *engine.layouts.spell(requests[place].args[0])] for place in places]
                for place, said in zip(places, engine.generate(prompts, limit, batch), strict=True):
                    replies[place] = _cut(engine.decode(said.tokens), requests[place].args[1])
            return [replies[place] for place in range(len(requests))]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            raise DataError("tasks of perplexity are not asked here; name one of multiple choice or of generation")

    return HarnessModel()


def spelled(engine: Engine, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The ids of a context, ``<|begin_of_text|>`` first, and of what follows it.

    White space between the two belongs to the continuation, and both are spelled as one text, so that the seam falls
    where the model's tokenizer puts it (lm-eval's convention).
    """
    bare = context.rstrip()
    before = engine.layouts.spell(bare) if bare else []
    whole = engine.layouts.spell(bare + context[len(bare) :] + continuation)
    return [engine.contract.bos, *before], whole[len(before) :]


def _limit(settings: Mapping[str, Any]) -> int:
    if settings.get("do_sample") or settings.get("temperature", 0):
        raise DataError(
            f"the task draws its replies ({dict(settings)}); only greedy tasks are asked, set do_sample: false"
        )
    return int(settings.get("max_gen_toks", _NEW_TOKENS))


def _cut(text: str, settings: Mapping[str, Any]) -> str:
    """``text`` up to the first of the task's stop strings."""
    until = settings.get("until") or []
    ends = [text.find(stop) for stop in ([until] if isinstance(until, str) else until) if stop]
    return text[: min((end for end in ends if end >= 0), default=len(text))]
