"""Forward from a row or a speaker: which corpora hold it, and what was made from it.

A *row* is named by its id, a speaker by the name in its rows. Training rows reach models through the tokenizer that was
fitted to their corpus, the base that read its texts, and the mixes whose provenance names them; evaluation rows through
the items of an evaluation. Only the columns of ids are read, so recordings stay where they are.
"""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ichigo.corpus.provenance import FOLDER
from ichigo.corpus.texts import TEXTS_FILE
from ichigo.corpus.tokens import TOKENS_FILE
from ichigo.store import Artifact

ITEMS_FILE = "items.parquet"  # of an evaluation: an id per row, a row's or a dialogue's
_OLD_ITEMS_FILE = "items.jsonl"  # of one made before there were tables: the same per line
_MODELS = ("tokenizer", "base", "expanded", "package")  # and model-<stage>


@dataclass
class Use:
    """One artifact that has to do with the rows: ``how`` says in what way, ``counts`` how often."""

    kind: str
    uri: str
    how: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class Trace:
    """Where the rows went: ``rows`` is their split by id; ``trained`` and ``judged`` are models by address."""

    rows: dict[str, str] = field(default_factory=dict)
    dialogues: set[str] = field(default_factory=set)
    uses: list[Use] = field(default_factory=list)
    trained: dict[str, list[str]] = field(default_factory=dict)
    judged: dict[str, int] = field(default_factory=dict)


def trace(wanted: str, artifacts: Sequence[Artifact]) -> Trace:
    """What was made, among ``artifacts``, from the row with the id ``wanted`` or the rows of that speaker.

    Raises :class:`~ichigo.errors.PlatformError` when the store does not answer.
    """
    found = Trace()
    holding = {one.reference.uri: held for one in artifacts if (held := _hold(one, wanted, found))}
    mixes = {one.reference.uri: stages for one in artifacts if (stages := _mixed(one, holding, found))}
    _follow(artifacts, holding, mixes, found)
    for one in artifacts:
        _judged(one, holding, found)
    for one in artifacts:
        if one.reference.kind == "package" and (count := found.judged.get(one.parents["model"])):
            found.judged[one.reference.uri] = count
    return found


def _hold(artifact: Artifact, wanted: str, found: Trace) -> Counter[str]:
    """The rows of a corpus or a shard of tokens that are wanted, by split; written ones as ``train texts``."""
    kind, counts = artifact.reference.kind, Counter[str]()
    if kind not in ("corpus", "tokens"):
        return counts
    for file in artifact.files:
        if file.path == TOKENS_FILE or (kind == "corpus" and file.path.startswith("shard-")):
            what = ""
        elif kind == "corpus" and file.path == TEXTS_FILE:
            what = " texts"
        else:
            continue
        for row in _rows(artifact.reader(file.path), wanted):
            found.rows[row["id"]] = row["split"]
            found.dialogues |= {row["dialogue"]} - {""}
            counts[f"{row['split']}{what}"] += 1
    if counts:
        found.uses.append(Use(kind, artifact.reference.uri, ["holds"], dict(counts)))
    return counts


def _rows(file: io.RawIOBase, wanted: str) -> Iterator[dict[str, str]]:
    """id, split and dialogue of the rows whose id or speaker is ``wanted``."""
    with pq.ParquetFile(file, pre_buffer=False) as table:
        names = [name for name in ("id", "speaker", "split", "dialogue") if name in table.schema_arrow.names]
        for batch in table.iter_batches(columns=names):
            chosen = pc.equal(batch.column("id"), wanted)
            if "speaker" in names:
                chosen = pc.or_(chosen, pc.equal(batch.column("speaker"), wanted))
            yield from batch.filter(chosen).to_pylist()


