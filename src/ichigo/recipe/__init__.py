"""What a run is: recipes, read with overrides, checked as a whole, identified by their values.

:func:`load` reads a shipped recipe or a file, :func:`parse` what ``model_dump_json`` stored; :func:`missing_places`
says which paths a run still needs. :func:`identity`, :func:`fingerprint` and :func:`differences` compare sections by
value. Imports nothing heavier than pydantic and PyYAML.
"""

from __future__ import annotations

from ichigo.recipe.fingerprints import differences, fingerprint, identity
from ichigo.recipe.loading import Shipped, load, missing_places, parse, shipped
from ichigo.recipe.schema import STAGE_ORDER, Recipe

__all__ = [
    "STAGE_ORDER",
    "Recipe",
    "Shipped",
    "differences",
    "fingerprint",
    "identity",
    "load",
    "missing_places",
    "parse",
    "shipped",
]
