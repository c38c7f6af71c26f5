"""A model of a small generated world in a store, with the past that a pipeline run gives it; nothing is trained."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ichigo import recipe as recipes
from ichigo.corpus.rows import Row
from ichigo.corpus.spoken import speak_world
from ichigo.corpus.texts import world_texts, write_texts
from ichigo.corpus.tokens import token_row, write_tokens
from ichigo.corpus.world import World
from ichigo.recipe.schema import FitTokenizer, Recipe
from ichigo.speech.audio import read_audio
from ichigo.speech.fit import Fit, Spoken, fit
from ichigo.steps.records import Records, RunRecord, save_recipe
from ichigo.store import Artifact, Store
from tests.unit.model_folder import commit, make_model

RECIPE = recipes.load(
    "tiny",
    [
        *("data.world.utterances=24", "data.world.items=2", "data.world.text_only_facts=0.01", "data.world.noise=2"),
        *("tokenizer.width=32", "tokenizer.layers=1", "tokenizer.steps=40", "tokenizer.codes=16"),
        *("tokenizer.batch=4", "evaluation.max_new_tokens=4"),
    ],
)


@dataclass(frozen=True)
class WorldModel:
    """A model and the key of the run that it is known by."""

    model: Artifact
    run: str


def make_world_model(store: Store, folder: Path) -> WorldModel:
    """Make the model of the world of :data:`RECIPE` from random weights, in ``folder``, and commit it with its
    ancestors. Its run has no record yet: see :func:`finish_run`."""
    run = f"tiny-{secrets.token_hex(4)}"
    assert RECIPE.data.world is not None
    world = World(RECIPE.data.world, RECIPE.seed)
    rows = list(speak_world(world, 2))
    fitted = _fit(rows)
    parts = {name: folder / name for name in ("corpus", "tokenizer", "tokens", "mix", "model")}
    write_texts(world_texts(world), parts["corpus"])
    fitted.save(parts["tokenizer"])
    codes = fitted.tokenizer.encode([read_audio(row.audio, row.id) for row in rows])
    write_tokens(map(token_row, rows, codes), parts["tokens"])
    parts["mix"].mkdir()
    (parts["mix"] / "counts.json").write_text("{}")
    make_model(parts["model"], fitted.tokenizer.identity())

    def committed(kind: str, part: str, **parents: Artifact) -> Artifact:
        return commit(store, kind, parts[part], parents, run)

    corpus = committed("corpus", "corpus")
    tokenizer = committed("tokenizer", "tokenizer", corpus=corpus)
    tokens = committed("tokens", "tokens", corpus=corpus, tokenizer=tokenizer)
    mix = committed("mix", "mix", tokens=tokens, corpus=corpus)
    model = committed("expanded", "model", corpus=corpus)
    for stage in recipes.STAGE_ORDER:
        model = committed(f"model-{stage}", "model", model=model, data=mix)
    return WorldModel(model, run)


def _fit(rows: Sequence[Row]) -> Fit:
    assert isinstance(RECIPE.tokenizer, FitTokenizer)
    heard = (row for row in rows if row.split == "train")
    return fit((Spoken(read_audio(row.audio), row.phones, row.words) for row in heard), RECIPE.tokenizer, RECIPE.seed)


def finish_run(store: Store, run: str, evaluation: Mapping[str, float], recipe: Recipe = RECIPE) -> None:
    """Write what a finished run leaves in the store."""
    records, (uri, digest) = Records(store, run), save_recipe(store, recipe)
    records.save_run(RunRecord(run, uri, digest, recipes.fingerprint(recipe)))
    records.save_summary({"run_key": run, "evaluation": dict(evaluation)})
