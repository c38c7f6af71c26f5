"""``tokenize``: one shard of recordings becomes sound tokens, under the token contract."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo.steps.context import open_step
from ichigo.store import Draft

if TYPE_CHECKING:
    from ichigo.corpus.rows import Row
    from ichigo.corpus.tokens import TokenRow
    from ichigo.speech.vq import WhisperVQ

_TOGETHER = 1024  # rows: enough for the tokenizer to find batches of like length, 90 MB of waveforms at 1.4 s


def main(run: str, shard: str, *, corpus: str, tokenizer: str, contract: str, tokens: str) -> None:
    """Commit the tokens of ``shard`` (a file of the corpus) and write their reference to ``tokens``."""
    with open_step(f"tokenize-{Path(shard).stem}", run) as step:
        inputs = {"corpus": step.open(corpus), "tokenizer": step.open(tokenizer), "contract": step.open(contract)}

        def build(draft: Draft) -> None:
            from ichigo.corpus.shards import iter_rows
            from ichigo.corpus.tokens import write_tokens
            from ichigo.speech.vq import WhisperVQ

            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                speech = WhisperVQ.open(inputs["tokenizer"].fetch(folder / "tokenizer"))
                rows = list(tokenised(speech, iter_rows(inputs["corpus"].fetch(folder / "corpus", shard) / shard)))
            write_tokens(rows, draft.folder)
            inputs["contract"].fetch(draft.folder)
            draft.facts.update(rows=len(rows), sound_tokens=sum(len(row.codes) for row in rows))

        artifact = step.artifact(
            "tokens",
            settings={},
            inputs=inputs,
            digests={"corpus": inputs["corpus"].subset_digest(shard)},
            build=build,
            modules=(__name__,),
        )
        artifact.reference.save(Path(tokens))


def tokenised(speech: WhisperVQ, rows: Iterator[Row]) -> Iterator[TokenRow]:
    """The rows with sound tokens, :data:`_TOGETHER` in memory at a time."""
    from ichigo.corpus.tokens import token_row
    from ichigo.speech.audio import read_audio

    while batch := list(islice(rows, _TOGETHER)):
        codes = speech.encode([read_audio(row.audio, row.id) for row in batch])
        yield from map(token_row, batch, codes)
