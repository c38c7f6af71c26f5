"""``tokenize``: one shard of recordings becomes sound tokens, under the token contract."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ichigo.steps.context import open_step
from ichigo.store import Draft


def main(run: str, shard: str, *, corpus: str, tokenizer: str, contract: str, tokens: str) -> None:
    """Commit the tokens of ``shard`` (a file of the corpus) and write their reference to ``tokens``."""
    with open_step(f"tokenize-{Path(shard).stem}", run) as step:
        inputs = {"corpus": step.open(corpus), "tokenizer": step.open(tokenizer), "contract": step.open(contract)}

        def build(draft: Draft) -> None:
            from ichigo.corpus.shards import read_shard
            from ichigo.corpus.tokens import token_row, write_tokens
            from ichigo.speech.audio import read_audio
            from ichigo.speech.vq import WhisperVQ

            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                rows = read_shard(inputs["corpus"].fetch(folder / "corpus", shard) / shard)
                speech = WhisperVQ.open(inputs["tokenizer"].fetch(folder / "tokenizer"))
            codes = speech.encode([read_audio(row.audio, row.id) for row in rows])
            write_tokens([token_row(row, own) for row, own in zip(rows, codes, strict=True)], draft.folder)
            inputs["contract"].fetch(draft.folder)
            draft.facts.update(rows=len(rows), sound_tokens=sum(map(len, codes)))

        artifact = step.artifact(
            "tokens",
            settings={},
            inputs=inputs,
            digests={"corpus": inputs["corpus"].subset_digest(shard)},
            build=build,
            modules=(__name__,),
        )
        artifact.reference.save(Path(tokens))
