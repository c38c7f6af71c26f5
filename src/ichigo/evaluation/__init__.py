"""What a trained model can do: suites of items, scorers, statistics, the report that the gate reads, and its table.

``suites`` asks an engine and makes the report (``items``, ``asking`` and ``world`` are its parts); ``scorers`` judges
strings; ``recount`` computes every metric from the rows of the report (by ``measures``); ``statistics`` gives intervals
and tests over items, ``group`` over runs; ``table`` sets results beside the bars. This package itself imports nothing,
and ``table`` needs neither numpy nor torch.
"""

from __future__ import annotations
