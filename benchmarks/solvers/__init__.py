"""What the solvers cost and how accurate they are, as tables."""

from __future__ import annotations

import os


def use_one_core() -> None:
    """Keep this process, and the BLAS that it has not loaded yet, on one core."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
