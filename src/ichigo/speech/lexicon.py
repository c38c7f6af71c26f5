"""What sound tokens say: phones by a head that a fit trained on tokens alone, words by a lexicon, without training.

A word is a row of phones as synthetic voices said it; each phone lasts one frame of 20 ms or more; pauses may stand
between words. The best path (Viterbi 1967) through all words and pauses is the text. There is no grammar and no
language model, so what is wrong about the text was wrong about the sound: the word error rate measures what tokens
carry, and what a model *said* in sound tokens can be read back.

A :class:`Recogniser` lies beside the tokenizer that it was fitted with: ``recogniser.pt`` and ``lexicon.json``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ichigo.errors import TokenizerError
from ichigo.hashing import canonical_json
from ichigo.speech.synthesis import PAUSE, Phone, Word
from ichigo.speech.vq import DESCRIPTION_FILE, read_description
from ichigo.speech.weights import fill, positive_int, read_weights, section
from ichigo.speech.whisper import POSITIONS, Block, visible

RECOGNISER_FILE, LEXICON_FILE = "recogniser.pt", "lexicon.json"

PRIOR_WEIGHT = 0.3
"""How much of the phones' frequency in training is taken out of the posteriors before words are searched."""

_TOKENS = POSITIONS // 2  # 30 s, as far as positions go

WORD_PENALTY = 4.0
"""Nats for starting a word; with the prior's weight the only constants of the search, tuned on 60 utterances."""

_COVERED = 0.95  # of a word's uses, by its commonest pronunciations;
_MOST = 12  # but no more of them than this

_PUNCTUATION = '.,;:!?"()'  # what a transcript may have around its words

Pronunciation = tuple[str, ...]


def pronunciations(
    spoken: Iterable[tuple[Sequence[Phone], Sequence[Word]]],
) -> dict[str, tuple[Pronunciation, ...]]:
    """How each word was said, commonest first, words in order; a phone belongs to the word at its middle."""
    heard: defaultdict[str, Counter[Pronunciation]] = defaultdict(Counter)
    for phones, words in spoken:
        for word in words:
            inside = (p for p in phones if word.start_s <= (p.start_s + p.end_s) / 2 < word.end_s)
            if said := tuple(phone.symbol for phone in inside if phone.symbol != PAUSE):
                heard[word.text.lower()][said] += 1
    return {word: _commonest(heard[word]) for word in sorted(heard)}


def _commonest(counts: Counter[Pronunciation]) -> tuple[Pronunciation, ...]:
    """The pronunciations that cover most uses."""
    wanted, kept = _COVERED * counts.total(), []
    for said, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST]:
        if wanted <= 0:
            break
        kept.append(said)
        wanted -= count
    return tuple(kept)


class Lexicon:
    """The search for one set of phone classes.

    Its states are all phones of all pronunciations in a row, and one pause.
    """

    def __init__(self, words: Mapping[str, Sequence[Pronunciation]], phones: Sequence[str]) -> None:
        """``phones`` names the classes; raises :class:`TokenizerError` for a word that uses another one."""
        self.words = {word: tuple(map(tuple, said)) for word, said in words.items()}
        classes = {symbol: index for index, symbol in enumerate(phones)}
        rows = [(word, said) for word, sayings in self.words.items() for said in sayings if said]
        if unknown := {symbol for _, said in rows for symbol in said} - classes.keys():
            raise TokenizerError(f"the lexicon uses phone {min(unknown)!r}, which is none of {', '.join(phones)}")
        self._spelled = [word for word, _ in rows]
        self.pause = classes.get(PAUSE, 0)
        self._classes = classes
        self._class = np.array([classes[symbol] for _, said in rows for symbol in said], dtype=np.intp)
        ends = np.cumsum([len(said) for _, said in rows], dtype=np.intp)
        self._last = ends - 1
        self._first = ends - [len(said) for _, said in rows]

    def __len__(self) -> int:
        return len(self.words)

    def sayings(self, text: str) -> list[list[list[int]]] | None:
        """How each word of ``text`` may be said, as phone classes; None if one of them is unknown."""
        words = [word.strip(_PUNCTUATION) for word in text.lower().split()]
        if not all(map(self.words.get, words)):
            return None
        return [[[self._classes[symbol] for symbol in said] for said in self.words[word]] for word in words]

    def text(self, likelihoods: NDArray[np.float32]) -> str:
        """The best words for log likelihoods ``(frames, classes)``, separated by spaces; "" if all is pause.

        Raises :class:`TokenizerError` for a lexicon without words.
        """
        if not self.words:
            raise TokenizerError("the lexicon has no words; fit the tokenizer on speech with known words")
        path = _Path(len(self._class))
        for frame in likelihoods:
            self._advance(path, frame)
        ended = path.ended(self._last)
        return " ".join(self._spelled[row] for row in path.rows(ended))

    def _advance(self, path: _Path, frame: NDArray[np.float32]) -> None:
        """One more frame: every state stays or is entered from the one before; words are entered where one ended."""
        ended = path.ended(self._last)
        entering, via = np.roll(path.scores, 1), np.roll(path.links, 1)
        entering[self._first], via[self._first] = ended.score - WORD_PENALTY, ended.link
        moves = entering > path.scores
        path.scores = np.where(moves, entering, path.scores) + frame[self._class]
        path.links = np.where(moves, via, path.links)
        path.pause = _End(ended.score + float(frame[self.pause]), ended.link)


