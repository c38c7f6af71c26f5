"""Asking a model by its name in the registry, by a run and by its address, from a real store."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ichigo.cli.main import main
from ichigo.engines.platform import Endpoints
from ichigo.errors import UserError
from ichigo.registry.lookup import find
from ichigo.registry.models import register
from ichigo.store import Artifact, Store
from ichigo.tracking.runs import RunTree
from tests.services.world_model import WorldModel
from tests.unit.model_folder import commit, make_both

Ask = Callable[..., tuple[int, str, str]]


pytestmark = pytest.mark.usefixtures("platform_environment")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its speech tokenizer."""
    torch.set_num_threads(1)
    return make_both(tmp_path_factory.mktemp("ask"))


@pytest.fixture
def model(platform: Endpoints, folders: tuple[Path, Path]) -> Artifact:
    """The model in the store, with the tokenizer as its grandparent."""
    store = Store.at(platform.store)
    tokenizer = commit(store, "tokenizer", folders[1], {}, secrets.token_hex(4))
    tokens = commit(store, "tokens", folders[1], {"tokenizer": tokenizer}, secrets.token_hex(4))
    return commit(store, "model-enhance", folders[0], {"data": tokens}, secrets.token_hex(4))


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run ``ichigo ask`` in an empty home; returns exit status, output and errors."""
    monkeypatch.setenv("ICHIGO_HOME", str(tmp_path / "home"))
    capsys.readouterr()

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["ask", "--max-new-tokens", "8", "--json", *arguments])
        return status, *capsys.readouterr()

    return run


def registered(model: Artifact, digest: str = "", alias: str | None = None) -> str:
    name = f"tiny-{secrets.token_hex(4)}"
    run = RunTree.begin("ichigo/ask", name, {}, {}).parent
    register(name, model.reference.uri, digest or model.digest, mlflow_run=run, tags={}, alias=alias)
    return name


def answer(out: str) -> str:
    text: str = json.loads(out)["turns"][0]["answer"]
    return text


def test_every_way_to_name_a_model_leads_to_the_same_answer(
    ask: Ask, model: Artifact, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    name = registered(model, alias="candidate")
    summary = {"model": {"uri": model.reference.uri, "digest": model.digest, "name": name, "version": "1"}}
    latest = tmp_path / "home" / "runs" / "latest"
    latest.mkdir(parents=True)
    (latest / "summary.json").write_text(json.dumps({**summary, "steps": [], "run_key": "r", "status": "succeeded"}))
    ways = [
        [],
        *(["--model", way] for way in (name, f"{name}@candidate", f"{name}@1", model.reference.uri, str(latest))),
    ]
    spoken = ("--say", "turn on the light")
    expected = answer(ask(*spoken, "--model", str(folders[0]), "--tokenizer", str(folders[1]))[1])
    assert [answer(ask(*spoken, *way)[1]) for way in ways] == [expected] * 6


def test_a_registered_model_of_a_world_is_asked_by_voice_and_in_writing(
    ask: Ask, world_model: WorldModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tokenizer hears in blocks, lies five generations back, and is found by the name alone."""
    name = registered(world_model.model, alias="candidate")
    capsys.readouterr()
    for way in (name, f"{name}@candidate", f"{name}@1"):
        status, out, err = ask("--say", "turn on the light", "--say", "what is two", "--model", way)
        assert status == 0, err
        assert err.endswith(f"asking {name} version 1\n")
        turns = json.loads(out)["turns"]
        assert [turn["sound_tokens"] > 10 for turn in turns] == [True, True]
        assert ask("--text", "turn on the light", "--model", way)[0] == 0
    assert main(["speak", "turn on the light", "--seconds", "1", "--json", "--model", name]) == 0, "its recogniser, too"


def test_bytes_are_fetched_once_and_the_tokenizer_only_for_speech(ask: Ask, model: Artifact, tmp_path: Path) -> None:
    cache = tmp_path / "home" / "cache"
    assert "fetching" in ask("--text", "hello", "--model", model.reference.uri)[2]
    assert [path.name for path in cache.iterdir()] == [model.digest]
    assert ask("--say", "hello", "--model", model.reference.uri)[2].count("fetching") == 1
    assert "fetching" not in ask("--say", "hello", "--model", model.reference.uri)[2]
    assert len(list(cache.iterdir())) == 2


def test_a_run_that_registered_nothing_is_asked_for_its_last_model(ask: Ask, model: Artifact, tmp_path: Path) -> None:
    made = {"kind": "model-enhance", "uri": model.reference.uri, "digest": model.digest}
    steps: list[dict[str, Any]] = [{"name": "enhance", "artifact": made}, {"name": "gate", "artifact": None}]
    summary = {"model": None, "steps": steps, "run_key": "smoke-1", "status": "succeeded"}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    status, _, err = ask("--text", "hello", "--model", str(tmp_path / "summary.json"))
    assert status == 0
    assert "enhance of smoke-1, unregistered" in err


def test_bytes_that_are_not_the_registered_ones_are_refused(ask: Ask, model: Artifact) -> None:
    status, _, err = ask("--text", "hello", "--model", registered(model, digest="f" * 64))
    assert status == 4
    assert model.digest in err


def test_an_address_without_an_artifact_is_told(ask: Ask, model: Artifact) -> None:
    status, _, err = ask("--text", "hello", "--model", f"{model.reference.uri}0")
    assert status == 4
    assert "never finished" in err
    assert ask("--text", "hello", "--model", "s3://ichigo")[0] == 2


def test_the_newest_version_is_what_a_bare_name_means(model: Artifact) -> None:
    name = registered(model)
    run = RunTree.begin("ichigo/ask", name, {}, {}).parent
    for number in range(2, 12):
        register(name, f"{model.reference.uri}-{number}", f"{number:064d}", mlflow_run=run, tags={}, alias=None)
    assert (find(name).version, find(f"{name}@9").version) == ("11", "9")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name: f"{name}@champion", "candidate, {name}@1"),
        (lambda name: f"{name}@7", "candidate, {name}@1"),
        (lambda name: f"{name}-more", "{name}"),
        (lambda name: "what is this?", "is no name of a registered model"),
    ],
    ids=["alias", "version", "name", "no name"],
)
def test_an_unknown_model_is_answered_with_those_that_exist(
    model: Artifact, change: Callable[[str], str], message: str
) -> None:
    name = registered(model, alias="candidate")
    with pytest.raises(UserError, match=message.format(name=name)):
        find(change(name))
