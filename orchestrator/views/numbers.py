"""How numbers are written for people."""

from __future__ import annotations


def digits(value: float) -> str:
    """Three significant digits: what is not 0 is never shown as 0."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"
