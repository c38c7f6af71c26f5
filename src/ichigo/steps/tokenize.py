"""``tokenize``: one shard of recordings becomes sound tokens, under the token contract.

Whatever has the tokens of a sound already, an earlier run that was killed or another corpus, spares encoding it again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from ichigo.steps.context import open_step
from ichigo.store import Artifact, Draft, Objects, code_digest

_ENCODER = ("ichigo.speech.vq", "ichigo.speech.audio")  # the sources that decide which tokens a sound has


def main(run: str, shard: str, *, corpus: str, tokenizer: str, contract: str, tokens: str) -> None:
    """Commit the tokens of ``shard`` (a file of the corpus) and write their reference to ``tokens``."""
    with open_step(f"tokenize-{Path(shard).stem}", run) as step:
        inputs = {"corpus": step.open(corpus), "tokenizer": step.open(tokenizer), "contract": step.open(contract)}
        artifact = step.artifact(
            "tokens",
            settings={},
            inputs=inputs,
            digests={"corpus": inputs["corpus"].subset_digest(shard)},
            build=lambda draft: build(step.store.objects, shard, inputs, draft),
            modules=(__name__,),
        )
        artifact.reference.save(Path(tokens))


def build(objects: Objects, shard: str, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """Fill ``draft`` with the tokens of ``shard``; the cache of tokens lies in ``objects``."""
    from ichigo.corpus.token_cache import TokenCache
    from ichigo.corpus.tokenising import Tokenising
    from ichigo.corpus.tokens import write_tokens
    from ichigo.speech.vq import WhisperVQ

    corpus = inputs["corpus"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        speech = WhisperVQ.open(inputs["tokenizer"].fetch(folder / "tokenizer"))
        path = corpus.fetch(folder / "corpus", shard) / shard
        keys = {"tokenizer": speech.identity(), "code": code_digest(*_ENCODER), "corpus": corpus.digest}
        with closing(TokenCache(objects, **keys, shard=shard, scratch=folder)) as cache:
            work = Tokenising(speech, cache)
            write_tokens(work.rows(path), draft.folder)
    inputs["contract"].fetch(draft.folder)
    draft.facts.update(asdict(work.account))
