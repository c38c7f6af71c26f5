"""WhisperVQ: foreign files in, the published chain computed, tokens that depend on the recording and nothing else."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ichigo.errors import TokenizerError
from ichigo.speech.codes import token_count
from ichigo.speech.mel import log_mel
from ichigo.speech.vq import Bottleneck, WhisperVQ
from ichigo.speech.whisper import Dims, WhisperEncoder

WIDTH, HEADS, LAYERS, CODES, DIM = 32, 2, 2, 24, 8
DIMS = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": WIDTH, "n_audio_head": HEADS, "n_audio_layer": LAYERS}
CONFIG = {
    "codebook_dim": DIM,
    "vq_codes": CODES,
    "q_depth": 1,
    "n_head": HEADS,
    "head_width": WIDTH // HEADS,
    "ffn_mult": 4,
    "depth": 1,
    "use_cosine_sim": True,
    "downsample": 2,
    "whisper_model_name": "medium",
}
TUNABLES = {"rope": True, "mask_embs": True, "downsample_mean": True, "downsample_conv": False, "query_mult": 2}


def sound(seconds: float, seed: int) -> NDArray[np.float32]:
    """A tone that wanders in pitch and loudness, with noise: something in which neighbouring tokens differ."""
    rng = np.random.default_rng(seed)
    samples = round(16_000 * seconds)
    knots = np.linspace(0, samples, max(2, round(seconds * 8)))
    pitch = np.interp(np.arange(samples), knots, rng.uniform(100, 3000, knots.size))
    loud = np.interp(np.arange(samples), knots, rng.uniform(0, 0.5, knots.size))
    tone = loud * np.sin(2 * np.pi * np.cumsum(pitch) / 16_000) + 0.01 * rng.standard_normal(samples)
    return tone.astype(np.float32)


def random_whisper(seed: int = 0, **dims: int) -> dict[str, Any]:
    """The content of an OpenAI ``.pt`` with random float16 weights, strong enough that frames differ."""
    torch.manual_seed(seed)
    encoder = WhisperEncoder(Dims(**(DIMS | dims)))
    tensors = {f"encoder.{name}": tensor.half() for name, tensor in encoder.state_dict().items()}
    tensors["encoder.conv1.weight"] *= 4
    return {
        "dims": DIMS | dims | {"n_vocab": 51865},
        "model_state_dict": tensors | {"decoder.ln.weight": torch.ones(3)},
    }


def random_model(whisper: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """The content of a ``.model`` whose codes are directions that sound really takes, so that many codes are used."""
    torch.manual_seed(seed)
    bottleneck = Bottleneck(WIDTH, 4 * WIDTH, CODES + 1, DIM)
    encoder = WhisperEncoder(Dims(**{name: whisper["dims"][name] for name in DIMS}))
    tensors = whisper["model_state_dict"].items()
    encoder.load_state_dict({name.removeprefix("encoder."): value for name, value in tensors if "encoder." in name})
    with torch.no_grad():
        taken = bottleneck.directions(encoder(log_mel(sound(3, 99), encoder.dims.n_mels)[None]))[0]
    own = bottleneck.state_dict()
    state = {name: own[name] for name in own if name.startswith("mlp")}
    state["rq.layers.0.project_in.weight"] = own["project_in.weight"]
    state["rq.layers.0.project_in.bias"] = own["project_in.bias"]
    state["rq.layers.0._codebook.embed"] = taken[:: len(taken) // (CODES + 1)][: CODES + 1][None].clone()
    state["rq.layers.0.project_out.weight"] = torch.randn(WIDTH, DIM)
    state["positional_embedding.weight"] = torch.randn(1500, WIDTH)
    return {"config": dict(CONFIG), "tunables": dict(TUNABLES), "state_dict": state}


@pytest.fixture
def content() -> tuple[dict[str, Any], dict[str, Any]]:
    """``(model, whisper)``: what the two files hold."""
    whisper = random_whisper()
    return random_model(whisper), whisper


def load(folder: Path, content: tuple[dict[str, Any], dict[str, Any]], pad: Any = "exact") -> WhisperVQ:
    folder.mkdir(exist_ok=True)
    torch.save(content[0], folder / "vq.model")
    torch.save(content[1], folder / "medium.pt")
    return WhisperVQ.load(folder / "vq.model", folder / "medium.pt", pad)


def assert_same(ours: list[NDArray[np.int16]], theirs: list[NDArray[np.int16]]) -> None:
    assert [row.tolist() for row in ours] == [row.tolist() for row in theirs]


def published_chain(waveform: NDArray[np.float32], model: dict[str, Any], whisper: dict[str, Any]) -> list[int]:
    """Tokens by the formulas of openai-whisper and whisperspeech, written out from the files' tensors."""
    w = {name.removeprefix("encoder."): tensor.float() for name, tensor in whisper["model_state_dict"].items()}
    v = model["state_dict"]

    def linear(x: torch.Tensor, state: dict[str, Any], name: str) -> torch.Tensor:
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(x: torch.Tensor, state: dict[str, Any], name: str) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"])

    mel = log_mel(waveform)
    x = torch.full((1, 80, 3000), -1.5)
    x[0, :, : mel.shape[1]] = mel
    x = F.gelu(F.conv1d(x, w["conv1.weight"], w["conv1.bias"], padding=1))
    x = F.gelu(F.conv1d(x, w["conv2.weight"], w["conv2.bias"], padding=1, stride=2))[0].T + w["positional_embedding"]
    for layer in range(LAYERS):
        name = f"blocks.{layer}"
        y = norm(x, w, f"{name}.attn_ln")
        q, k, z = (linear(y, w, f"{name}.attn.{part}").view(1500, HEADS, -1) for part in ("query", "key", "value"))
        weights = torch.einsum("qhd,khd->hqk", q, k).div((WIDTH // HEADS) ** 0.5).softmax(-1)
        x = x + linear(torch.einsum("hqk,khd->qhd", weights, z).flatten(1), w, f"{name}.attn.out")
        x = x + linear(F.gelu(linear(norm(x, w, f"{name}.mlp_ln"), w, f"{name}.mlp.0")), w, f"{name}.mlp.2")
    x = norm(x, w, "ln_post")
    x = (x[0::2] + x[1::2]) / 2
    x = x + linear(F.gelu(linear(norm(x, v, "mlp_ln"), v, "mlp.0")), v, "mlp.2")
    cosine = F.normalize(linear(x, v, "rq.layers.0.project_in"), dim=-1) @ v["rq.layers.0._codebook.embed"][0].T
    tokens: list[int] = cosine.argmax(-1)[: mel.shape[1] // 4].tolist()
    return tokens


def test_whisper30_computes_the_published_chain(tmp_path: Path, content: Any) -> None:
    waveforms = [sound(1.3, 1), sound(2.0, 2)]
    tokens = load(tmp_path, content, "whisper30").encode(waveforms)
    assert [row.tolist() for row in tokens] == [published_chain(waveform, *content) for waveform in waveforms]
    assert len(set(np.concatenate(tokens).tolist())) > 5


@pytest.mark.parametrize("pad", ["exact", "whisper30"])
def test_tokens_do_not_depend_on_the_batch(tmp_path: Path, content: Any, pad: str) -> None:
    tokenizer = load(tmp_path, content, pad)
    waveforms = [sound(seconds, seed) for seed, seconds in enumerate([0.7, 2.51, 0.04, 1.333, 1.333])]
    waveforms[3] *= 0.001  # a quiet one beside loud ones
    alone = [tokenizer.encode([waveform])[0] for waveform in waveforms]
    for batch in (1, 2, 5):
        assert_same(tokenizer.encode(waveforms, batch=batch), alone)


def test_an_item_hears_neither_its_padding_nor_its_neighbours() -> None:
    torch.manual_seed(0)
    encoder = WhisperEncoder(Dims(**DIMS)).eval()
    mel = torch.randn(3, 80, 40)
    lengths = torch.tensor([40, 12, 4])
    with torch.no_grad():
        together = encoder(mel, lengths)
        for index, length in enumerate(lengths.tolist()):
            alone = encoder(mel[index : index + 1, :, :length])
            torch.testing.assert_close(together[index, : length // 2], alone[0], rtol=0, atol=1e-5)


def test_audio_above_30_s_is_the_row_of_its_windows(tmp_path: Path, content: Any) -> None:
    tokenizer = load(tmp_path, content)
    long = sound(61.5, 3)
    (tokens,) = tokenizer.encode([long])
    parts = tokenizer.encode([long[:480_000], long[480_000:960_000], long[960_000:]])
    assert tokens.size == token_count(long.size) == 1537
    assert tokens.tolist() == np.concatenate(parts).tolist()


@pytest.mark.parametrize(
    ("samples", "tokens"), [(1, 0), (639, 0), (640, 1), (1279, 1), (1280, 2), (480_639, 750), (480_640, 751)]
)
def test_a_token_stands_for_640_whole_samples(tmp_path: Path, content: Any, samples: int, tokens: int) -> None:
    (found,) = load(tmp_path, content).encode([sound(31, 4)[:samples]])
    assert found.size == tokens
    assert found.dtype == np.dtype(np.int16)


def test_pad_mode_is_part_of_the_tokenizer(tmp_path: Path, content: Any) -> None:
    exact, padded = load(tmp_path, content, "exact"), load(tmp_path, content, "whisper30")
    assert exact.identity() != padded.identity()
    assert exact.encode([sound(2, 5)])[0].tolist() != padded.encode([sound(2, 5)])[0].tolist()
    with pytest.raises(TokenizerError, match="pad is 'longest'"):
        load(tmp_path, content, "longest")


def test_the_mask_row_can_be_emitted(tmp_path: Path, content: Any) -> None:
    embed = content[0]["state_dict"]["rq.layers.0._codebook.embed"]
    embed[0, CODES] = 10 * embed[0, 3]
    tokenizer = load(tmp_path, content)
    assert tokenizer.codes == CODES + 1
    assert CODES in tokenizer.encode([sound(3, 99)])[0]


def test_encoding_in_train_mode_changes_nothing(tmp_path: Path, content: Any) -> None:
    tokenizer = load(tmp_path, content)
    before, tokens = tokenizer.identity(), tokenizer.encode([sound(2, 6)])
    tokenizer.encoder.train()
    tokenizer.bottleneck.train()
    assert_same(tokenizer.encode([sound(2, 6)]), tokens)
    assert tokenizer.identity() == before


@pytest.mark.parametrize(
    ("waveform", "found"),
    [
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros((2, 16_000), np.float32), "one channel"),
        (np.full(16_000, np.nan, np.float32), "NaN"),
        (np.array([0.0, np.inf] * 800, np.float32), "NaN or infinite"),
        (np.zeros(16_000, np.int16), "int16"),
    ],
)
def test_unusable_audio_is_refused_by_number(tmp_path: Path, content: Any, waveform: Any, found: str) -> None:
    with pytest.raises(TokenizerError, match=f"audio 1: .*{found}"):
        load(tmp_path, content).encode([sound(1, 7), waveform])


def test_save_and_open_keep_tokens_identity_and_every_tensor(tmp_path: Path, content: Any) -> None:
    tokenizer = load(tmp_path, content)
    tokenizer.save(tmp_path / "a")
    again = WhisperVQ.open(tmp_path / "a")
    assert_same(again.encode([sound(2, 8)]), tokenizer.encode([sound(2, 8)]))
    saved = torch.load(tmp_path / "a" / "whisper-vq.model", weights_only=True)
    assert saved["config"] == content[0]["config"]
    assert saved["tunables"] == content[0]["tunables"]
    assert saved["state_dict"].keys() == content[0]["state_dict"].keys()
    assert all(torch.equal(saved["state_dict"][name], value) for name, value in content[0]["state_dict"].items())
    description = json.loads((tmp_path / "a" / "tokenizer.json").read_bytes())
    assert description == {
        "kind": "whisper-vq",
        "pad": "exact",
        "causal_block": 0,
        "codes": CODES + 1,
        "tokens_per_second": 25,
        "identity": tokenizer.identity(),
    }


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, content: Any) -> None:
    for folder in ("a", "b"):
        load(tmp_path, content).save(tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_open_refuses_a_pad_mode_changed_by_hand(tmp_path: Path, content: Any) -> None:
    load(tmp_path, content).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("exact", "whisper30"))
    with pytest.raises(TokenizerError, match="identity"):
        WhisperVQ.open(tmp_path)


def test_identity_ignores_spelling_and_precision_on_disk(tmp_path: Path, content: Any) -> None:
    model, whisper = content
    newer = {name.replace("rq.layers.0.project", "rq.project"): value for name, value in model["state_dict"].items()}
    wider = {name: tensor.float() for name, tensor in reversed(whisper["model_state_dict"].items())}
    first = load(tmp_path / "a", content)
    other = load(tmp_path / "b", (model | {"state_dict": newer}, whisper | {"model_state_dict": wider}))
    assert "rq.project_in.weight" in newer
    assert first.identity() == other.identity()
    assert_same(first.encode([sound(1, 9)]), other.encode([sound(1, 9)]))


@pytest.mark.parametrize("name", ["mlp_ln.bias", "rq.layers.0._codebook.embed", "rq.layers.0.project_in.bias"])
def test_identity_sees_every_weight_that_decides_tokens(tmp_path: Path, content: Any, name: str) -> None:
    before = load(tmp_path, content).identity()
    content[0]["state_dict"][name].view(-1)[0] += 0.25
    assert load(tmp_path, content).identity() != before


def test_an_encoder_may_be_given_as_an_object(tmp_path: Path, content: Any) -> None:
    tokenizer = load(tmp_path, content)
    encoder = WhisperEncoder.load(tmp_path / "medium.pt")
    other = WhisperVQ.load(tmp_path / "vq.model", encoder, "exact")
    assert other.encoder is encoder
    assert other.identity() == tokenizer.identity()
    assert_same(other.encode([sound(1, 11)]), tokenizer.encode([sound(1, 11)]))


def test_tokens_survive_a_process_that_computes_carelessly(tmp_path: Path, content: Any) -> None:
    tokenizer = load(tmp_path, content)
    tokens = tokenizer.encode([sound(3, 12)])
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_same(tokenizer.encode([sound(3, 12)]), tokens)
        assert torch.get_float32_matmul_precision() == "medium", "the process keeps its own choice"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_float64_decides_between_codes_that_are_equally_near(tmp_path: Path, content: Any) -> None:
    embed = content[0]["state_dict"]["rq.layers.0._codebook.embed"]
    shorter, longer = embed[0, :12], embed[0, 12:24]
    shorter.copy_(torch.nextafter(longer, torch.zeros(())))  # by the last bit of every number: never the nearest
    embed[0, 24] = 0
    tokenizer = load(tmp_path, content)
    waveforms = [sound(3, seed) for seed in range(90, 100)]
    assert min(row.min() for row in tokenizer.encode(waveforms)) >= 12
    vectors = torch.stack([tokenizer.encoder(log_mel(waveform)[None])[0] for waveform in waveforms])
    assert (tokenizer.bottleneck(vectors) < 12).any(), "float32 alone takes some of the shorter ones"


def test_128_mel_bands(tmp_path: Path) -> None:
    whisper = random_whisper(n_mels=128)
    (tokens,) = load(tmp_path, (random_model(whisper), whisper), "whisper30").encode([sound(1, 10)])
    assert tokens.size == 25


class Bomb:
    """A pickle that makes a folder when it is read."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.flag),)


@pytest.mark.parametrize("name", ["vq.model", "medium.pt"])
@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_a_pickle_that_wants_to_run_code_is_refused_unrun(tmp_path: Path, content: Any, name: str, write: Any) -> None:
    load(tmp_path, content)
    flag = tmp_path / "ran"
    write({"config": Bomb(flag), "dims": Bomb(flag)}, tmp_path / name)
    with pytest.raises(TokenizerError, match=f"{name}: refused"):
        WhisperVQ.load(tmp_path / "vq.model", tmp_path / "medium.pt", "exact")
    assert not flag.exists()
    pickle.loads(pickle.dumps(Bomb(flag)))
    assert flag.exists(), "the payload itself is live"


@pytest.mark.parametrize("data", [b"", b"junk" * 100, b"PK\x03\x04 cut short"])
def test_damaged_files_are_refused(tmp_path: Path, content: Any, data: bytes) -> None:
    load(tmp_path, content)
    (tmp_path / "vq.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=r"vq\.model"):
        WhisperVQ.load(tmp_path / "vq.model", tmp_path / "medium.pt", "exact")


def test_a_missing_file_is_not_fetched(tmp_path: Path, content: Any) -> None:
    load(tmp_path, content)
    with pytest.raises(TokenizerError, match="nothing is downloaded"):
        WhisperVQ.load(tmp_path / "vq.model", Path("medium"), "exact")


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("config", "q_depth", 2, "config.q_depth is 2; only 1 is supported"),
        ("config", "use_cosine_sim", False, "config.use_cosine_sim is False; only True"),
        ("config", "downsample", 1, "config.downsample is 1; only 2"),
        ("config", "vq_codes", "512", "vq_codes is '512'; a positive integer"),
        ("config", "vq_codes", 40_000, "vq_codes is 40000; at most 32766"),
        ("config", "codebook_dim", WIDTH, "codebook_dim is 32, the width"),
        ("config", "head_width", 64, "n_head x config.head_width is 128, the Whisper file's encoder has width 32"),
        ("config", "ffn_mult", 2, r"tensor mlp.0.weight has shape \(128, 32\); \(64, 32\) is expected"),
        ("tunables", "downsample_conv", True, "tunables.downsample_conv is True; only False"),
        ("tunables", "downsample_mean", False, "tunables.downsample_mean is False; only True"),
        ("tunables", "mask_embs", False, "tunables.mask_embs is False; only True"),
    ],
)
def test_unknown_geometry_is_named(
    tmp_path: Path, content: Any, part: str, field: str, value: Any, message: str
) -> None:
    content[0][part][field] = value
    with pytest.raises(TokenizerError, match=message):
        load(tmp_path, content)


def test_absent_tunables_have_the_old_defaults(tmp_path: Path, content: Any) -> None:
    del content[0]["tunables"]["downsample_conv"]
    load(tmp_path, content)
    del content[0]["tunables"]
    with pytest.raises(TokenizerError, match=r"tunables\.mask_embs is False"):
        load(tmp_path, content)


@pytest.mark.parametrize(
    ("field", "value"), [("n_mels", 64), ("n_audio_ctx", 750), ("n_audio_head", 3), ("n_audio_layer", 10**9)]
)
def test_unknown_whisper_dimensions_are_named(tmp_path: Path, content: Any, field: str, value: int) -> None:
    content[1]["dims"][field] = value
    with pytest.raises(TokenizerError, match=rf"medium\.pt: dims: .*{field}.*{value}"):
        load(tmp_path, content)


@pytest.mark.parametrize("name", ["encoder.blocks.1.attn.query.weight", "encoder.positional_embedding"])
def test_a_missing_or_broken_tensor_is_named(tmp_path: Path, content: Any, name: str) -> None:
    short = name.removeprefix("encoder.")
    tensors = content[1]["model_state_dict"]
    tensors[name] = tensors[name] * float("nan")
    with pytest.raises(TokenizerError, match=f"tensor {short} holds"):
        load(tmp_path, content)
    del tensors[name]
    with pytest.raises(TokenizerError, match=f"tensor {short} is missing"):
        load(tmp_path, content)


def test_a_tensor_that_the_geometry_does_not_know_is_refused(tmp_path: Path, content: Any) -> None:
    content[1]["model_state_dict"]["encoder.blocks.2.attn.query.weight"] = torch.zeros(WIDTH, WIDTH)
    with pytest.raises(TokenizerError, match=r"tensor blocks\.2\.attn\.query\.weight belongs to no geometry"):
        load(tmp_path, content)
