"""``tokenize``: one shard of recordings becomes sound tokens, under the token contract.

Whatever has the tokens of a sound already, an earlier run that was killed or another corpus, spares encoding it again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo.steps.context import open_step
from ichigo.store import Artifact, Draft, Objects, code_digest

if TYPE_CHECKING:
    from ichigo.corpus.rows import Row
    from ichigo.speech.vq import WhisperVQ

_ENCODER = ("ichigo.speech.vq", "ichigo.speech.audio")  # the sources that decide which tokens a sound has
_TOGETHER = 256  # recordings that the recogniser hears at a time
_READ = ("id", "text", "split", "dialogue", "audio")  # what it has to know of a row


def main(run: str, shard: str, *, corpus: str, tokenizer: str, contract: str, tokens: str) -> None:
    """Commit the tokens of ``shard`` (a file of the corpus) and write their reference to ``tokens``."""
    with open_step(f"tokenize-{Path(shard).stem}", run) as step:
        shuffle = step.recipe.ablations.shuffle_sound
        inputs = {"corpus": step.open(corpus), "tokenizer": step.open(tokenizer), "contract": step.open(contract)}
        artifact = step.artifact(
            "tokens",
            settings={"shuffle_sound": shuffle},
            inputs=inputs,
            digests={"corpus": inputs["corpus"].subset_digest(shard)},
            build=lambda draft: build(step.store.objects, shard, inputs, draft, shuffle=shuffle),
            modules=(__name__,),
        )
        artifact.reference.save(Path(tokens))


def build(objects: Objects, shard: str, inputs: Mapping[str, Artifact], draft: Draft, *, shuffle: bool = False) -> None:
    """Fill ``draft`` with the tokens of ``shard``; the cache of tokens lies in ``objects``.

    With ``shuffle`` those of every utterance go into random order: an ablation.
    """
    from ichigo.corpus.token_cache import TokenCache
    from ichigo.corpus.tokenising import Tokenising
    from ichigo.corpus.tokens import in_random_order, write_tokens
    from ichigo.speech.vq import WhisperVQ as Tokenizer

    corpus = inputs["corpus"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        speech = Tokenizer.open(inputs["tokenizer"].fetch(folder / "tokenizer"))
        path = corpus.fetch(folder / "corpus", shard) / shard
        keys = {"tokenizer": speech.identity(), "code": code_digest(*_ENCODER), "corpus": corpus.digest}
        with closing(TokenCache(objects, **keys, shard=shard, scratch=folder)) as cache:
            work = Tokenising(speech, cache)
            heard = transcripts(path, speech, folder / "tokenizer")
            rows = (replace(row, heard=heard.get(row.id, "")) for row in work.rows(path))
            write_tokens(map(in_random_order, rows) if shuffle else rows, draft.folder)
    inputs["contract"].fetch(draft.folder)
    draft.facts.update(asdict(work.account))


def transcripts(shard: Path, speech: WhisperVQ, tokenizer: Path) -> dict[str, str]:
    """What the recogniser beside ``tokenizer`` hears in the single held-out utterances of ``shard``, by row id.

    It hears recordings, which an evaluation has no more. A tokenizer that was not fitted has none.
    """
    from ichigo.corpus.shards import iter_rows
    from ichigo.speech.audio import read_audio
    from ichigo.speech.hearing import HEARING_FILE, Hearing

    if not (tokenizer / HEARING_FILE).is_file():
        return {}
    hearing, found = Hearing.open(tokenizer), dict[str, str]()
    if not len(hearing.lexicon):
        return {}
    rows = (row for row in iter_rows(shard, _READ) if _said_by_itself(row))
    while some := list(islice(rows, _TOGETHER)):
        words = hearing.words(speech, [read_audio(row.audio, row.id) for row in some])
        found |= dict(zip((row.id for row in some), words, strict=True))
    return found


def _said_by_itself(row: Row) -> bool:
    return row.split == "test" and bool(row.text and row.audio) and not row.dialogue
