"""``contract``: join tokenizer and base under one token contract, which everything with ids carries from here on."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ichigo.hashing import sha256_json
from ichigo.steps.context import open_step
from ichigo.store import Draft

_BASE_FILES = ("tokenizer.json", "config.json")  # all that the ids depend on: new weights keep the contract


def main(run: str, foundations: list[str], *, tokenizer: str, base: str, contract: str) -> None:
    """Write the references of tokenizer, base and contract; ``foundations`` are those of the first two."""
    with open_step("contract", run) as step:
        found = {artifact.reference.kind: artifact for artifact in map(step.open, foundations)}

        def build(draft: Draft) -> None:
            from ichigo.language.contract import contract_for

            with tempfile.TemporaryDirectory() as folder:
                for name in _BASE_FILES:
                    found["base"].fetch(Path(folder), name)
                made = contract_for(Path(folder), found["tokenizer"].read_json("tokenizer.json")["identity"])
            made.save(draft.folder)
            draft.facts.update(vocabulary=made.vocabulary, first_sound=made.first_sound, digest=made.digest[:12])

        artifact = step.artifact(
            "contract",
            settings={},
            inputs=found,
            digests={"base": sha256_json([found["base"].subset_digest(name) for name in _BASE_FILES])},
            build=build,
            modules=(__name__,),
        )
        artifact.reference.save(Path(contract))
        found["tokenizer"].reference.save(Path(tokenizer))
        found["base"].reference.save(Path(base))
