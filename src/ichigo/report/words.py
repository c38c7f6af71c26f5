"""Numbers as a person reads them."""

from __future__ import annotations

import math
import time


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def when(stamp: float) -> str:
    """``23 Nov 2026, 01:13 UTC``; ``stamp`` in seconds since the epoch."""
    return time.strftime("%d %b %Y, %H:%M UTC", time.gmtime(stamp))


def count(number: int, what: str) -> str:
    """``1 rule``, ``3 rules``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def number(value: float) -> str:
    """Three significant digits of a fraction, whole numbers whole."""
    if not math.isfinite(value):
        return str(value)
    if value == round(value) and abs(value) < 1e15:
        return f"{round(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.3g}"


def share(value: float | None) -> str:
    """A share in percent, one digit behind the point."""
    return "" if value is None else f"{100 * value:.1f}"