def _mixed(artifact: Artifact, holding: Mapping[str, object], found: Trace) -> dict[str, Counter[str]]:
    """Samples that a mix made from the rows, by stage and kind."""
    stages: dict[str, Counter[str]] = {}
    if artifact.reference.kind != "mix" or not set(artifact.parents.values()) & holding.keys():
        return stages
    files = [file.path for file in artifact.files if file.path.startswith(f"{FOLDER}/")]
    for path in files:
        table = pq.read_table(artifact.reader(path))
        own = table.filter(pc.is_in(table["id"], pa.array(sorted(found.rows), pa.string()))).to_pylist()
        if own:
            stage = path.removeprefix(f"{FOLDER}/").removesuffix(".parquet")
            stages[stage] = Counter()
            for line in own:
                stages[stage][line["kind"]] += line["samples"]
    counts = {f"{stage} {kind}": count for stage, kinds in stages.items() for kind, count in sorted(kinds.items())}
    if not files:
        found.uses.append(Use("mix", artifact.reference.uri, ["may have used them: it is older than provenance"]))
    elif counts:
        found.uses.append(Use("mix", artifact.reference.uri, ["made samples of them"], counts))
    return stages


def _follow(
    artifacts: Sequence[Artifact],
    holding: Mapping[str, Counter[str]],
    mixes: Mapping[str, Mapping[str, Counter[str]]],
    found: Trace,
) -> None:
    """Models that learned from the rows, and those that descend from one."""
    models = {one.reference.uri: one for one in artifacts if _is_model(one)}
    children: defaultdict[str, list[str]] = defaultdict(list)
    for uri, one in models.items():
        for parent in one.parents.values():
            children[parent].append(uri)
        for why in _learned(one, holding, mixes):
            found.trained.setdefault(uri, []).append(why)
    waiting = list(found.trained)
    while waiting:
        parent = waiting.pop(0)
        for uri in children[parent]:
            if uri not in found.trained:
                waiting.append(uri)
            name = next(name for name, address in models[uri].parents.items() if address == parent)
            found.trained.setdefault(uri, []).append(f"stands on one that did ({name})")
    found.uses += [Use(models[uri].reference.kind, uri, how) for uri, how in sorted(found.trained.items())]


def _is_model(artifact: Artifact) -> bool:
    return artifact.reference.kind in _MODELS or artifact.reference.kind.startswith("model-")


def _learned(
    model: Artifact, holding: Mapping[str, Counter[str]], mixes: Mapping[str, Mapping[str, Counter[str]]]
) -> Iterator[str]:
    """What a model itself learned from the rows."""
    kind, parents = model.reference.kind, model.parents.values()
    own = Counter[str]()
    for parent in parents:
        own += holding.get(parent, Counter())
    if kind == "tokenizer" and own["train"]:
        yield f"was fitted to {own['train']} of them"
    if kind == "base" and own["train texts"]:
        yield f"read {own['train texts']} of them"
    stage = kind.removeprefix("model-")
    for parent in parents:
        if samples := mixes.get(parent, {}).get(stage):
            yield f"learned from them in {stage}: " + ", ".join(f"{name} {n}" for name, n in sorted(samples.items()))


def _judged(artifact: Artifact, holding: Mapping[str, object], found: Trace) -> None:
    """The model that an evaluation asked about the rows."""
    if artifact.reference.kind != "evaluation" or not set(artifact.parents.values()) & holding.keys():
        return
    ids = found.rows.keys() | found.dialogues
    count = sum(one in ids for one in _asked(artifact))
    if count:
        found.uses.append(Use("evaluation", artifact.reference.uri, ["asked about them"], {"items": count}))
        found.judged[artifact.parents["model"]] = found.judged.get(artifact.parents["model"], 0) + count


def _asked(evaluation: Artifact) -> list[str]:
    """The id of every item of an evaluation."""
    if any(file.path == _OLD_ITEMS_FILE for file in evaluation.files):
        return [json.loads(line)["id"] for line in evaluation.reader(_OLD_ITEMS_FILE).read().splitlines()]
    found: list[str] = pq.read_table(evaluation.reader(ITEMS_FILE), columns=["id"])["id"].to_pylist()
    return found
