"""How numbers are written for people."""

from __future__ import annotations

import math


def digits(value: float) -> str:
    """A number with three significant digits; what is not 0 is never shown as 0."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """A time as minutes and seconds, with hours from the first one on."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def share_but(left: float) -> str:
    """All but a share, in percent; less than all is never shown as 100 %.

    Args:
        left: the share, between 0 and 1.

    Returns:
        Text such as "99.7 %".
    """
    num_decimals = max(0, 1 - math.floor(math.log10(100 * left))) if left > 0 else 0
    return f"{100 * (1 - left):.{num_decimals}f} %"
