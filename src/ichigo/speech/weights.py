"""Weight files from strangers: no code runs, and nothing unexpected is taken silently."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from ichigo.errors import TokenizerError
from ichigo.hashing import sha256_bytes


def read_weights(path: Path) -> dict[str, Any]:
    """The dictionary in a ``torch.save`` file, its tensors on the CPU.

    Raises :class:`TokenizerError` for a missing or damaged file, and for a pickle that asks for anything but tensors
    and plain values: it is refused before any of its code runs.
    """
    if not path.is_file():
        raise TokenizerError(f"{path}: no such file; nothing is downloaded, so give the path of a local copy")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise TokenizerError(
            f"{path}: refused, because the file is damaged or wants to run code when it is read; only tensors and "
            f"plain values are accepted ({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # torch.load answers damage with errors of a dozen types
        raise TokenizerError(f"{path}: not a readable torch file ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path}: holds a {type(content).__name__}; a dictionary is expected")
    return content


def section(content: Mapping[str, Any], field: str, source: str) -> dict[str, Any]:
    """``content[field]``, which must be a dictionary; ``source`` names the file in the error."""
    value = content.get(field)
    if not isinstance(value, dict):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise TokenizerError(f"{source}: {field} is {found}; a dictionary is expected")
    return value


def positive_int(values: Mapping[str, Any], field: str, source: str) -> int:
    """``values[field]``, which must be a positive integer."""
    value = values.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TokenizerError(f"{source}: {field} is {value!r}; a positive integer is expected")
    return value


def require(found: Any, supported: Any, field: str, source: str) -> None:
    """Refuses a file whose ``field`` is not the supported value."""
    if type(found) is not type(supported) or found != supported:
        raise TokenizerError(f"{source}: {field} is {found!r}; only {supported!r} is supported")


def fill(module: torch.nn.Module, tensors: Mapping[str, Any], source: str) -> None:
    """Gives ``module`` (made on the meta device) exactly the tensors that it names, as float32.

    Raises :class:`TokenizerError` naming the first tensor that is missing, unknown, of another shape or not finite.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name, shape in expected.items():
        _check_tensor(name, tensors.get(name), shape, source)
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise TokenizerError(f"{source}: tensor {unknown[0]} belongs to no geometry known here")
    module.load_state_dict({name: tensors[name].float().contiguous() for name in expected}, assign=True)
    module.requires_grad_(False).eval()


def _check_tensor(name: str, tensor: Any, shape: tuple[int, ...], source: str) -> None:
    """One tensor of a file against the shape that its place asks for."""
    if not isinstance(tensor, torch.Tensor):
        raise TokenizerError(f"{source}: tensor {name} is missing; shape {shape} is expected")
    if tuple(tensor.shape) != shape:
        raise TokenizerError(f"{source}: tensor {name} has shape {tuple(tensor.shape)}; {shape} is expected")
    if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
        raise TokenizerError(f"{source}: tensor {name} holds {tensor.dtype} or values that are not finite")


def digests(module: torch.nn.Module) -> dict[str, str]:
    """SHA-256 of every tensor of ``module`` by name, over its little-endian float32 bytes."""
    return {
        name: sha256_bytes(tensor.detach().cpu().numpy().astype("<f4").tobytes())
        for name, tensor in module.state_dict().items()
    }
