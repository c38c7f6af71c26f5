"""What a trained model can do: suites of items, scorers, statistics, the report that the gate reads, and its table.

``suites`` asks an engine and writes the report (``items``, ``asking``, ``measures`` and ``world`` are its parts);
``scorers`` judges strings; ``statistics`` gives intervals and paired tests; ``table`` sets results beside the bars.
This package itself imports nothing, and ``table`` needs neither numpy nor torch.
"""

from __future__ import annotations
