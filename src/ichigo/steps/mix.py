"""``mix``: draw every stage's examples by exact quota, lay them out under the contract, and pack them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichigo import recipe as recipes
from ichigo.recipe.schema import Stage
from ichigo.steps.context import Step, open_step
from ichigo.store import Artifact, Draft

if TYPE_CHECKING:
    from ichigo.corpus.texts import TextRow
    from ichigo.corpus.tokens import TokenRow
    from ichigo.language.contract import TokenContract
    from ichigo.language.layouts import Layouts
    from ichigo.language.mixing import Pool

_TEXTS = "texts.parquet"  # the file of a corpus that holds its written rows
_DATA_FIELDS = ("name", "mix", "examples", "sequence_length", "packing", "loss_on")  # the others concern training


def main(run: str, tokens: list[str], *, corpus: str, base: str, contract: str, data: str) -> None:
    """Commit one folder of packed data per stage, beside it which rows went into it, and write the reference to
    ``data``."""
    with open_step("mix", run) as step:
        shards = [step.open(path) for path in tokens]
        inputs = {"contract": step.open(contract), "base": step.open(base), "corpus": step.open(corpus)}
        read = {"base": "tokenizer.json", "corpus": _TEXTS}
        artifact = step.artifact(
            "mix",
            settings=_settings(step),
            inputs={**inputs, **{f"tokens-{n}": shard for n, shard in enumerate(shards)}},
            digests={name: inputs[name].subset_digest(file) for name, file in read.items()},
            build=lambda draft: _build(step, shards, inputs, draft),
            modules=(__name__,),
        )
        artifact.reference.save(Path(data))


def _settings(step: Step) -> dict[str, Any]:
    stages = [recipes.identity(stage) for stage in step.recipe.stages]
    chosen = {stage["name"]: {name: stage[name] for name in _DATA_FIELDS} for stage in stages}
    return {"stages": chosen, "seed": step.recipe.seed}


def _build(step: Step, shards: Sequence[Artifact], inputs: Mapping[str, Artifact], draft: Draft) -> None:
    from ichigo.language.contract import TokenContract
    from ichigo.language.layouts import Layouts

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        contract = TokenContract.load(inputs["contract"].fetch(folder / "contract"))
        pool = pool_of(token_rows(shards, contract), text_rows(inputs["corpus"]))
        layouts = Layouts.open(inputs["base"].fetch(folder / "base", "tokenizer.json"), contract)
    for stage in step.recipe.stages:
        draft.facts |= _stage(step, stage, pool, layouts, draft.folder)


def token_rows(shards: Sequence[Artifact], contract: TokenContract) -> list[TokenRow]:
    """The rows of every shard; :class:`~ichigo.errors.ContractError` for a shard under another contract."""
    from ichigo.corpus.tokens import read_tokens
    from ichigo.language.contract import TokenContract as Contract

    rows: list[TokenRow] = []
    for shard in shards:
        with tempfile.TemporaryDirectory() as folder:
            shard.fetch(Path(folder))
            contract.require_same(Contract.load(Path(folder)), f"the shard {shard.reference.uri}")
            rows += read_tokens(Path(folder))
    return rows


def text_rows(corpus: Artifact) -> list[TextRow]:
    """The written rows of a corpus."""
    from ichigo.corpus.texts import read_texts

    with tempfile.TemporaryDirectory() as folder:
        return read_texts(corpus.fetch(Path(folder), _TEXTS))


def pool_of(rows: Sequence[TokenRow], texts: Sequence[TextRow]) -> Pool:
    """The training rows: sound without words is noise, but for token strings, whose words nobody knows; what is
    written without an answer teaches nothing."""
    from ichigo.language.mixing import Pool, SpokenRow, TextPair

    spoken = [
        SpokenRow(row.id, row.codes, row.text, row.answer, row.split, row.dialogue, row.turn, row.word_ends)
        for row in rows
        if row.split == "train"
    ]
    written = [
        TextPair(row.id, row.text, row.answer, row.split, row.dialogue, row.turn)
        for row in texts
        if row.split == "train" and row.answer
    ]
    unknown = {row.id for row in rows if row.origin == "tokens"}
    noise = tuple(row for row in spoken if not row.text and row.id not in unknown)
    return Pool(tuple(row for row in spoken if row.text or row.id in unknown), tuple(written), noise)


def _stage(step: Step, stage: Stage, pool: Pool, layouts: Layouts, folder: Path) -> dict[str, Any]:
    from ichigo.corpus.provenance import write_provenance
    from ichigo.language.layouts import lay_out
    from ichigo.language.mixing import draw
    from ichigo.language.packing import pack

    drawn = draw(stage, pool, step.recipe.seed)
    laid_out = lay_out(drawn.samples, layouts, stage.sequence_length, stage.loss_on)
    packed = pack(laid_out.examples, stage.sequence_length, stage.packing)
    packed.save(folder / stage.name, layouts.contract)
    write_provenance(((sample.kind, sample.rows) for sample in laid_out.samples), folder, stage.name)
    counts = ", ".join(f"{kind} {count}" for kind, count in drawn.counts.items())
    refused, fill = sum(laid_out.refused.values()), packed.fill
    step.say(f"{stage.name}: {counts}; {fill.sequences} sequences, {fill.share:.0%} full, {refused} too long")
    numbers = {
        "tokens": fill.tokens,
        "sequences": fill.sequences,
        "fill": round(fill.share, 4),
        "too_long": refused,
        "label_entropy": round(packed.label_entropy, 4),
    }
    return {f"{stage.name}.{name}": value for name, value in numbers.items()}
