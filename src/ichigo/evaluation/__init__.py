"""What a trained model can do: suites of items, scorers, and the report that the gate reads.

``scorers`` judges strings, ``suites`` asks an engine and writes the report. Importing this package imports no torch.
"""

from __future__ import annotations

from ichigo.evaluation.suites import EvalRow, ItemResult, Report, evaluate

__all__ = ["EvalRow", "ItemResult", "Report", "evaluate"]
