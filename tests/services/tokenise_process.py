"""One run of the work of ``tokenize`` that kills itself: ``python -m tests.services.tokenise_process STORE FOLDER N``.

``FOLDER`` holds the references that :func:`tests.measure_tokenising.prepare` saved. Before its write number ``N`` (0:
never) the process gets SIGKILL. Batches are of 8 rows. Prints the reference of what it committed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from ichigo.corpus import tokenising
from ichigo.steps.tokenize import build
from ichigo.store import Identity, Reference, Store
from tests.measure_tokenising import SHARD
from tests.store_contract import Watched


def main(uri: str, folder: Path, last: int) -> None:
    """Tokenise and commit, or die on the way."""

    def die(number: int) -> None:
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)

    tokenising.ROWS_TOGETHER = 8
    store = Store(Watched(Store.at(uri).objects, die))
    inputs = {name: store.open(Reference.load(folder / name)) for name in ("corpus", "tokenizer", "contract")}
    identity = Identity("tokens", {}, {name: one.digest for name, one in inputs.items()}, "")
    with store.write(identity, parents={}, keep=True) as draft:
        if not draft.kept:
            build(store.objects, SHARD, inputs, draft)
    draft.committed.reference.save(folder / "tokens")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
