"""Where the compiled pipeline lies: package data in a wheel, ``pipelines/`` in a checkout."""

from __future__ import annotations

from pathlib import Path

from ichigo.errors import IchigoError

_PACKAGE = Path(__file__).resolve().parents[1]
_PLACES = (_PACKAGE / "pipelines" / "ichigo.yaml", _PACKAGE.parents[1] / "pipelines" / "ichigo.yaml")


def compiled_pipeline() -> Path:
    """The IR file that every engine executes; :class:`IchigoError` where the installation lacks it."""
    for place in _PLACES:
        if place.is_file():
            return place
    raise IchigoError(f"the compiled pipeline is missing; looked at {[str(place) for place in _PLACES]}")
