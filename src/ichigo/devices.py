"""Where models compute that a single process holds."""

from __future__ import annotations


def best_device() -> str:
    """``cuda`` if this process sees a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
