"""Runs in the oracle's environment (requirements.txt), never in the project's: what the published packages answer.

``python program.py FOLDER`` reads ``job.json`` and ``waves.npz`` (float32 waveforms, 16 kHz) there and
writes ``answers.npz``. A job has ``models``, random weights to make and to save in the published formats (``<name>.pt``
and ``<name>.model``), and ``fitted``, a folder that our tokenizer wrote. For every model and wave ``answers.npz`` has

- ``<model>/<wave>/tokens`` by ``RQBottleneckTransformer.encode_audio``, and ``…/gaps``, how far the best cosine is from
  the second at each token
- for ``fitted`` also ``…/exact``: the same modules on the mel at its true length
- ``mel/<wave>`` by ``whisper.log_mel_spectrogram``
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import faulthandler
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import whisper  # type: ignore[import-not-found]
from whisper.model import ModelDimensions, Whisper  # type: ignore[import-not-found]
from whisperspeech.vq_stoks import RQBottleneckTransformer, Tunables  # type: ignore[import-not-found]

ROWS = 513
LIMIT = 400
"""Seconds after which a stuck program ends and says where it stood; 20 are usual on one core."""


def random_whisper(model: dict[str, Any], path: Path) -> Whisper:
    """A Whisper with random float16 weights, saved as OpenAI publishes its own and loaded by ``whisper.load_model``."""
    torch.manual_seed(model["seed"])
    text = {"n_vocab": 51865, "n_text_ctx": 448, "n_text_state": 64, "n_text_head": 1, "n_text_layer": 1}
    audio = {"n_audio_state": model["width"], "n_audio_head": model["heads"], "n_audio_layer": model["layers"]}
    dims = ModelDimensions(n_mels=80, n_audio_ctx=1500, **audio, **text)
    net = Whisper(dims)
    torch.nn.init.normal_(net.decoder.positional_embedding)
    net.encoder.positional_embedding *= 0.05  # else the position, not the sound, decides
    for layer in (net.encoder.conv1, net.encoder.conv2, *(block.attn.out for block in net.encoder.blocks)):
        layer.weight.data *= 4
    state = {name: tensor.half() for name, tensor in net.state_dict().items()}
    torch.save({"dims": asdict(dims), "model_state_dict": state}, path)
    return whisper.load_model(str(path), device="cpu")


def random_bottleneck(model: dict[str, Any], net: Whisper, study: list[np.ndarray]) -> RQBottleneckTransformer:
    """medium-2d-512c-dim64's geometry with random weights; its codes are directions that the waves ``study`` take."""
    tokenizer = RQBottleneckTransformer(
        vq_codes=512,
        q_depth=1,
        depth=1,
        n_head=model["heads"],
        head_width=model["width"] // model["heads"],
        codebook_dim=64,
        threshold_ema_dead_code=0,
        use_cosine_sim=True,
        downsample=2,
        whisper_model_name="medium",
        tunables=Tunables(codebook_dim=64),
    ).eval()
    tokenizer.whmodel = [net]
    for layer in (*tokenizer.mlp, project_in(tokenizer)):
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    centre = torch.cat([projected(tokenizer, wave) for wave in study])
    project_in(tokenizer).bias.data -= centre.mean(0)  # then directions spread over the whole sphere
    found = F.normalize(centre - centre.mean(0), dim=-1)
    chosen = torch.linspace(0, len(found) - 1, ROWS).long()
    tokenizer.rq.layers[0]._codebook.embed.copy_(found[chosen][None])
    return tokenizer


def project_in(tokenizer: RQBottleneckTransformer) -> torch.nn.Linear:
    return tokenizer.rq.layers[0].project_in


def padded(tokenizer: RQBottleneckTransformer, wave: np.ndarray) -> torch.Tensor:
    mel = tokenizer.log_mel_spectrogram(torch.from_numpy(wave)[None])
    return F.pad(mel, (0, -mel.shape[-1] % 3000), value=-1.5)


def projected(tokenizer: RQBottleneckTransformer, wave: np.ndarray) -> torch.Tensor:
    """What the quantiser compares with its codes, before normalisation: ``(tokens, 64)``."""
    pairs = tokenizer.downsample_embeddings(tokenizer.whmodel[0].encoder(padded(tokenizer, wave)))
    vectors = project_in(tokenizer)(pairs + tokenizer.mlp(tokenizer.mlp_ln(pairs)))
    return vectors[0, : len(wave) // 640]


def gaps(tokenizer: RQBottleneckTransformer, wave: np.ndarray) -> np.ndarray:
    cosines = F.normalize(projected(tokenizer, wave), dim=-1) @ tokenizer.rq.layers[0]._codebook.embed[0].T
    best = cosines.topk(2, dim=-1).values
    return (best[:, 0] - best[:, 1]).numpy()


def unpadded(tokenizer: RQBottleneckTransformer, wave: np.ndarray) -> np.ndarray:
    """Tokens by the published modules on whole tokens only; ``AudioEncoder.forward`` itself insists on 30 s."""
    encoder = tokenizer.whmodel[0].encoder
    mel = whisper.log_mel_spectrogram(torch.from_numpy(wave))[None, :, : len(wave) // 640 * 4]
    x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).permute(0, 2, 1)
    x = x + encoder.positional_embedding[: x.shape[1]]
    for block in encoder.blocks:
        x = block(x)
    return tokenizer.quantize(encoder.ln_post(x))[0].numpy()


def loaded(model: Path, net: Path) -> RQBottleneckTransformer:
    """As a person would load the published files."""
    tokenizer = RQBottleneckTransformer.load_model(str(model))
    tokenizer.whmodel = [whisper.load_model(str(net), device="cpu")]
    return tokenizer


@torch.no_grad()
def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    stored = np.load(folder / "waves.npz")
    waves = [stored[f"arr_{number}"] for number in range(len(stored))]
    study = [wave for wave in waves if len(wave) == 480_000]
    tokenizers = {}
    for model in job["models"]:
        net = random_whisper(model, folder / f"{model['name']}.pt")
        random_bottleneck(model, net, study).save_model(str(folder / f"{model['name']}.model"))
        tokenizers[model["name"]] = loaded(folder / f"{model['name']}.model", folder / f"{model['name']}.pt")
    ours = Path(job["fitted"])
    tokenizers["fitted"] = loaded(ours / "whisper-vq.model", ours / "whisper.pt")
    answers = {}
    for number, wave in enumerate(waves):
        if wave is study[0]:
            continue
        answers[f"mel/{number}"] = whisper.log_mel_spectrogram(torch.from_numpy(wave)).numpy()
        for name, tokenizer in tokenizers.items():
            answers[f"{name}/{number}/tokens"] = tokenizer.encode_audio(torch.from_numpy(wave)[None])[0].numpy()
            answers[f"{name}/{number}/gaps"] = gaps(tokenizer, wave)
        answers[f"fitted/{number}/exact"] = unpadded(tokenizers["fitted"], wave)
    np.savez(folder / "answers.npz", **answers)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    main(Path(sys.argv[1]))
