"""The model card: ``README.md`` in the shape that Hugging Face reads, made from manifests and an evaluation alone.

Nothing in it is written by hand, so nothing in it can drift: licences, languages and speakers come from the corpora
among the model's ancestors (``summary.json`` and ``texts.parquet``), the base from its manifest, numbers and intervals
from the evaluation, bars from the rules of the gate. Equal inputs give equal bytes. Every text that comes from data is
escaped: a licence may be called ``<script>``.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq
import yaml

from ichigo.inference.chain import ancestors
from ichigo.recipe.schema import Registry
from ichigo.registry.gate import Evidence, RuleResult, decide
from ichigo.registry.models import LONGEST_DESCRIPTION, Record
from ichigo.store import Artifact, Store

CARD_FILE = "README.md"

_SUMMARY, _TEXTS = "summary.json", "texts.parquet"  # of a corpus
_TEXT_LICENSES = re.compile(r"(licen[cs]e|notice)", re.IGNORECASE)  # files of a base that must travel with it
_HUB = {
    *("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "bsd-3-clause"),
    *("llama3", "llama3.1", "llama3.2", "gpl-3.0", "odc-by", "openrail"),
}
"""Identifiers that the Hub knows, of the licences that speech data and base models come under; others are ``other``."""
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~>-])")


@dataclass(frozen=True)
class Facts:
    """What a card says.

    Attributes:
        name: the registered name.
        recipe: its name, and what it says of itself.
        base: what the model began with: ``init``, ``train`` or ``folder``, and its name where it has one.
        spoken, written: rows by licence.
        languages, origins: rows by language and by where they are from, spoken and written.
        speakers: how many.
        seconds: of speech.
        stages: kinds of the artifacts that it went through, the first first.
        license_files: of the model's folder.
        model, tokenizer: addresses with digests.
        record: evaluation and rules.
    """

    name: str
    recipe: tuple[str, str]
    base: tuple[str, str]
    record: Record
    model: Mapping[str, str]
    tokenizer: Mapping[str, str] = field(default_factory=dict)
    spoken: Mapping[str, int] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)
    languages: Mapping[str, int] = field(default_factory=dict)
    origins: Mapping[str, int] = field(default_factory=dict)
    speakers: int = 0
    seconds: float = 0.0
    stages: Sequence[str] = ()
    license_files: Sequence[str] = ()

    @property
    def licenses(self) -> list[str]:
        """Every licence that a row names, by name."""
        return sorted({_one_line(one) for one in (*self.spoken, *self.written)} - {""})


def gather(model: Artifact, store: Store, name: str, recipe: tuple[str, str], record: Record) -> Facts:
    """The facts of ``model``, whose ancestors lie in ``store``."""
    past = [model, *ancestors(model, store)]
    corpora = [one for one in past if one.reference.kind == "corpus"]
    summaries = [one.read_json(_SUMMARY) for one in corpora if _has(one, _SUMMARY)]
    texts = [_texts(one) for one in corpora if _has(one, _TEXTS)]
    languages = _sum([*(one["languages"] for one in summaries), *(languages for languages, _ in texts)])
    bases = [one.identity.settings.get("base", {}) for one in past if one.reference.kind == "base"]
    settings: Mapping[str, Any] = bases[0] if bases else {}
    tokenizers = [one for one in past if one.reference.kind == "tokenizer"]
    return Facts(
        name=name,
        recipe=recipe,
        base=(str(settings.get("kind", "")), str(settings.get("name", ""))),
        record=record,
        model=_address(model),
        tokenizer=_address(tokenizers[0]) if tokenizers else {},
        spoken=_sum([one["licenses"] for one in summaries]),
        written=_sum([licenses for _, licenses in texts]),
        languages=languages,
        origins=_sum([one["origins"] for one in summaries]),
        speakers=len({speaker for one in summaries for speaker in one["speakers"]}),
        seconds=sum(one["seconds"] for one in summaries),
        stages=[one.reference.kind for one in reversed(past) if one.reference.kind.startswith("model-")],
        license_files=[file.path for file in model.files if _TEXT_LICENSES.match(file.path)],
    )


def render(facts: Facts) -> str:
    """The whole file."""
    front = yaml.safe_dump(front_matter(facts), sort_keys=True, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{body(facts)}"


def description(facts: Facts, where: str) -> str:
    """The card without front matter, for MLflow: at most 5,000 characters, cut between lines; all of it is at
    ``where``."""
    text, more = body(facts), f"\nThe rest: {where}\n"
    if len(text) <= LONGEST_DESCRIPTION:
        return text
    cut = text[: LONGEST_DESCRIPTION - len(more)]
    return cut[: cut.rindex("\n") + 1] + more


def front_matter(facts: Facts) -> dict[str, Any]:
    """What the Hub indexes."""
    matter: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "audio-text-to-text",
        "tags": ["ichigo", "speech", "whispervq"],
        **_license(facts.licenses),
    }
    if languages := sorted(one for one in facts.languages if _LANGUAGE.fullmatch(one)):
        matter["language"] = languages
    if facts.origins:
        matter["datasets"] = sorted(map(_one_line, facts.origins))
    if facts.base[0] == "folder":
        matter["base_model"] = facts.base[1]
    if results := [_indexed(rule, facts) for rule in _judged(facts.record) if rule.found is not None]:
        matter["model-index"] = [{"name": facts.name, "results": results}]
    return matter


def body(facts: Facts) -> str:
    """What a person reads."""
    parts = (_head(facts), _numbers(facts.record), _data(facts), _gaps(facts), _where(facts))
    return "\n".join(line for part in parts for line in part)


def _license(licenses: Sequence[str]) -> dict[str, str]:
    if len(licenses) == 1 and licenses[0].lower() in _HUB:
        return {"license": licenses[0].lower()}
    return {"license": "other", "license_name": "; ".join(licenses) or "unknown"}


def _indexed(rule: RuleResult, facts: Facts) -> dict[str, Any]:
    suite, _, measure = rule.metric.rpartition(".")
    return {
        "task": {"type": "audio-text-to-text"},
        "dataset": {"name": suite or rule.metric, "type": f"ichigo/{facts.recipe[0]}"},
        "metrics": [{"type": measure, "name": rule.metric, "value": rule.found}],
    }


def _judged(record: Record) -> Sequence[RuleResult]:
    """The rules against this evaluation alone: what the champion was then is no fact about this model."""
    return decide(record.evidence, None, Registry(model_name="card", rules=record.rules)).rules


def _head(facts: Facts) -> Iterator[str]:
    yield from (f"# {escaped(facts.name)}", "")
    yield f"{escaped(facts.recipe[1])} (recipe {escaped(facts.recipe[0])})."
    began = {
        "folder": f"began with {escaped(facts.base[1])}",
        "train": "began with a text model trained in the same run",
    }
    stages = ", ".join(escaped(stage.removeprefix("model-")) for stage in facts.stages)
    began_with = began.get(facts.base[0], "began with random weights")
    yield f"It hears speech as discrete sound tokens (25 a second), {began_with}" + (
        f", and went through {stages}." if stages else "."
    )
    yield ""


def _numbers(record: Record) -> Iterator[str]:
    yield from ("## Results", "")
    rules = _judged(record)
    if not rules:
        yield from ("No rule was asked of this model: its numbers decide nothing.", "")
        return
    yield from ("| measure | result [95 %] | items | asked | |", "| --- | --- | --: | --- | --- |")
    for rule in rules:
        result = _result(record.evidence, rule)
        kept = "kept" if rule.kept else "not kept"
        yield f"| {escaped(rule.metric)} | {result} | {_items(record.evidence, rule.metric)} | {rule.bound} | {kept} |"
    yield ""


def _result(evidence: Evidence, rule: RuleResult) -> str:
    low, high = (evidence.metrics.get(f"{rule.metric}.{end}") for end in ("low", "high"))
    if rule.found is None:
        return "missing"
    return f"{rule.found:.4g}" + (f" [{low:.4g}, {high:.4g}]" if low is not None and high is not None else "")


def _items(evidence: Evidence, metric: str) -> str:
    """How many items a metric is of: what its suite, or it itself, counts."""
    names = (f"{metric}.items", f"{metric.rpartition('.')[0]}.items")
    found = next((evidence.metrics[name] for name in names if name in evidence.metrics), None)
    return "" if found is None else f"{found:.0f}"


def _data(facts: Facts) -> Iterator[str]:
    yield from ("## Data and licences", "")
    spoken, written = sum(facts.spoken.values()), sum(facts.written.values())
    hours = facts.seconds / 3600
    yield f"{spoken} spoken rows ({hours:.2f} hours, {facts.speakers} speakers) and {written} written ones."
    yield from ("", "| licence | spoken rows | written rows |", "| --- | --: | --: |")
    for one in sorted({*facts.spoken, *facts.written}):
        yield f"| {escaped(one) or 'none given'} | {facts.spoken.get(one, 0)} | {facts.written.get(one, 0)} |"
    yield from ("", f"Languages: {_counted(facts.languages)}. From: {_counted(facts.origins)}.", "")
    if facts.license_files:
        yield from (
            f"The base's own terms travel with the weights: {', '.join(map(escaped, facts.license_files))}.",
            "",
        )


def _gaps(facts: Facts) -> Iterator[str]:
    yield from ("## What is not covered", "")
    missing = [rule.metric for rule in _judged(facts.record) if rule.found is None]
    yield from (f"- {escaped(metric)} is asked for and was not measured." for metric in missing)
    if nameless := facts.spoken.get("", 0) + facts.written.get("", 0):
        yield f"- {nameless} rows carry no licence: nobody has said that they may be used."
    if facts.origins and set(facts.origins) <= _MADE:
        yield "- Every voice in it is synthetic; it was neither trained nor measured on people."
    known = ", ".join(escaped(one) for one in sorted(facts.languages) if one) or "none is named"
    yield f"- Other languages than those of the data ({known})."
    yield "- Safety, bias and factual knowledge: no suite asks about them."
    yield "- Speech of several people at once, and anything longer than the recordings that it was measured on."
    yield ""


_MADE = {"spoken", "world"}
"""Origins of speech and noise that a recipe makes itself (``ichigo.corpus``)."""


def _where(facts: Facts) -> Iterator[str]:
    yield from ("## Where it comes from", "", "| what | address | digest |", "| --- | --- | --- |")
    for what, one in (
        ("model", facts.model),
        ("speech tokenizer", facts.tokenizer),
        ("evaluation", facts.record.evaluation),
    ):
        if one:
            yield f"| {what} | {escaped(one['uri'])} | {one['digest']} |"
    yield from ("", "`ichigo verify` reads back every byte of these and of all that they were made from.", "")


def escaped(text: str) -> str:
    """``text`` in one line that is neither HTML nor Markdown."""
    return _MARKDOWN.sub(r"\\\1", html.escape(_one_line(text), quote=False))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _counted(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{escaped(name) or 'not named'} ({count} rows)" for name, count in ranked) or "not known"


def _address(artifact: Artifact) -> dict[str, str]:
    return {"uri": artifact.reference.uri, "digest": artifact.digest}


def _has(artifact: Artifact, path: str) -> bool:
    return any(file.path == path for file in artifact.files)


def _texts(corpus: Artifact) -> tuple[Counter[str], Counter[str]]:
    """The written rows of a corpus by language and by licence."""
    table = pq.read_table(corpus.reader(_TEXTS), columns=["language", "license"])
    return Counter(table["language"].to_pylist()), Counter(table["license"].to_pylist())


def _sum(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))
