"""Ages, as people read and write them: 3 d, 7d."""

from __future__ import annotations

import re

from penstock.errors import PenstockError

UNITS = {"d": 86400, "h": 3600, "min": 60, "s": 1}
"""Seconds of each unit, the largest first."""


def age_of(seconds: float | None) -> str:
    """An age in the largest unit of which it has one, such as "3 d"; "-" for none."""
    if seconds is None:
        return "-"
    unit = next((unit for unit, length in UNITS.items() if seconds >= length), "s")
    return f"{max(0, int(seconds // UNITS[unit]))} {unit}"


def seconds_of(age: str) -> float:
    """The seconds of an age.

    Args:
        age: a number with a unit, such as "7d", "1.5h" or "90 min".

    Returns:
        Its seconds.

    Raises:
        PenstockError: it is something else.
    """
    if (match := re.fullmatch(r"(\d+(?:\.\d+)?) ?(d|h|min|s)", age.strip())) is None:
        raise PenstockError(f"{age!r} is no age: give a number with one of {', '.join(UNITS)}, such as 7d")
    return float(match[1]) * UNITS[match[2]]
