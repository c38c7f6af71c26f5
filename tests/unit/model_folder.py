"""A small model, its speech tokenizer and a store that holds both, made by the rooms that make real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from ichigo.language.base import init_base
from ichigo.language.checkpoint import load_model
from ichigo.language.contract import contract_for
from ichigo.language.expand import expand
from ichigo.recipe.schema import Expand, FitTokenizer, InitBase
from ichigo.speech.fit import Spoken, fit
from ichigo.speech.synthesis import PAUSE, Phone, Word
from ichigo.store import Artifact, Identity, Store

BASE = InitBase(kind="init", width=32, layers=2, heads=4, kv_heads=2, feed_forward=64, vocabulary=300)
TOKENIZER = FitTokenizer(
    kind="fit", width=32, layers=1, heads=2, codes=16, codebook_dim=8, steps=60, batch=4, learning_rate=4e-3
)
TONES = {"a": 300.0, "e": 700.0, "i": 1500.0, "o": 2600.0, "u": 4200.0}  # Hz of each "phone"
WORDS = {"one": "ai", "two": "uo", "three": "eia", "four": "oe"}


def speech(text: str, seed: int = 0) -> Spoken:
    """Words of :data:`WORDS` as tones of 80 to 160 ms between pauses, with a little noise."""
    rng = np.random.default_rng(seed)
    said = [(word, symbol) for word in text.split() for symbol in (*WORDS[word], PAUSE)]
    said.insert(0, ("", PAUSE))
    lengths = rng.integers(1280, 2560, len(said))
    ends = np.cumsum(lengths) / 16_000
    pitch = np.repeat([TONES.get(symbol, 0.0) for _, symbol in said], lengths)
    tones = np.sin(2 * np.pi * np.cumsum(pitch) / 16_000)
    wave = 0.3 * tones + 0.01 * rng.standard_normal(lengths.sum())
    starts = [0.0, *ends[:-1].tolist()]
    phones = [Phone(start, end, s) for (_, s), start, end in zip(said, starts, ends.tolist(), strict=True)]
    return Spoken(wave.astype(np.float32), phones, list(_words(phones, text)))


def _words(phones: list[Phone], text: str) -> Iterator[Word]:
    at = 1
    for word in text.split():
        yield Word(phones[at].start_s, phones[at + len(WORDS[word]) - 1].end_s, word)
        at += len(WORDS[word]) + 1


def make_tokenizer(folder: Path, seed: int = 1) -> str:
    """Fit a tokenizer and what reads its tokens into ``folder``; returns the tokenizer's identity."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(list(WORDS), 4)) for _ in range(30)]
    fitted = fit([speech(text, number) for number, text in enumerate(texts)], TOKENIZER, seed)
    fitted.save(folder)
    return fitted.tokenizer.identity()


def make_model(folder: Path, speech_tokenizer: str) -> None:
    """An expanded model with weights wide enough apart that different prompts have different answers."""
    base = folder.with_name(f"{folder.name}-base")
    init_base(["turn on the light", "what is two plus two"], BASE, seed=1, folder=base)
    contract = contract_for(base, speech_tokenizer)
    expand(base, contract, Expand(), seed=1, out_folder=folder)
    model = load_model(folder, contract)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.3, generator=generator)
        model.lm_head.weight[contract.eot] *= 2.5  # a larger row wins more often, so answers end
        model.lm_head.weight[contract.first_sound + TOKENIZER.codes + 1 :] = 0  # codes that the tokenizer does not have
    model.save_pretrained(folder)


def make_both(root: Path) -> tuple[Path, Path]:
    """A model and its speech tokenizer, in folders below ``root``."""
    make_model(root / "model", make_tokenizer(root / "tokenizer"))
    return root / "model", root / "tokenizer"


def commit(store: Store, kind: str, folder: Path, parents: Mapping[str, Artifact], name: str = "") -> Artifact:
    """The files of ``folder`` as an artifact."""
    identity = Identity(kind, {"name": name}, {key: parent.digest for key, parent in parents.items()}, "code")
    references = {key: parent.reference for key, parent in parents.items()}
    with store.write(identity, parents=references) as draft:
        for path in folder.iterdir():
            (draft.folder / path.name).write_bytes(path.read_bytes())
    return draft.committed
