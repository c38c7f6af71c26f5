"""Fits a small WhisperVQ on a corpus in seconds: the tokenizer of recipes that cannot fetch published weights.

Synthetic speech comes with the times of its phones, so the encoder learns by frame cross-entropy from its first step:
no teacher, no 30 s windows. Two halves:

1. ``CE(encoder head)`` for 40 % of the steps: which phone is heard at each 20 ms.
2. The codebook starts from spherical k-means over the projected vectors; then
   ``0.5 CE(encoder head) + CE(token head) + commitment``, where the token head sees nothing but the 25 Hz tokens. Codes
   follow their vectors by an exponential moving average, and codes that nothing uses start again from a vector of the
   batch.

Recordings of people have no such times. Those with a transcript get them between the halves, from the encoder as it is
then (:mod:`ichigo.speech.alignment`), and are learned from in the second half like any other speech.

At width 128 with 3 layers, 6000 espeak-ng utterances and 1400 steps of 8 at a rate of 3e-3 (88 CPU-seconds), blocks of
12 tokens (0.48 s) reached, on 300 utterances of voices never heard, 86.6 % of frames before and 82.8 % after
quantisation over 66 phones, and word error rates of 11 and 14 % (150 utterances). Hearing whole utterances gave 86.5,
82.3, 11 and 14: causality costs nothing that one run can show. Steps matter (1000: 77 % after quantisation), smaller
batches do not (6 for 8: 78 %). Augmentation from the start made short fits far worse (43 % against 73 % after 60 CPU-
seconds), hence none.

With recordings of three speakers (1500 digits beside 4176 synthetic utterances of digits, 600 steps, 29 CPU-seconds) a
small classifier on the tokens of a fourth recognised 71 % of his digits; without their transcripts 45 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ichigo.edits import edit_distance
from ichigo.errors import TokenizerError
from ichigo.linear import use_products
from ichigo.progress import Progress
from ichigo.recipe.schema import FitTokenizer
from ichigo.speech.alignment import align
from ichigo.speech.codes import token_count
from ichigo.speech.hearing import Ear, Hearing
from ichigo.speech.lexicon import Lexicon, Reader, Recogniser, Sizes, pronunciations
from ichigo.speech.synthesis import PAUSE, Phone, Word
from ichigo.speech.vq import (
    FRAMES_PER_TOKEN,
    WHISPER_FILE,
    Bottleneck,
    WhisperVQ,
    check_audio,
    exact_batch,
    window_mel,
    windows,
)
from ichigo.speech.whisper import POSITIONS, Dims, WhisperEncoder, before

BANDS = 80
POSITION_SECONDS = 0.02
UNLABELLED = -100

_HEARING = 0.4  # of the steps, before the codebook exists
_DECAY = 0.95
_DEAD = 0.3  # moving average of uses per batch below which a code starts again
_KMEANS_ROUNDS = 10
_KMEANS_VECTORS_PER_CODE = 16
_SORTED_BATCHES = 20  # similar lengths meet in a batch, drawn from this many batches at once
_REPORTED = 1000  # windows that the report looks at, at most: some 70,000 frames
_READ = 200  # held-out utterances whose words the report reads


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """A waveform (float32, 16 kHz, mono) with its timed phones and words; a recording has none, and its ``text`` if
    somebody wrote down what is said."""

    waveform: NDArray[np.float32]
    phones: Sequence[Phone] = ()
    words: Sequence[Word] = ()
    text: str = ""


@dataclass(frozen=True)
class Fit:
    """A fitted tokenizer, what reads its tokens, what hears words in recordings by its encoder, and how well:
    ``report`` is plain JSON, equal for equal inputs."""

    tokenizer: WhisperVQ
    recogniser: Recogniser
    hearing: Hearing
    report: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Writes the files of the tokenizer and of both recognisers into ``folder``."""
        self.tokenizer.save(folder)
        self.recogniser.save(folder)
        self.hearing.save(folder)


@dataclass(frozen=True)
class _Window:
    """At most 30 s of an utterance: mel ``(80, 4 n)``, phone classes int64 ``(2 n,)``, unlabelled ones -100.

    ``said``: its words in lower case, if it is a whole utterance with known words.
    """

    mel: Tensor
    labels: Tensor
    said: str = ""

    @property
    def tokens(self) -> int:
        return self.mel.shape[1] // FRAMES_PER_TOKEN


