"""The package on real servers: found by its address and its name, loaded with nothing else installed, and answering."""

from __future__ import annotations

import dataclasses
import secrets
import sys
from pathlib import Path

import pytest
import torch

from ichigo import recipe as recipes
from ichigo.engines.local import starting_at
from ichigo.engines.platform import Endpoints
from ichigo.inference.chain import tokenizer_of
from ichigo.registry.models import register
from ichigo.steps import package as step
from ichigo.steps.records import Records, RunRecord, save_recipe
from ichigo.store import Artifact, Reference, Store
from ichigo.store.garbage import find
from ichigo.store.verification import Wanted, verify
from ichigo.tracking.runs import RunTree
from tests.package_folder import Packed, make_package_folder
from tests.unit.model_folder import commit

pytestmark = pytest.mark.usefixtures("platform_environment")


@dataclasses.dataclass(frozen=True)
class House:
    """A package that the pipeline's step made in a store of its own, and the same on disk."""

    store: Store
    artifact: Artifact
    packed: Packed
    folder: Path


@pytest.fixture(scope="module")
def house(platform: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> House:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("package")
    packed = make_package_folder(root)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in platform.environment().items():
            patch.setenv(name, value)
        store = Store.at(f"{platform.store}-{secrets.token_hex(4)}")
        tokenizer = commit(store, "tokenizer", packed.tokenizer, {})
        model = commit(store, "model-enhance", packed.model, {"data": tokenizer})
        artifact = run_step(store, model, tokenizer, root)
        return House(store, artifact, packed, artifact.fetch(root / "fetched"))


def run_step(store: Store, model: Artifact, tokenizer: Artifact, scratch: Path) -> Artifact:
    """What the step ``package`` makes of ``model``, in a run of its own."""
    recipe = recipes.load("smoke")
    uri, digest = save_recipe(store, recipe)
    key = f"smoke-{secrets.token_hex(4)}"
    tree, records = RunTree.begin("ichigo/package", key, {}, {}), Records(store, key)
    records.save_run(RunRecord(key, uri, digest, recipes.fingerprint(recipe), tree.experiment, tree.parent))
    places = {name: scratch / key / f"{name}.json" for name in ("model", "tokenizer", "package")}
    model.reference.save(places["model"])
    tokenizer.reference.save(places["tokenizer"])
    step.main(records.uri, **{name: str(path) for name, path in places.items()})
    return store.open(Reference.load(places["package"]))


def test_it_is_loaded_by_address_and_by_name_with_its_requirements_alone(house: House, tmp_path: Path) -> None:
    """The interpreter here has more installed, this checkout among it: a guard hides all that is not required."""
    name, digest = f"packed-{secrets.token_hex(4)}", house.artifact.digest
    run = RunTree.begin("ichigo/package", name, {}, {}).parent
    register(name, house.artifact.reference.uri, digest, mlflow_run=run, tags={}, alias="candidate")
    for uri in (house.artifact.reference.uri, f"models:/{name}@candidate"):
        found = house.packed.load(sys.executable, uri, house.folder / "constraints.txt", tmp_path)
        assert {said for (said,) in list(found["said"].values())[:3]} == {house.packed.expected}
        assert len(found["said"]["example"]) == 1
        assert found["code"].endswith("/code/ichigo/__init__.py")
        assert "ichigo" not in found["refused"], "of the checkout around it"


def test_it_is_the_hugging_face_folder_with_the_weights_in_it_once(house: House) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (one.from_pretrained(house.folder) for one in (AutoModelForCausalLM, AutoTokenizer))
    trained = load_file(house.packed.model / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in trained.items())
    assert tokenizer("<|sound_0007|>", add_special_tokens=False).input_ids == [model.config.vocab_size - 513 + 7]
    digests = [file.sha256 for file in house.artifact.files if file.size > 20_000]
    assert len(digests) == len(set(digests)), "no large file is there twice"


def test_the_chain_of_digests_goes_through_it(house: House) -> None:
    artifact, store = house.artifact, house.store
    wanted = Wanted(artifact.reference.uri, artifact.reference.manifest, artifact.digest)
    findings = verify(store, [wanted])
    assert [(one.uri.split("/")[-3], one.status) for one in findings] == [
        ("package", "ok"),
        ("model-enhance", "ok"),
        ("tokenizer", "ok"),
    ]
    assert findings[0].files == len(artifact.files)
    assert find(store, [], before=2e9) == []
    assert tokenizer_of(artifact, store).reference.uri == artifact.parents["tokenizer"]
    place = f"{artifact.reference.uri.removeprefix(store.objects.uri + '/')}/MLmodel"
    whole = store.objects.get(place)
    store.objects.put(place, whole + b" ")
    try:
        assert verify(store, [wanted])[0].status == "damaged"
    finally:
        store.objects.put(place, whole)


def test_the_same_model_is_the_same_package(house: House, tmp_path: Path) -> None:
    """Reused as it is; made anew it has the same bytes, so the registry knows it."""
    store = house.store
    model, tokenizer = (store.open_uri(house.artifact.parents[name]) for name in ("model", "tokenizer"))
    again = run_step(store, model, tokenizer, tmp_path)
    assert again.reference == house.artifact.reference
    fingerprint = house.artifact.reference.uri.split("/")[-2]
    store.objects.delete(f"package/{fingerprint}/COMMITTED.json")
    anew = run_step(store, model, tokenizer, tmp_path)
    assert (anew.digest, anew.reference.uri == house.artifact.reference.uri) == (house.artifact.digest, False)


def test_a_run_goes_on_from_the_model_in_it(house: House, platform: Endpoints) -> None:
    endpoints = dataclasses.replace(platform, store=house.store.objects.uri)
    recipe = starting_at(recipes.load("smoke"), "evaluate", house.artifact.reference.uri, endpoints)
    assert recipe.start is not None
    assert recipe.start.model == house.artifact.parents["model"]
