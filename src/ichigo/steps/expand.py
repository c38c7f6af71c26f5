"""``expand``: give the base model rows for the sound tokens."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo import recipe as recipes
from ichigo.steps.context import open_step
from ichigo.store import Artifact, Draft

if TYPE_CHECKING:
    from ichigo.language.expand import Codebook

_QUANTISER = "whisper-vq.model"  # the file of a tokenizer that holds its codebook


def main(run: str, *, base: str, tokenizer: str, contract: str, model: str) -> None:
    """Commit the expanded model and write its reference to ``model``."""
    with open_step("expand", run) as step:
        inputs = {"base": step.open(base), "tokenizer": step.open(tokenizer), "contract": step.open(contract)}
        if start := step.recipe.start:
            given = step.store.open_uri(start.model)
            require_contract(given, inputs["contract"])
            step.skip(f"skipped: the run starts at {start.step} from {start.model}", given).reference.save(Path(model))
            return

        def build(draft: Draft) -> None:
            from ichigo.language.contract import TokenContract
            from ichigo.language.expand import expand

            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                ids = TokenContract.load(inputs["contract"].fetch(folder / "contract"))
                source, settings = inputs["base"].fetch(folder / "base"), step.recipe.expand
                vectors = None
                if settings.init == "codebook":
                    vectors = read_codebook(inputs["tokenizer"].fetch(folder / "tokenizer", _QUANTISER))
                expand(source, ids, settings, step.recipe.seed, draft.folder, vectors)
            draft.facts.update(vocabulary=ids.vocabulary)

        artifact = step.artifact(
            "expanded",
            settings={"expand": recipes.identity(step.recipe.expand), "seed": step.recipe.seed},
            inputs=inputs,
            digests={"tokenizer": inputs["tokenizer"].subset_digest(_QUANTISER)},
            build=build,
            modules=(__name__,),
        )
        artifact.reference.save(Path(model))


def require_contract(model: Artifact, contract: Artifact) -> None:
    """:class:`~ichigo.errors.ContractError` unless ``model`` was made under this ``contract``."""
    from ichigo.language.contract import CONTRACT_FILE, TokenContract

    with tempfile.TemporaryDirectory() as scratch:
        ours = TokenContract.load(contract.fetch(Path(scratch) / "ours"))
        theirs = TokenContract.load(model.fetch(Path(scratch) / "theirs", CONTRACT_FILE))
    ours.require_same(theirs, f"the model {model.reference.uri}")


def read_codebook(tokenizer: Path) -> Codebook:
    """The vector of every code of a saved tokenizer, the stand-in for padding last: float32 (codes + 1, dim)."""
    from ichigo.speech.weights import read_weights, section

    path = tokenizer / _QUANTISER
    tensors = section(read_weights(path), "state_dict", str(path))
    vectors: Codebook = tensors["rq.layers.0._codebook.embed"][0].float().numpy()
    return vectors
