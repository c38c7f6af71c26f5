"""``foundation``: what the chain stands on, the speech tokenizer or the base model, side by side.

One KFP component for both, because ``kfp.local`` runs only the iterations of a loop at the same time.
"""

from __future__ import annotations

from ichigo.errors import UserError
from ichigo.steps import base, tokenizer

_PARTS = {"tokenizer": tokenizer.main, "base": base.main}


def main(run: str, part: str, *, corpus: str, model: str) -> None:
    """Make ``part`` (``tokenizer`` or ``base``) and write its reference to ``model``."""
    if part not in _PARTS:
        raise UserError(f"foundation part {part!r} is unknown; use one of {sorted(_PARTS)}")
    _PARTS[part](run, corpus=corpus, model=model)
