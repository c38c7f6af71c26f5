"""Fits a small WhisperVQ on a corpus in seconds: the tokenizer of recipes that cannot fetch published weights.

Synthetic speech comes with the times of its phones, so the encoder learns by frame cross-entropy from its first step:
no transcripts to align, no teacher, no 30 s windows. Two halves:

1. ``CE(encoder head)`` for 40 % of the steps: which phone is heard at each 20 ms.
2. The codebook starts from spherical k-means over the projected vectors; then
   ``0.5 CE(encoder head) + CE(token head) + commitment``, where the token head sees nothing but the 25 Hz tokens. Codes
   follow their vectors by an exponential moving average, and codes that nothing uses start again from a vector of the
   batch.

At width 192 with 3 layers, 6000 espeak-ng utterances and 1051 steps of 8, this recipe reached 87 % of frames before and
82 % after quantisation over 49 phones, with 511 of 512 codes used. Augmentation from the start made short fits far
worse (43 % against 73 % after 60 CPU-seconds), hence none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ichigo.errors import TokenizerError
from ichigo.progress import Progress
from ichigo.recipe.schema import FitTokenizer
from ichigo.speech.codes import token_count
from ichigo.speech.mel import log_mel
from ichigo.speech.synthesis import PAUSE, Phone
from ichigo.speech.vq import FRAMES_PER_TOKEN, WHISPER_FILE, Bottleneck, WhisperVQ, check_audio, exact_batch, windows
from ichigo.speech.whisper import POSITIONS, Block, Dims, WhisperEncoder, before, visible

BANDS = 80
POSITION_SECONDS = 0.02
UNLABELLED = -100

_HEARING = 0.4  # of the steps, before the codebook exists
_DECAY = 0.95
_DEAD = 0.3  # moving average of uses per batch below which a code starts again
_KMEANS_ROUNDS = 10
_KMEANS_VECTORS_PER_CODE = 40
_SORTED_BATCHES = 20  # similar lengths meet in a batch, drawn from this many batches at once


Spoken = tuple[NDArray[np.float32], Sequence[Phone] | None]
"""A waveform (float32, 16 kHz, mono) and its phones, or None for a recording whose phones nobody knows."""


@dataclass(frozen=True)
class Fit:
    """A fitted tokenizer and how well it hears; ``report`` is plain JSON and the same for the same inputs."""

    tokenizer: WhisperVQ
    report: dict[str, Any]


@dataclass(frozen=True)
class _Window:
    """At most 30 s of an utterance: mel ``(80, 4 n)`` and phone classes int64 ``(2 n,)``, unlabelled ones -100."""

    mel: Tensor
    labels: Tensor

    @property
    def tokens(self) -> int:
        return self.mel.shape[1] // FRAMES_PER_TOKEN


def fit(utterances: Sequence[Spoken], settings: FitTokenizer, seed: int) -> Fit:
    """Fits a :class:`WhisperVQ` with pad mode ``exact``; the same inputs give the same weights on the same kind of CPU.

    A tenth of the utterances with phones is held out for the report. Utterances without phones shape the codebook only.

    ``report``: ``steps``, ``utterances``, ``unlabelled`` (of them), ``phones`` (classes), ``codes_used`` and
    ``perplexity`` (over all utterances), ``frame_accuracy_encoder`` and ``frame_accuracy_tokens`` (shares of held-out
    20 ms frames whose phone is recognised before and after quantisation) and ``majority_share`` (what guessing the
    commonest class would give on them).

    Raises :class:`TokenizerError` for settings without a geometry, fewer than two utterances with phones, and a corpus
    with fewer sound tokens than codes.
    """
    dims = _dims(settings)
    symbols = sorted({PAUSE} | {phone.symbol for _, phones in utterances for phone in phones or ()})
    labelled, unlabelled = _prepared(utterances, {symbol: index for index, symbol in enumerate(symbols)})
    rng = np.random.default_rng(seed)
    train, held_out = _split(labelled, rng)
    _check_amount([*train, *unlabelled], settings)
    with _repeatable(seed):
        learner = _Learner(dims, settings, len(symbols))
        codebook = _train(learner, train, [*train, *unlabelled], settings, rng)
        report = {
            "steps": settings.steps,
            "utterances": len(utterances),
            "unlabelled": sum(phones is None for _, phones in utterances),
            "phones": len(symbols),
            **_codes_in_use(learner, [*train, *held_out, *unlabelled], settings.batch),
            **_accuracy(learner, held_out, settings.batch),
        }
    return Fit(_tokenizer(learner, codebook, settings), report)


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
    """Encoder and bottleneck with what only training needs, under whisperspeech's names.

    The tensors of the reading half (``project_out`` to ``ln_post``) go into the ``.model`` file, so that whisperspeech
    can load it; the two heads are dropped.
    """

    def __init__(self, dims: Dims, settings: FitTokenizer, classes: int) -> None:
        super().__init__()
        width = dims.n_audio_state
        self.encoder = WhisperEncoder(dims)
        self.bottleneck = Bottleneck(width, 4 * width, settings.codes + 1, settings.codebook_dim)
        self.project_out = nn.Linear(settings.codebook_dim, width)
        self.positional_embedding = nn.Embedding(POSITIONS, width)
        nn.init.normal_(self.positional_embedding.weight, std=0.045)  # whisperspeech's embeddings_std
        self._out_blocks = nn.ModuleList([Block(width, dims.n_audio_head)])
        self.ln_post = nn.LayerNorm(width)
        self.encoder_head = nn.Linear(width, classes)
        self.token_head = nn.Linear(width, classes)

    def read(self, quantised: Tensor, lengths: Tensor) -> Tensor:
        """Phone logits ``(batch, 2 n, classes)`` from 25 Hz code vectors ``(batch, n, codebook_dim)``."""
        x = self.project_out(quantised).repeat_interleave(2, dim=1)
        x = x + self.positional_embedding.weight[: x.shape[1]]
        for block in self._out_blocks:
            x = block(x, visible(lengths // 2, x.shape[1]))
        logits: Tensor = self.token_head(self.ln_post(x))
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


def _train(
    learner: _Learner,
    labelled: list[_Window],
    everything: list[_Window],
    settings: FitTokenizer,
    rng: np.random.Generator,
) -> MovingCodebook:
    """Both halves of the recipe; returns the codebook, whose rows are then the bottleneck's."""
    descent = _Descent(learner, settings)
    hearing = int(_HEARING * settings.steps)
    for batch in islice(_batches(labelled, settings.batch, rng), hearing):
        descent.step(_hearing_loss(learner, batch))
    codebook = MovingCodebook(_sample(learner, everything, settings, rng), settings.codes)
    for batch in islice(_batches(everything, settings.batch, rng), settings.steps - hearing):
        descent.step(_quantising_loss(learner, codebook, batch))
    learner.bottleneck.codebook = _with_mask_row(codebook.rows)
    return codebook


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
    """Unit vectors ``(n, codebook_dim)`` of random windows for k-means: 40 per code if the corpus has as many."""
    found: list[Tensor] = []
    for index in rng.permutation(len(items)):
        found.append(learner.bottleneck.directions(learner.encoder(*_inputs([items[index]])))[0])
        if sum(map(len, found)) >= _KMEANS_VECTORS_PER_CODE * settings.codes:
            break
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


