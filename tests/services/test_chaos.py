"""Six kills of one training step on real MLflow, S3, torchrun and DeepSpeed; whole runs are for ``make chaos``."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ichigo import recipe as recipes
from ichigo.engines.platform import Endpoints
from ichigo.recipe import Recipe
from ichigo.steps.records import Records, save_recipe
from ichigo.store import Identity, Reference, Store
from ichigo.tracking.runs import client
from tests.chaos.campaign import campaign
from tests.chaos.looks import Curves, curve_problems, curves, partial_artifacts, unusable_checkpoints
from tests.chaos.monkey import PATIENCE, Target, Try, committing, saving, says, uploading
from tests.services.stage_world import World as Trained
from tests.services.stage_world import make_world

RECIPE = recipes.load(
    "smoke",
    [
        *("stages.pretrain.steps=150", "stages.pretrain.sequence_length=96", "stages.pretrain.learning_rate=1e-2"),
        *("launch.checkpoints.every=15", "name=chaos"),
    ],
)
TARGETS = [
    Target("start", says("runs: "), 6.0),
    Target("steps", says(r"pretrain \d+/150"), 0.5),
    Target("save", saving, 0.0),
    Target("steps", says(r"pretrain \d+/150"), 1.0),
    Target("upload", uploading, 0.05),
    Target("commit", committing, 0.0),
]


@dataclass
class StageWorld:
    """A store and a home of its own, in which a stage is trained until it is done."""

    folder: Path
    platform: Endpoints
    recipe: Recipe
    keys: list[str] = field(default_factory=list)
    undisturbed: StageWorld | None = None

    @classmethod
    def make(cls, folder: Path, platform: Endpoints, name: str, trained: Trained) -> StageWorld:
        """The inputs of the stage are in the store; nothing else is."""
        (folder / "home").mkdir(parents=True)
        store = Store.at(f"{platform.store}-{name}")
        for kind, source, below in (("expanded", "model", ""), ("mix", "data", "pretrain")):
            with store.write(Identity(kind, {}, {}, "code"), parents={}) as draft:
                shutil.copytree(trained.folder / source, draft.folder / below, dirs_exist_ok=True)
            draft.committed.reference.save(folder / {"expanded": "start.json", "mix": "data.json"}[kind])
        return cls(folder, replace(platform, store=store.objects.uri), RECIPE)

    @property
    def store(self) -> Store:
        return Store.at(self.platform.store)

    def start(self) -> Try:
        """As a person who runs again: a new run, the same home."""
        self.keys.append(f"chaos-{secrets.token_hex(4)}")
        uri, digest = save_recipe(self.store, self.recipe)
        home = self.folder / "home"
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.chaos.one_step"),
                *(Records(self.store, self.keys[-1]).uri, uri, digest, str(self.folder)),
            ],
            env={**os.environ, **self.platform.environment(), "ICHIGO_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Try(process, home)

    def visible_problems(self) -> list[str]:
        return [*partial_artifacts(self.store), *unusable_checkpoints(self.store)]

    @property
    def model(self) -> str:
        """The digest of the trained model's bytes."""
        return Reference.load(self.folder / "model.json").digest

    def curves(self) -> list[Curves]:
        return curves(self.store, client(), self.keys, "pretrain")

    def differences(self) -> list[str]:
        whole = self.undisturbed
        assert whole
        found = [] if self.model == whole.model else ["the model's bytes are others"]
        left = [str(path) for path in (self.folder / "home").glob("checkpoints/*")]
        return [*found, *left, *curve_problems(self.curves(), whole.curves()[0]), *self.visible_problems()]


@pytest.mark.timeout(1800)  # eight starts of torch and DeepSpeed
def test_six_kills_lose_nothing_double_nothing_and_change_no_bit(
    platform: Endpoints, platform_environment: Any, tmp_path: Path
) -> None:
    trained = make_world(tmp_path / "trained")
    whole = StageWorld.make(tmp_path / "whole", platform, "whole", trained)
    undisturbed = whole.start()
    assert undisturbed.ended(PATIENCE), "it hangs"
    assert undisturbed.process.returncode == 0, "".join(undisturbed.lines[-30:])

    def new_world(number: int) -> StageWorld:
        made = StageWorld.make(tmp_path / str(number), platform, f"killed-{number}", trained)
        made.undisturbed = whole
        return made

    report = campaign(new_world, TARGETS, Random(4), print)
    print(report.table())
    assert report.problems == []
    assert len(report.strikes) == len(TARGETS)
    assert len(report.resumed) >= 2
    assert all(step >= 15 for step in report.resumed)
