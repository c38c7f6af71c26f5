"""WhisperVQ: 16 kHz speech to sound tokens, 25 per second.

The chain is whisperspeech's ``RQBottleneckTransformer.encode_mel``: Whisper's encoder on the log-mel, the mean of every
two vectors, ``x + mlp(layer_norm(x))``, a projection, and the codebook row with the largest cosine. It reads and writes
whisperspeech's ``.model`` files, ``{config, tunables, state_dict}``, in both spellings of the projection
(``rq.layers.0.project_in`` by vector-quantize-pytorch 1.6, ``rq.project_in`` since 1.12).

A tokenizer is its weights *and* its pad mode; the same audio gives other tokens in the other mode:

``whisper30``
    the mel is padded with -1.5 to 30 s and the encoder hears the padding, as the published weights were trained
``exact``
    the encoder hears whole tokens of the recording only, masked in a batch; about 20 times cheaper for short clips

and its block: a *causal* tokenizer (``exact`` only) hears blocks of ``causal_block`` tokens, none of which depends on a
later one, so that :mod:`ichigo.speech.stream` gives its tokens while somebody speaks.

``exact`` promises the same tokens in any batch, in any stream and on any device. float32 sums differ in their last bits
there, which decides between two codes that are equally near; so where the best two cosines are closer than
:data:`NEAR`, float64 decides.

Nothing here trains or moves a codebook; :mod:`ichigo.speech.fit` does.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ichigo.devices import best_device
from ichigo.errors import TokenizerError
from ichigo.hashing import canonical_json, sha256_json
from ichigo.speech.codes import SOUND_TOKENS_PER_SECOND, WINDOW_SAMPLES, token_count
from ichigo.speech.mel import FRAMES_PER_WINDOW, causal_log_mel, log_mel, pad_frames
from ichigo.speech.weights import digests, fill, positive_int, read_weights, require, section
from ichigo.speech.whisper import WhisperEncoder

Pad = Literal["whisper30", "exact"]

FRAMES_PER_TOKEN = 4
NEAR = 2e-5
"""Cosines closer than this are a tie."""

MODEL_FILE, WHISPER_FILE, DESCRIPTION_FILE = "whisper-vq.model", "whisper.pt", "tokenizer.json"

_CONFIG = {"q_depth": 1, "use_cosine_sim": True, "downsample": 2}
_TUNABLES = {"mask_embs": True, "downsample_mean": True, "downsample_conv": False}
_OLD_DEFAULT = False  # of each of these tunables: what whisperspeech assumes where a file does not name it

_ENCODE_TENSORS = {  # name here: name in a .model file
    **{f"{name}.{part}": f"{name}.{part}" for name in ("mlp.0", "mlp.2", "mlp_ln") for part in ("weight", "bias")},
    "project_in.weight": "rq.layers.0.project_in.weight",
    "project_in.bias": "rq.layers.0.project_in.bias",
    "codebook": "rq.layers.0._codebook.embed",
}


class Bottleneck(nn.Module):
    """The quantiser's encoding half. ``codebook``: float32 ``(codes + 1, codebook_dim)``, the mask row last."""

    codebook: Tensor

    def __init__(self, width: int, feed_forward: int, rows: int, codebook_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, feed_forward), nn.GELU(), nn.Linear(feed_forward, width))
        self.mlp_ln = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, codebook_dim)
        self.register_buffer("codebook", torch.zeros(rows, codebook_dim))

    def directions(self, vectors: Tensor) -> Tensor:
        """50 Hz ``(batch, 2 n, width)`` -> unit vectors at 25 Hz ``(batch, n, codebook_dim)``."""
        pairs = vectors.reshape(len(vectors), -1, 2, vectors.shape[-1]).mean(2)
        return F.normalize(self.project_in(pairs + self.mlp(self.mlp_ln(pairs))), dim=-1)

    def cosines(self, vectors: Tensor) -> Tensor:
        """50 Hz ``(batch, 2 n, width)`` -> ``(batch, n, codes + 1)``; rows are compared as the file stores them."""
        return self.directions(vectors) @ self.codebook.T

    def forward(self, vectors: Tensor) -> Tensor:
        """50 Hz ``(batch, 2 n, width)`` -> codes int64 ``(batch, n)``."""
        return self.cosines(vectors).argmax(-1)


