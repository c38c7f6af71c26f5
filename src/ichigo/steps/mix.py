"""``mix``: draw every stage's examples by exact quota, lay them out under the contract, and pack them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichigo import recipe as recipes
from ichigo.recipe.schema import Stage
from ichigo.steps.context import Step, open_step
from ichigo.store import Artifact, Draft

if TYPE_CHECKING:
    from ichigo.corpus.tokens import TokenRow
    from ichigo.language.contract import TokenContract
    from ichigo.language.layouts import Layouts
    from ichigo.language.mixing import Pool

_DATA_FIELDS = ("name", "mix", "examples", "sequence_length", "packing", "loss_on")  # the others concern training


def main(run: str, tokens: list[str], *, base: str, contract: str, data: str) -> None:
    """Commit one folder of packed data per stage and write the reference to ``data``."""
    with open_step("mix", run) as step:
        shards = [step.open(path) for path in tokens]
        ids, text_model = step.open(contract), step.open(base)
        artifact = step.artifact(
            "mix",
            settings=_settings(step),
            inputs={"contract": ids, "base": text_model, **{f"tokens-{n}": shard for n, shard in enumerate(shards)}},
            digests={"base": text_model.subset_digest("tokenizer.json")},
            build=lambda draft: _build(step, shards, text_model, ids, draft),
            modules=(__name__,),
        )
        artifact.reference.save(Path(data))


def _settings(step: Step) -> dict[str, Any]:
    stages = [recipes.identity(stage) for stage in step.recipe.stages]
    chosen = {stage["name"]: {name: stage[name] for name in _DATA_FIELDS} for stage in stages}
    sentences = recipes.identity(step.recipe.data)["sentences"]
    return {"stages": chosen, "sentences": sentences, "seed": step.recipe.seed}


def _build(step: Step, shards: Sequence[Artifact], base: Artifact, ids: Artifact, draft: Draft) -> None:
    from ichigo.language.contract import TokenContract
    from ichigo.language.layouts import Layouts

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        contract = TokenContract.load(ids.fetch(folder / "contract"))
        pool = _pool(step, token_rows(shards, contract))
        layouts = Layouts.open(base.fetch(folder / "base", "tokenizer.json"), contract)
    for stage in step.recipe.stages:
        draft.facts |= _stage(step, stage, pool, layouts, draft.folder / stage.name)


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


def _pool(step: Step, rows: Sequence[TokenRow]) -> Pool:
    from ichigo.language.mixing import Pool, SpokenRow, TextPair

    train = [row for row in rows if row.split == "train"]
    spoken = tuple(SpokenRow(row.id, row.codes, row.text, row.answer, row.split) for row in train)
    written = [(sentence.text, sentence.answer) for sentence in step.recipe.data.sentences]
    asked = [*written, *((row.text, row.answer) for row in train)]
    pairs = {(text, answer): None for text, answer in asked if answer}
    return Pool(spoken, tuple(TextPair(f"text-{n}", *pair) for n, pair in enumerate(pairs)))


def _stage(step: Step, stage: Stage, pool: Pool, layouts: Layouts, folder: Path) -> dict[str, Any]:
    from ichigo.language.layouts import lay_out
    from ichigo.language.mixing import draw
    from ichigo.language.packing import pack

    drawn = draw(stage, pool, step.recipe.seed)
    laid_out = lay_out(drawn.samples, layouts, stage.sequence_length, stage.loss_on)
    packed = pack(laid_out.examples, stage.sequence_length, stage.packing)
    packed.save(folder, layouts.contract)
    counts = ", ".join(f"{kind} {count}" for kind, count in drawn.counts.items())
    refused = sum(laid_out.refused.values())
    step.say(f"{stage.name}: {counts}; {len(packed)} sequences, {packed.fill.share:.0%} full, {refused} too long")
    return {f"{stage.name}.tokens": packed.fill.tokens, f"{stage.name}.too_long": refused}
