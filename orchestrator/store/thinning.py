"""The bound on metrics.jsonl: records of long ago are thinned."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate

from penstock.orchestrator.store.run_folder import RunFolder

MOST_BYTES = 16_000_000  # two and a half hours of records at 1.8 kB


def bound_records(folder: RunFolder, most_bytes: int = MOST_BYTES) -> None:
    """Thin the older half of metrics.jsonl once the file is larger than it may be.

    A disk that refuses is asked again with the next record.

    Args:
        folder: the run folder. The file is replaced as a whole, so that no reader sees half of it.
        most_bytes: largest size.
    """
    with suppress(OSError):
        if folder.metrics.stat().st_size > most_bytes:
            lines = folder.metrics.read_bytes().splitlines(keepends=True)
            temporary = folder.path / ".metrics.jsonl"
            try:
                temporary.write_bytes(b"".join(thinned(lines)))
                temporary.replace(folder.metrics)
            finally:
                temporary.unlink(missing_ok=True)


def thinned(lines: Sequence[bytes]) -> list[bytes]:
    """All newer records, and at most every second one of the older half of the bytes.

    Those of the older half come to lie evenly in time, however often they have been thinned before: so a run of any
    length keeps its course from the beginning. A pause before a resume counts for nothing.

    Args:
        lines: the records, oldest first, each with a `time` in seconds.

    Returns:
        Some of them, the first one included. What is no record is left out of the older half.
    """
    ends = list(accumulate(map(len, lines)))
    num_old = bisect_right(ends, ends[-1] // 2)
    old = []
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
