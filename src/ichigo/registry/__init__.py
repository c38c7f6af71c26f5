"""How a model leaves the chain: the gate's verdict, the model under its name in MLflow, and who holds which alias.

``gate``        pure: evidence and policy in, verdict with reasons out
``models``      registering a version, and what its verdict stands on
``ledger``      who promoted what, when and why; append-only, of two writers one wins
``promotion``   candidate -> staging -> champion and back; aliases follow from the ledger
``lookup``      name, name@alias, name@version -> a version
``catalogue``   all of it for people who decide
``tags``        the tags of a version
"""

from __future__ import annotations