@dataclass(frozen=True, slots=True)
class _End:
    """The best way to have ended all words so far: its score and the link to its last word, -1 before the first."""

    score: float
    link: int


class _Path:
    """The best path into each state; ``history`` holds (row of the lexicon, link to the word before)."""

    def __init__(self, states: int) -> None:
        self.scores = np.full(states, -np.inf)
        self.links = np.full(states, -1)
        self.pause = _End(0.0, -1)
        self.history: list[tuple[int, int]] = []

    def ended(self, last: NDArray[np.intp]) -> _End:
        """The best of pause and all words in their ``last`` phone."""
        row = int(self.scores[last].argmax())
        if self.scores[last[row]] <= self.pause.score:
            return self.pause
        self.history.append((row, int(self.links[last[row]])))
        return _End(float(self.scores[last[row]]), len(self.history) - 1)

    def rows(self, ended: _End) -> list[int]:
        """Rows of the lexicon from the first word to the last."""
        found, link = [], ended.link
        while link >= 0:
            row, link = self.history[link]
            found.append(row)
        return found[::-1]


@dataclass(frozen=True)
class Sizes:
    """What a :class:`Reader` is made of; ``rows`` of the codebook include the mask row."""

    width: int
    heads: int
    rows: int
    codebook_dim: int
    phones: int


class Reader(nn.Module):
    """Code vectors in, phone logits out: whisperspeech's reading half, under its names, and a head.

    ``codebook``: float32 ``(rows, codebook_dim)``; ``frequency``: float32 ``(phones,)``, shares of training frames.
    """

    codebook: Tensor
    frequency: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.project_out = nn.Linear(sizes.codebook_dim, sizes.width)
        self.positional_embedding = nn.Embedding(POSITIONS, sizes.width)
        nn.init.normal_(self.positional_embedding.weight, std=0.045)  # whisperspeech's embeddings_std
        self._out_blocks = nn.ModuleList([Block(sizes.width, sizes.heads)])
        self.ln_post = nn.LayerNorm(sizes.width)
        self.token_head = nn.Linear(sizes.width, sizes.phones)
        self.register_buffer("codebook", torch.zeros(sizes.rows, sizes.codebook_dim))
        self.register_buffer("frequency", torch.full((sizes.phones,), 1 / sizes.phones))

    def forward(self, quantised: Tensor, positions: Tensor) -> Tensor:
        """``(batch, n, codebook_dim)``, 25 Hz -> ``(batch, 2 n, phones)``; ``positions`` int64 ``(batch,)`` count."""
        x = self.project_out(quantised).repeat_interleave(2, dim=1)
        x = x + self.positional_embedding.weight[: x.shape[1]]
        for block in self._out_blocks:
            x = block(x, visible(positions, x.shape[1]))
        logits: Tensor = self.token_head(self.ln_post(x))
        return logits

    def likelihoods(self, logits: Tensor) -> NDArray[np.float32]:
        """Logits ``(..., phones)`` as the log likelihoods that :class:`Lexicon` searches."""
        return likelihoods(logits, self.frequency)


