"""How a model leaves the chain: the gate's verdict, and the model under its name in MLflow.

``gate`` is pure: metrics and policy in, verdict with reasons out.
"""

from __future__ import annotations