def _prepared(utterances: Sequence[Spoken], classes: Mapping[str, int]) -> tuple[list[list[_Window]], list[_Window]]:
    """Windows of every utterance with phones, one list each, and of all others in one list."""
    labelled: list[list[_Window]] = []
    unlabelled: list[_Window] = []
    for index, (waveform, phones) in enumerate(utterances):
        check_audio(waveform, index)
        labels = frame_labels(phones, token_count(waveform.size) * 2, classes)
        mels = (log_mel(piece, BANDS) for piece in windows(waveform))
        cut = [_Window(mel, labels[number * POSITIONS :][:POSITIONS]) for number, mel in enumerate(mels)]
        if phones is None:
            unlabelled.extend(cut)
        elif cut:
            labelled.append(cut)
    return labelled, unlabelled


def frame_labels(phones: Sequence[Phone] | None, positions: int, classes: Mapping[str, int]) -> Tensor:
    """Class int64 ``(positions,)`` of each encoder position; -100 everywhere without phones.

    Position ``i`` is centred on 0.02 ``i`` s: both convolutions and the STFT are symmetric around it.
    """
    if phones is None:
        return torch.full((positions,), UNLABELLED)
    labels = torch.full((positions,), classes[PAUSE])
    for phone in phones:
        start, end = (math.ceil(second / POSITION_SECONDS) for second in (phone.start_s, phone.end_s))
        labels[start:end] = classes[phone.symbol]
    return labels


def _split(labelled: list[list[_Window]], rng: np.random.Generator) -> tuple[list[_Window], list[_Window]]:
    """Windows to learn from, and those of a random tenth of the utterances, at least one, for the report."""
    if len(labelled) < 2:
        raise TokenizerError(f"{len(labelled)} utterances with phones; a fit needs 2, and hundreds to be good")
    order = rng.permutation(len(labelled))
    tenth = max(1, len(labelled) // 10)
    held_out, train = ([w for index in part for w in labelled[index]] for part in np.split(order, [tenth]))
    return train, held_out


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
    frames = torch.zeros(learner.encoder_head.out_features)
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


def _by_length(items: Sequence[_Window], size: int) -> Iterator[list[_Window]]:
    """One pass in batches of similar length."""
    near = sorted(items, key=lambda window: window.tokens)
    for start in range(0, len(near), size):
        yield near[start : start + size]


def _tokenizer(learner: _Learner, codebook: MovingCodebook, settings: FitTokenizer) -> WhisperVQ:
    """The learner without its heads, described so that whisperspeech builds the same modules."""
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
    own = {name: tensor.detach().clone() for name, tensor in learner.state_dict().items()}
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