@dataclass(eq=False)
class WhisperVQ:
    """Waveforms in, sound tokens out; made by :meth:`load`, :meth:`open` or :func:`ichigo.speech.fit.fit`.

    ``config`` and ``tunables`` are those of the ``.model`` file; ``decoding`` are its tensors that encoding does not
    use, kept so that a saved file has all that the loaded one had.
    """

    encoder: WhisperEncoder
    bottleneck: Bottleneck
    pad: Pad
    config: dict[str, Any]
    tunables: dict[str, Any]
    decoding: dict[str, Tensor]
    _double: tuple[WhisperEncoder, Bottleneck] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.pad not in get_args(Pad):
            raise TokenizerError(f"pad is {self.pad!r}; 'whisper30' and 'exact' are supported")
        if self.causal_block and self.pad != "exact":
            raise TokenizerError(f"pad is {self.pad!r}, but the encoder hears in blocks; that needs 'exact'")
        self.encoder.requires_grad_(False).eval()
        self.bottleneck.requires_grad_(False).eval()

    @classmethod
    def load(cls, model: Path, whisper: Path | WhisperEncoder, pad: Pad) -> WhisperVQ:
        """Reads whisperspeech's ``.model`` file and OpenAI's ``.pt`` file, or takes an encoder; never downloads.

        An encoder given as an object is used as it is and frozen. Raises :class:`TokenizerError` for an unsafe, damaged
        or incomplete file, and for a geometry that is not one codebook with cosine similarity and a mask row over the
        mean of two vectors.
        """
        content, source = read_weights(model), str(model)
        config = section(content, "config", source)
        tunables = section(content, "tunables", source) if "tunables" in content else {}
        _check_geometry(config, tunables, source)
        encoder = whisper if isinstance(whisper, WhisperEncoder) else WhisperEncoder.load(whisper)
        bottleneck = _empty_bottleneck(config, encoder.dims.n_audio_state, source)
        tensors = _one_spelling(section(content, "state_dict", source))
        fill(bottleneck, _encoding(tensors), source)
        decoding = {name: value for name, value in tensors.items() if name not in _ENCODE_TENSORS.values()}
        bottleneck.to(encoder.conv1.weight.device)
        return cls(encoder, bottleneck, pad, config, tunables, decoding)

    @classmethod
    def open(cls, folder: Path) -> WhisperVQ:
        """Reads what :meth:`save` wrote, onto the GPU if there is one.

        Raises :class:`TokenizerError` if anything that decides tokens was changed.
        """
        description = read_description(folder / DESCRIPTION_FILE)
        encoder = WhisperEncoder.load(folder / WHISPER_FILE, description.get("causal_block", 0))
        tokenizer = cls.load(folder / MODEL_FILE, encoder, description.get("pad"))  # type: ignore[arg-type]
        if description.get("identity") != (found := tokenizer.identity()):
            raise TokenizerError(
                f"{folder / DESCRIPTION_FILE}: identity is {description.get('identity')}, the weights, pad mode and "
                f"block here have {found}; restore the folder or make the tokenizer again"
            )
        return tokenizer.to(best_device())

    def to(self, device: str | torch.device) -> WhisperVQ:
        """This tokenizer, from now on computing on ``device``; tokens stay the same (``exact``) or nearly so."""
        self.encoder.to(device)
        self.bottleneck.to(device)
        self._double = None
        return self

    def save(self, folder: Path) -> None:
        """Writes ``whisper-vq.model``, ``whisper.pt`` and ``tokenizer.json`` into ``folder``.

        The ``.model`` has what encoding needs (``mlp``, ``mlp_ln``, ``rq.layers.0.project_in``,
        ``rq.layers.0._codebook.embed``) and :attr:`decoding`. whisperspeech loads it, strictly, if the latter has
        ``rq.layers.0.project_out``, ``rq.layers.0._codebook.{initted,cluster_size,embed_avg}``,
        ``positional_embedding``, ``_out_blocks``, ``ln_post``, ``val_true`` and ``val_total``: so after ``fit`` and for
        complete published files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        own = self.bottleneck.state_dict()
        tensors = {name: own[here].detach().cpu() for here, name in _ENCODE_TENSORS.items()}
        tensors[_ENCODE_TENSORS["codebook"]] = self.bottleneck.codebook.cpu()[None]  # whisperspeech: (1, rows, dim)
        content = {"config": self.config, "tunables": self.tunables, "state_dict": tensors | self.decoding}
        torch.save(content, folder / MODEL_FILE)
        self.encoder.save(folder / WHISPER_FILE)
        (folder / DESCRIPTION_FILE).write_bytes(canonical_json(self._description()) + b"\n")

    @property
    def codes(self) -> int:
        """Different tokens that :meth:`encode` can give: the codes and the mask row, 513 in the published weights."""
        return self.bottleneck.codebook.shape[0]

    @property
    def causal_block(self) -> int:
        """Sound tokens per block; 0 for a tokenizer that hears the whole recording."""
        return self.encoder.causal_block

    @property
    def device(self) -> torch.device:
        """Where the encoder computes; mels are made on the CPU."""
        return self.encoder.conv1.weight.device

    def identity(self) -> str:
        """SHA-256 over pad mode, block, geometry and the weights that decide tokens, as float32 values.

        It does not change with the spelling, precision on disk or pickle bytes of the files.
        """
        parts = {
            "pad": self.pad,
            "causal_block": self.causal_block,
            "dims": asdict(self.encoder.dims),
            "encoder": digests(self.encoder),
            "bottleneck": digests(self.bottleneck),
        }
        return sha256_json(parts)

    def encode(self, waveforms: Sequence[NDArray[np.float32]], batch: int = 16) -> list[NDArray[np.int16]]:
        """Sound tokens of every waveform, in order: int16 ``(samples // 640,)``, values below :attr:`codes`.

        Each waveform is floating point ``(samples,)``, 16 kHz, mono, in [-1, 1]. Audio of more than 30 s is heard in
        windows of 30 s, each on its own (its tokens are those of its windows in a row); less than 40 ms give no token.
        ``batch`` windows of similar length go through the encoder together. With ``exact`` that never changes a token;
        with ``whisper30`` only where two codes are equally near.

        Raises :class:`TokenizerError` for audio that is empty, not one-dimensional, not floating point or not finite.
        """
        for index, waveform in enumerate(waveforms):
            check_audio(waveform, index)
        pieces = [(index, window) for index, waveform in enumerate(waveforms) for window in windows(waveform)]
        by_length = sorted(range(len(pieces)), key=lambda piece: -pieces[piece][1].size)
        tokens: dict[int, NDArray[np.int16]] = {}
        with full_precision(self.device):
            for start in range(0, len(by_length), batch):
                chosen = by_length[start : start + batch]
                tokens.update(zip(chosen, self._encode_windows([pieces[piece][1] for piece in chosen]), strict=True))
        found: list[list[NDArray[np.int16]]] = [[np.empty(0, np.int16)] for _ in waveforms]
        for piece, (index, _) in enumerate(pieces):
            found[index].append(tokens[piece])
        return [np.concatenate(parts) for parts in found]

    def _encode_windows(self, pieces: Sequence[NDArray[np.float32]]) -> list[NDArray[np.int16]]:
        """Tokens of windows of 40 ms to 30 s, one batch."""
        mels = [window_mel(piece, self.encoder.dims.n_mels, self.causal_block) for piece in pieces]
        counts = [token_count(piece.size) for piece in pieces]
        if self.pad == "exact":
            batch, lengths = exact_batch(mels)
            vectors = self.encoder(batch.to(self.device), lengths.to(self.device))
        else:
            batch = torch.stack([pad_frames(mel, FRAMES_PER_WINDOW) for mel in mels])
            vectors = self.encoder(batch.to(self.device))
        cosines = self.bottleneck.cosines(vectors[:, : 2 * max(counts)])
        best = cosines.topk(2, dim=-1).values
        tied = (best[..., 0] - best[..., 1] < NEAR).cpu().numpy()
        codes = cosines.argmax(-1).cpu().numpy().astype(np.int16)
        return [
            self._settled(row[:count], tie[:count], mel) if self.pad == "exact" and tie[:count].any() else row[:count]
            for row, tie, count, mel in zip(codes, tied, counts, mels, strict=True)
        ]

    def _settled(self, codes: NDArray[np.int16], tied: NDArray[np.bool_], mel: Tensor) -> NDArray[np.int16]:
        """``codes`` ``(n,)`` of the window ``mel``, with float64's where ``tied``."""
        encoder, bottleneck = self.in_double()
        whole = mel[None, :, : FRAMES_PER_TOKEN * len(codes)].to(encoder.conv1.weight)
        return np.where(tied, bottleneck(encoder(whole))[0].cpu().numpy(), codes).astype(np.int16)

    def in_double(self) -> tuple[WhisperEncoder, Bottleneck]:
        """float64 copies of what decides tokens, made when first needed."""
        if self._double is None:
            self._double = copy.deepcopy(self.encoder).double(), copy.deepcopy(self.bottleneck).double()
        return self._double

    def _description(self) -> dict[str, Any]:
        """What ``tokenizer.json`` tells rooms that do not import torch."""
        return {
            "kind": "whisper-vq",
            "pad": self.pad,
            "causal_block": self.causal_block,
            "codes": self.codes,
            "tokens_per_second": SOUND_TOKENS_PER_SECOND,
            "identity": self.identity(),
        }


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Inference in float32 that is float32: no TF32, bfloat16 or autocast, whatever the process around has chosen."""
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.backends.cudnn.flags(allow_tf32=False))
            for place in {"cpu", device.type}:
                stack.enter_context(torch.autocast(place, enabled=False))
            yield
    finally:
        torch.set_float32_matmul_precision(chosen)


def windows(waveform: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """``waveform`` in pieces of 30 s, without a last piece too short for a token."""
    for start in range(0, waveform.size, WINDOW_SAMPLES):
        piece = waveform[start : start + WINDOW_SAMPLES]
        if token_count(piece.size):
            yield piece


def window_mel(window: NDArray[np.float32], bands: int, causal_block: int) -> Tensor:
    """The log-mel that an encoder hears of a window of 40 ms to 30 s, ``(bands, frames)``, on the CPU."""
    return causal_log_mel(window, bands, causal_block) if causal_block else log_mel(window, bands)


def exact_batch(mels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mels cut to whole tokens, padded to the longest ``(batch, bands, frames)``, and frames of each ``(batch,)``."""
    whole = [mel[:, : mel.shape[-1] // FRAMES_PER_TOKEN * FRAMES_PER_TOKEN] for mel in mels]
    lengths = torch.tensor([mel.shape[-1] for mel in whole])
    return torch.stack([pad_frames(mel, int(lengths.max())) for mel in whole]), lengths


def check_audio(waveform: NDArray[Any], index: int) -> None:
    """Refuses what the published code would take for something else: stereo for a batch, NaN for silence."""
    if waveform.ndim != 1:
        raise TokenizerError(f"audio {index}: shape {waveform.shape}; one channel, shape (samples,), is expected")
    if not waveform.size:
        raise TokenizerError(f"audio {index}: no samples; leave empty recordings out")
    if not np.issubdtype(waveform.dtype, np.floating):
        raise TokenizerError(f"audio {index}: {waveform.dtype} samples; floating point in [-1, 1] is expected")
    if not np.isfinite(waveform).all():
        raise TokenizerError(f"audio {index}: NaN or infinite samples; the recording is damaged")


def _check_geometry(config: Mapping[str, Any], tunables: Mapping[str, Any], source: str) -> None:
    """Refuses a bottleneck that :class:`Bottleneck` would compute differently."""
    for name, supported in _CONFIG.items():
        require(config.get(name), supported, f"config.{name}", source)
    for name, supported in _TUNABLES.items():
        require(tunables.get(name, _OLD_DEFAULT), supported, f"tunables.{name}", source)


def _empty_bottleneck(config: Mapping[str, Any], width: int, source: str) -> Bottleneck:
    """A bottleneck of the configured shape on the meta device; ``width`` is the Whisper encoder's."""
    names = ("n_head", "head_width", "ffn_mult", "vq_codes", "codebook_dim")
    size = {name: positive_int(config, name, f"{source}: config") for name in names}
    if (own := size["n_head"] * size["head_width"]) != width:
        raise TokenizerError(
            f"{source}: config.n_head x config.head_width is {own}, the Whisper file's encoder has width {width}; "
            "give the Whisper that the tokenizer was trained on (config.whisper_model_name)"
        )
    if size["codebook_dim"] == width:
        raise TokenizerError(f"{source}: config.codebook_dim is {width}, the width; then there is no project_in")
    if size["vq_codes"] >= np.iinfo(np.int16).max:
        raise TokenizerError(f"{source}: config.vq_codes is {size['vq_codes']}; at most 32766 are supported")
    with torch.device("meta"):
        return Bottleneck(width, size["ffn_mult"] * width, size["vq_codes"] + 1, size["codebook_dim"])


def _one_spelling(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """``rq.project_*`` of newer files as ``rq.layers.0.project_*``."""
    return {name.replace("rq.project_", "rq.layers.0.project_", 1): value for name, value in tensors.items()}


def _encoding(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a file that encoding needs, under :class:`Bottleneck`'s names; absent ones stay absent."""
    found = {here: tensors[name] for here, name in _ENCODE_TENSORS.items() if name in tensors}
    codebook = found.get("codebook")
    if isinstance(codebook, Tensor) and codebook.ndim == 3 and codebook.shape[0] == 1:
        found["codebook"] = codebook[0]
    return found


def read_description(path: Path) -> dict[str, Any]:
    """``tokenizer.json`` of a saved tokenizer."""
    try:
        description = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path}: not readable as the description of a tokenizer ({error})") from error
    if not isinstance(description, dict):
        raise TokenizerError(f"{path}: holds a {type(description).__name__}; an object is expected")
    return description
