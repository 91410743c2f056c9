"""The bounds on metrics.jsonl and events.jsonl: old lines are thinned."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

RECORD_BYTES = 16_000_000  # of metrics.jsonl: about two hours of records at 2 kB
EVENT_BYTES = 4_000_000  # of events.jsonl: about 30,000 events


def bound_lines(path: Path, most_bytes: int, thinned: Callable[[Sequence[bytes]], list[bytes]]) -> None:
    """Thin the lines of a file once it is larger than it may be.

    If the disk refuses, it is tried again with the next line.

    Args:
        path: the file. It is replaced as a whole, so that no reader sees half of it.
        most_bytes: largest size.
        thinned: gives those lines that are kept, `thinned_records` or `thinned_events`.
    """
    with suppress(OSError):
        if path.stat().st_size > most_bytes:
            lines = path.read_bytes().splitlines(keepends=True)
            temporary = path.with_name(f".{path.name}")
            try:
                temporary.write_bytes(b"".join(thinned(lines)))
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


def thinned_records(lines: Sequence[bytes]) -> list[bytes]:
    """All newer records, and at most every second one of the older half of the bytes.

    Records of the older half come to lie evenly in time, however often they have been thinned before, so a run of any
    length keeps its course from the beginning. Pauses before a resume do not count.

    Args:
        lines: the records, oldest first, each with a `time` in seconds.

    Returns:
        Some of them, the first one included. Damaged lines of the older half are left out.
    """
    num_old, old = _num_old(lines), []
    for line in lines[:num_old]:
        with suppress(ValueError, TypeError, KeyError):
            if math.isfinite(time := float(json.loads(line)["time"])):
                old.append((time, line))
    spacing_s, kept = 1.0, [line for _, line in old]
    while len(kept) > max(1, num_old // 2):
        spacing_s *= 2
        kept, last = [], -float("inf")
        for time, line in old:
            if abs(time - last) >= spacing_s:  # a clock may have been set back
                kept.append(line)
                last = time
    return [*kept, *lines[num_old:]]


def thinned_events(lines: Sequence[bytes]) -> list[bytes]:
    """All newer events, and at most half of the older half of the bytes.

    Frequent events are thinned and rare ones stay: every second event is removed of the kind that takes most bytes,
    until that suffices. The first one of each kind is kept.

    Args:
        lines: the events, oldest first, each with its name as `event`.

    Returns:
        Some of them, in their order. Damaged lines of the older half are left out.
    """
    num_old = _num_old(lines)
    kinds: dict[str, list[int]] = {}
    for number, line in enumerate(lines[:num_old]):
        with suppress(ValueError, TypeError, KeyError):
            kinds.setdefault(str(json.loads(line)["event"]), []).append(number)
    most_bytes = sum(map(len, lines[:num_old])) // 2
    sizes = Counter({kind: sum(len(lines[number]) for number in numbers) for kind, numbers in kinds.items()})
    while sizes.total() > most_bytes:
        kind = max((kind for kind in kinds if len(kinds[kind]) > 1), key=sizes.__getitem__, default=None)
        if kind is None:
            break
        kinds[kind] = kinds[kind][::2]
        sizes[kind] = sum(len(lines[number]) for number in kinds[kind])
    kept = sorted(number for numbers in kinds.values() for number in numbers)
    return [*(lines[number] for number in kept), *lines[num_old:]]


def _num_old(lines: Sequence[bytes]) -> int:
    """How many lines make up the older half of the bytes."""
    ends = list(accumulate(map(len, lines)))
    return bisect_right(ends, ends[-1] // 2)