@dataclass(frozen=True)
class _Utterance:
    """What is kept of a :class:`Spoken`: the mels of its windows instead of its samples."""

    mels: list[Tensor]
    positions: int
    phones: Sequence[Phone]
    text: str
    words: Sequence[Word]

    def windows(self, classes: Mapping[str, int]) -> list[_Window]:
        labels = frame_labels(self.phones, self.positions, classes)
        said = " ".join(self.text.lower().split()) if len(self.mels) == 1 else ""
        return [_Window(mel, labels[at * POSITIONS :][:POSITIONS], said) for at, mel in enumerate(self.mels)]


def fit(utterances: Iterable[Spoken], settings: FitTokenizer, seed: int) -> Fit:
    """Fits a :class:`WhisperVQ` with pad mode ``exact``; the same inputs give the same weights on the same kind of CPU.

    ``utterances`` are read once; their samples are not kept. A tenth of those with phones is held out for the report.
    Those without are aligned to their text after the first half, if they last at most 30 s and the lexicon has all of
    their words; otherwise they shape the codebook only.

    ``report``: ``steps``, ``utterances``, ``unlabelled`` (of them, at first), ``aligned`` (of these), ``phones``
    (classes), ``words`` (of the lexicon);
    ``codes_used`` and ``perplexity`` over at most 1000 windows, held-out ones first; on held-out 20 ms frames
    ``frame_accuracy_encoder`` and ``frame_accuracy_tokens`` (shares whose phone is recognised before and after
    quantisation) and ``majority_share`` (what guessing the commonest class would give). With words known in advance
    also ``word_error_rate_encoder``, ``word_error_rate_tokens`` (the lexicon's, on at most 200 held-out utterances)
    and their difference ``bottleneck_cost``: what quantisation loses.

    Raises :class:`TokenizerError` for settings without a geometry, fewer than two utterances with phones, and a corpus
    with fewer sound tokens than codes.
    """
    dims = _dims(settings)
    heard = [_heard(spoken, index, settings.causal_block) for index, spoken in enumerate(utterances)]
    symbols = sorted({PAUSE} | {phone.symbol for utterance in heard for phone in utterance.phones})
    classes = {symbol: index for index, symbol in enumerate(symbols)}
    rng = np.random.default_rng(seed)
    known, held_out = _split([utterance for utterance in heard if utterance.phones and utterance.mels], rng)
    lexicon = Lexicon(pronunciations((utterance.phones, utterance.words) for utterance in known), symbols)
    train, tests, recordings = (
        [window for utterance in part for window in utterance.windows(classes)]
        for part in (known, held_out, [utterance for utterance in heard if not utterance.phones])
    )
    _check_amount([*train, *recordings], settings)
    with _repeatable(seed):
        learner = _Learner(dims, settings, _frequencies(train, len(symbols)))
        descent = _Descent(learner, settings)
        _hear(descent, train, rng)
        recordings = [_aligned(learner, lexicon, window) for window in recordings]
        codebook = _quantise(descent, [*train, *recordings], rng)
        report = {
            "steps": settings.steps,
            "utterances": len(heard),
            "unlabelled": sum(not utterance.phones for utterance in heard),
            "aligned": sum(bool((window.labels != UNLABELLED).any()) for window in recordings),
            "phones": len(symbols),
            "words": len(lexicon),
            **_codes_in_use(learner, [*tests, *train, *recordings][:_REPORTED], settings.batch),
            **_accuracy(learner, tests[:_REPORTED], settings.batch),
            **_reading(learner, lexicon, [window for window in tests if window.said][:_READ]),
        }
    tokenizer = _tokenizer(learner, codebook, settings)
    identity = tokenizer.identity()
    ear = Ear.of(learner.encoder_head.weight, learner.encoder_head.bias, learner.reader.frequency)
    recogniser = Recogniser(learner.reader, tuple(symbols), lexicon, identity)
    return Fit(tokenizer, recogniser, Hearing(ear, lexicon, identity), report)


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """torch with its generator at ``seed`` and one thread; both are as before afterwards.

    Sums over more threads would make the weights depend on the number of cores. Models this small lose little: 200
    steps of 8 at width 128 take 8 s on one thread, and took 119 s on two threads of a machine whose cores were busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


class _Learner(nn.Module):
    """Encoder, bottleneck and reader, and a head on the encoder that only training needs."""

    def __init__(self, dims: Dims, settings: FitTokenizer, frequencies: Tensor) -> None:
        super().__init__()
        width, rows = dims.n_audio_state, settings.codes + 1
        self.encoder = WhisperEncoder(dims, settings.causal_block)
        self.bottleneck = Bottleneck(width, 4 * width, rows, settings.codebook_dim)
        self.reader = Reader(Sizes(width, dims.n_audio_head, rows, settings.codebook_dim, len(frequencies)))
        self.reader.frequency = frequencies
        self.encoder_head = nn.Linear(width, len(frequencies))
        use_products(self)

    def read(self, quantised: Tensor, lengths: Tensor) -> Tensor:
        """Phone logits ``(batch, 2 n, classes)`` from 25 Hz code vectors ``(batch, n, codebook_dim)``."""
        logits: Tensor = self.reader(quantised, lengths // 2)
        return logits


class MovingCodebook:
    """The codes while they move: unit vectors float32 ``(codes, dim)`` that follow the vectors they stand for."""

    def __init__(self, vectors: Tensor, codes: int) -> None:
        """Spherical k-means over unit ``vectors`` ``(n, dim)``, ``n >= codes``."""
        self.rows = vectors[torch.randperm(len(vectors))[:codes]].clone()
        for _ in range(_KMEANS_ROUNDS):
            uses, sums = self._assigned(vectors, self.nearest(vectors))
            self.rows = torch.where(uses[:, None] > 0, F.normalize(sums, dim=-1), self.rows)
        self.uses = torch.ones(codes)
        self.sums = self.rows.clone()

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the row with the largest cosine for each unit vector."""
        return (vectors @ self.rows.T).argmax(-1)

    def follow(self, vectors: Tensor, chosen: Tensor) -> None:
        """One step of the moving average with a batch's unit ``vectors`` ``(n, dim)`` and their codes ``(n,)``."""
        uses, sums = self._assigned(vectors, chosen)
        self.uses = _DECAY * self.uses + (1 - _DECAY) * uses
        self.sums = _DECAY * self.sums + (1 - _DECAY) * sums
        dead = (self.uses < _DEAD).nonzero().flatten()[: len(vectors)]
        self.sums[dead] = vectors[torch.randperm(len(vectors))[: len(dead)]]
        self.uses[dead] = 1.0
        self.rows = F.normalize(self.sums, dim=-1)

    def _assigned(self, vectors: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """How many vectors each code got, ``(codes,)``, and their sums ``(codes, dim)``."""
        uses = torch.bincount(chosen, minlength=len(self.rows)).float()
        return uses, torch.zeros_like(self.rows).index_add_(0, chosen, vectors)


class _Descent:
    """AdamW with the schedule of :func:`rate`, one optimizer step per call."""

    def __init__(self, learner: _Learner, settings: FitTokenizer) -> None:
        self.learner, self.settings, self.taken = learner, settings, 0
        self.optimizer = torch.optim.AdamW(learner.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.progress = Progress("fit tokenizer", settings.steps, "steps")

    def step(self, loss: Tensor) -> None:
        """Moves the weights against the gradient of ``loss``, clipped to norm 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * rate(self.taken, self.settings.steps)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimizer.step()
        self.taken += 1
        self.progress.advance(note=f"loss {loss.item():.2f}")


def rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: up over a seventh of the steps (at most 150), flat to 30 %, then down to 2 %."""
    warm, flat = min(150, math.ceil(steps / 7)), 0.3 * steps
    return min(1.0, (step + 1) / warm, 1 - 0.98 * (step - flat) / (steps - flat))


def _hear(descent: _Descent, labelled: list[_Window], rng: np.random.Generator) -> None:
    """The first half of the recipe."""
    settings = descent.settings
    for batch in islice(_batches(labelled, settings.batch, rng), int(_HEARING * settings.steps)):
        descent.step(_hearing_loss(descent.learner, batch))


def _quantise(descent: _Descent, everything: list[_Window], rng: np.random.Generator) -> MovingCodebook:
    """The second half; returns the codebook, whose rows are then the bottleneck's."""
    learner, settings = descent.learner, descent.settings
    codebook = MovingCodebook(_sample(learner, everything, settings, rng), settings.codes)
    for batch in islice(_batches(everything, settings.batch, rng), settings.steps - descent.taken):
        descent.step(_quantising_loss(learner, codebook, batch))
    learner.bottleneck.codebook = _with_mask_row(codebook.rows)
    learner.reader.codebook = learner.bottleneck.codebook.clone()
    return codebook


@torch.no_grad()
def _aligned(learner: _Learner, lexicon: Lexicon, window: _Window) -> _Window:
    """``window`` with the labels that its words have in it; as it was without words or with one that is unknown."""
    sayings = lexicon.sayings(window.said) if window.said else None
    if sayings is None:
        return window
    logits = learner.encoder_head(learner.encoder(*_inputs([window])))[0]
    labels = align(learner.reader.likelihoods(logits), sayings, lexicon.pause)
    return window if labels is None else replace(window, labels=torch.from_numpy(labels))


def _hearing_loss(learner: _Learner, batch: Sequence[_Window]) -> Tensor:
    """First half: phones from the encoder's vectors."""
    return _cross_entropy(learner.encoder_head(learner.encoder(*_inputs(batch))), _labels(batch))


def _quantising_loss(learner: _Learner, codebook: MovingCodebook, batch: Sequence[_Window]) -> Tensor:
    """Second half: phones from the vectors and from their codes; the codebook follows the batch."""
    mel, lengths = _inputs(batch)
    labels = _labels(batch)
    vectors = learner.encoder(mel, lengths)
    directions = learner.bottleneck.directions(vectors)
    chosen = codebook.nearest(directions.detach())
    quantised = codebook.rows[chosen]
    inside = before(lengths // FRAMES_PER_TOKEN, chosen.shape[1])
    commitment = F.mse_loss(directions[inside], quantised[inside])
    codebook.follow(directions.detach()[inside], chosen[inside])
    logits = learner.read(directions + (quantised - directions).detach(), lengths)  # straight through
    return 0.5 * _cross_entropy(learner.encoder_head(vectors), labels) + _cross_entropy(logits, labels) + commitment


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over labelled frames; 0 for a batch without any."""
    total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)


def _inputs(batch: Sequence[_Window]) -> tuple[Tensor, Tensor]:
    """The encoder's arguments for a batch."""
    return exact_batch([window.mel for window in batch])


def _labels(batch: Sequence[_Window]) -> Tensor:
    """Phone classes int64 ``(batch, positions)``, -100 beyond each window."""
    return nn.utils.rnn.pad_sequence([window.labels for window in batch], batch_first=True, padding_value=UNLABELLED)


def _batches(items: Sequence[_Window], size: int, rng: np.random.Generator) -> Iterator[list[_Window]]:
    """Endless shuffled passes in batches of similar length, the order of the batches shuffled too."""
    while True:
        order = rng.permutation(len(items))
        for start in range(0, len(order), size * _SORTED_BATCHES):
            near = sorted(order[start : start + size * _SORTED_BATCHES], key=lambda index: items[index].tokens)
            for batch in rng.permutation(math.ceil(len(near) / size)):
                yield [items[index] for index in near[batch * size : (batch + 1) * size]]


@torch.no_grad()
def _sample(learner: _Learner, items: Sequence[_Window], settings: FitTokenizer, rng: np.random.Generator) -> Tensor:
    """Unit vectors ``(n, codebook_dim)`` of random windows for k-means: 16 per code if the corpus has as many."""
    order = rng.permutation(len(items))
    tokens = np.cumsum([items[index].tokens for index in order])
    enough = int(np.searchsorted(tokens, _KMEANS_VECTORS_PER_CODE * settings.codes)) + 1
    found = []
    for part in _by_length([items[index] for index in order[:enough]], settings.batch):
        mel, lengths = _inputs(part)
        directions = learner.bottleneck.directions(learner.encoder(mel, lengths))
        found.append(directions[before(lengths // FRAMES_PER_TOKEN, directions.shape[1])])
    return torch.cat(found)


def _with_mask_row(values: Tensor) -> Tensor:
    """``values`` ``(codes, ...)`` and zeros for the mask row, whose cosine with everything is then 0."""
    return torch.cat([values, torch.zeros_like(values[:1])])


def _dims(settings: FitTokenizer) -> Dims:
    """The encoder's dimensions; refuses what the tokenizer's files could not hold."""
    values = {
        "n_mels": BANDS,
        "n_audio_ctx": POSITIONS,
        "n_audio_state": settings.width,
        "n_audio_head": settings.heads,
        "n_audio_layer": settings.layers,
    }
    if settings.codebook_dim == settings.width:
        raise TokenizerError(f"tokenizer.codebook_dim is {settings.width}, as tokenizer.width; choose a smaller one")
    return Dims.checked(values, "tokenizer (width, heads)")


def _heard(spoken: Spoken, index: int, causal_block: int) -> _Utterance:
    """The mels of an utterance; ``index`` names it in errors."""
    check_audio(spoken.waveform, index)
    mels = [window_mel(piece, BANDS, causal_block) for piece in windows(spoken.waveform)]
    text = spoken.text or " ".join(word.text for word in spoken.words)
    return _Utterance(mels, 2 * token_count(spoken.waveform.size), spoken.phones, text, spoken.words)


def frame_labels(phones: Sequence[Phone], positions: int, classes: Mapping[str, int]) -> Tensor:
    """Class int64 ``(positions,)`` of each encoder position; -100 everywhere without phones.

    Position ``i`` is centred on 0.02 ``i`` s: both convolutions and the STFT are symmetric around it.
    """
    if not phones:
        return torch.full((positions,), UNLABELLED)
    labels = torch.full((positions,), classes[PAUSE])
    for phone in phones:
        start, end = (math.ceil(second / POSITION_SECONDS) for second in (phone.start_s, phone.end_s))
        labels[start:end] = classes[phone.symbol]
    return labels


def _frequencies(items: Sequence[_Window], classes: int) -> Tensor:
    """Share of each phone class in the frames of ``items``, float32 ``(classes,)``."""
    counts = torch.bincount(torch.cat([window.labels for window in items]), minlength=classes)
    return counts / counts.sum()


def _split(known: list[_Utterance], rng: np.random.Generator) -> tuple[list[_Utterance], list[_Utterance]]:
    """Utterances to learn from, and a random tenth of them, at least one, for the report."""
    if len(known) < 2:
        raise TokenizerError(f"{len(known)} utterances with phones; a fit needs 2, and hundreds to be good")
    held_out, train = np.split(rng.permutation(len(known)), [max(1, len(known) // 10)])
    return [known[index] for index in train], [known[index] for index in held_out]


def _check_amount(items: Sequence[_Window], settings: FitTokenizer) -> None:
    """k-means needs a vector per code to start from."""
    if (tokens := sum(window.tokens for window in items)) < settings.codes:
        raise TokenizerError(
            f"the corpus has {tokens} sound tokens to learn from, tokenizer.codes is {settings.codes}; "
            "lower tokenizer.codes or add recordings"
        )


@torch.no_grad()
def _codes_in_use(learner: _Learner, items: Sequence[_Window], batch: int) -> dict[str, Any]:
    """How many codes ``items`` use, and the perplexity of that use."""
    uses = torch.zeros(len(learner.bottleneck.codebook))
    for part in _by_length(items, batch):
        mel, lengths = _inputs(part)
        codes = learner.bottleneck(learner.encoder(mel, lengths))
        uses += torch.bincount(codes[before(lengths // FRAMES_PER_TOKEN, codes.shape[1])], minlength=len(uses))
    share = uses[uses > 0] / uses.sum()
    return {"codes_used": len(share), "perplexity": round(float(torch.exp(-(share * share.log()).sum())), 1)}


@torch.no_grad()
def _accuracy(learner: _Learner, items: Sequence[_Window], batch: int) -> dict[str, Any]:
    """Share of labelled frames of ``items`` recognised from vectors and from codes, and that of the commonest class."""
    frames = torch.zeros(len(learner.encoder_head.weight))
    from_vectors = from_codes = 0
    for part in _by_length(items, batch):
        mel, lengths = _inputs(part)
        labels = _labels(part)
        vectors = learner.encoder(mel, lengths)
        logits = learner.read(learner.bottleneck.codebook[learner.bottleneck(vectors)], lengths)
        from_vectors += int((learner.encoder_head(vectors).argmax(-1) == labels).sum())
        from_codes += int((logits.argmax(-1) == labels).sum())
        frames += torch.bincount(labels[labels != UNLABELLED], minlength=len(frames))
    total = float(frames.sum())
    return {
        "frame_accuracy_encoder": round(from_vectors / total, 4),
        "frame_accuracy_tokens": round(from_codes / total, 4),
        "majority_share": round(float(frames.max()) / total, 4),
    }


@torch.no_grad()
def _reading(learner: _Learner, lexicon: Lexicon, items: Sequence[_Window]) -> dict[str, Any]:
    """Word error rates of ``items`` by the lexicon from vectors and from codes, and what the codes cost."""
    if not len(lexicon) or not items:
        return {}
    from_vectors = from_codes = 0
    for window in items:
        mel, lengths = _inputs([window])
        vectors = learner.encoder(mel, lengths)
        codes = learner.read(learner.bottleneck.codebook[learner.bottleneck(vectors)], lengths)
        likelihoods = (learner.reader.likelihoods(logits[0]) for logits in (learner.encoder_head(vectors), codes))
        errors = [edit_distance(window.said.split(), lexicon.text(frames).split()) for frames in likelihoods]
        from_vectors, from_codes = from_vectors + errors[0], from_codes + errors[1]
    words = sum(len(window.said.split()) for window in items)
    return {
        "word_error_rate_encoder": round(from_vectors / words, 4),
        "word_error_rate_tokens": round(from_codes / words, 4),
        "bottleneck_cost": round((from_codes - from_vectors) / words, 4),
    }


def _by_length(items: Sequence[_Window], size: int) -> Iterator[list[_Window]]:
    """One pass in batches of similar length."""
    near = sorted(items, key=lambda window: window.tokens)
    for start in range(0, len(near), size):
        yield near[start : start + size]


def _tokenizer(learner: _Learner, codebook: MovingCodebook, settings: FitTokenizer) -> WhisperVQ:
    """The learner without its reader, described so that whisperspeech builds the same modules."""
    head_width = settings.width // settings.heads
    config = {
        "codebook_dim": settings.codebook_dim,
        "vq_codes": settings.codes,
        "q_depth": 1,
        "n_head": settings.heads,
        "head_width": head_width,
        "ffn_mult": 4,
        "depth": 1,
        "use_cosine_sim": True,
        "downsample": 2,
        "whisper_model_name": WHISPER_FILE,
    }
    tunables = {
        "mask_embs": True,
        "downsample_mean": True,
        "downsample_conv": False,
        "rope": False,
        "query_mult": math.sqrt(head_width) / 8,  # whisperspeech multiplies logits by 8 query_mult / sqrt(head_width)
        "codebook_dim": settings.codebook_dim,
        "codebook_decay": _DECAY,
    }
    return WhisperVQ(learner.encoder, learner.bottleneck, "exact", config, tunables, _decoding(learner, codebook))


def _decoding(learner: _Learner, codebook: MovingCodebook) -> dict[str, Tensor]:
    """The tensors of a ``.model`` file that encoding does not use; whisperspeech's strict loading wants all of them."""
    own = {name: tensor.detach().clone() for name, tensor in learner.reader.state_dict().items()}
    kept = {name: own[name] for name in own if name.startswith(("positional_embedding", "_out_blocks", "ln_post"))}
    return kept | {
        "rq.layers.0.project_out.weight": own["project_out.weight"],
        "rq.layers.0.project_out.bias": own["project_out.bias"],
        "rq.layers.0._codebook.initted": torch.ones(1),
        "rq.layers.0._codebook.cluster_size": _with_mask_row(codebook.uses)[None],
        "rq.layers.0._codebook.embed_avg": _with_mask_row(codebook.sums)[None],
        "val_true": torch.zeros(1),
        "val_total": torch.zeros(1),
    }