def likelihoods(logits: Tensor, frequency: Tensor) -> NDArray[np.float32]:
    """Phone logits ``(..., phones)``, of classes with these ``frequency`` ``(phones,)``, as log likelihoods."""
    scaled = logits.log_softmax(-1) - PRIOR_WEIGHT * frequency.clamp(min=1e-6).log()
    found: NDArray[np.float32] = scaled.detach().cpu().numpy()
    return found


@dataclass(eq=False)
class Recogniser:
    """Sound tokens in, phones or words out; made by :func:`ichigo.speech.fit.fit` or :meth:`open`.

    ``tokenizer`` is the identity of the only tokenizer whose tokens it understands.
    """

    reader: Reader
    phone_classes: tuple[str, ...]
    lexicon: Lexicon
    tokenizer: str

    def __post_init__(self) -> None:
        self.reader.requires_grad_(False).eval()

    def words(self, codes: Sequence[int] | NDArray[np.integer[Any]]) -> str:
        """The words that ``codes`` ``(n,)`` say, lower case, separated by spaces; windows of 30 s on their own.

        Raises :class:`TokenizerError` for a code that the tokenizer does not have, and for a lexicon without words.
        """
        texts = (self.lexicon.text(self.reader.likelihoods(logits)) for logits in self._logits(codes))
        return " ".join(filter(None, texts))

    def phones(self, codes: Sequence[int] | NDArray[np.integer[Any]]) -> tuple[str, ...]:
        """The likeliest phone of every 20 ms, runs taken together, without pauses."""
        best = [self.phone_classes[index] for logits in self._logits(codes) for index in logits.argmax(-1).tolist()]
        return tuple(symbol for symbol, _ in groupby(best) if symbol != PAUSE)

    @torch.inference_mode()
    def _logits(self, codes: Sequence[int] | NDArray[np.integer[Any]]) -> list[Tensor]:
        """Phone logits ``(2 n, phones)`` of each window."""
        given = torch.as_tensor(np.asarray(codes, dtype=np.int64))
        if len(wrong := given[(given < 0) | (given >= self.reader.sizes.rows)]):
            raise TokenizerError(f"sound code {int(wrong[0])}: this tokenizer has 0 to {self.reader.sizes.rows - 1}")
        return [
            self.reader(self.reader.codebook[window][None], torch.tensor([2 * len(window)]))[0]
            for window in (given[start : start + _TOKENS] for start in range(0, len(given), _TOKENS))
        ]

    def save(self, folder: Path) -> None:
        """Writes ``recogniser.pt`` and ``lexicon.json`` into the tokenizer's ``folder``."""
        state = {name: tensor.cpu() for name, tensor in self.reader.state_dict().items()}
        content = {"sizes": asdict(self.reader.sizes), "phones": list(self.phone_classes), "state_dict": state}
        torch.save(content, folder / RECOGNISER_FILE)
        lexicon = {"tokenizer": self.tokenizer, "words": self.lexicon.words}
        (folder / LEXICON_FILE).write_bytes(canonical_json(lexicon) + b"\n")

    @classmethod
    def open(cls, folder: Path) -> Recogniser:
        """Reads what :meth:`save` wrote, with ``tokenizer.json`` beside it.

        Raises :class:`TokenizerError` for files that are missing, damaged or of another tokenizer; imported tokenizers
        have none.
        """
        if not (folder / RECOGNISER_FILE).is_file():
            raise TokenizerError(f"{folder}: no {RECOGNISER_FILE}; only tokenizers that were fitted have one")
        source = str(folder / RECOGNISER_FILE)
        content = read_weights(folder / RECOGNISER_FILE)
        sizes = section(content, "sizes", source)
        with torch.device("meta"):
            reader = Reader(Sizes(**{name: positive_int(sizes, name, source) for name in Sizes.__dataclass_fields__}))
        fill(reader, section(content, "state_dict", source), source)
        lexicon = read_description(folder / LEXICON_FILE)
        identity = str(read_description(folder / DESCRIPTION_FILE).get("identity"))
        if lexicon.get("tokenizer") != identity:
            raise TokenizerError(
                f"{folder / LEXICON_FILE} belongs to tokenizer {lexicon.get('tokenizer')}, {DESCRIPTION_FILE} there is "
                f"of {identity}; restore the folder"
            )
        phones = tuple(content["phones"])
        return cls(reader, phones, Lexicon(section(lexicon, "words", str(folder / LEXICON_FILE)), phones), identity)
