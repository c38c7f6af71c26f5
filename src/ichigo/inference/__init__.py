"""Generation: the one engine behind asking a model, evaluating it and serving it.

:mod:`ichigo.inference.engine` computes and imports torch; this package itself imports nothing.
"""

from __future__ import annotations
