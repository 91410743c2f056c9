"""How long this process may run: its walltime, and what Slurm leaves of its job."""

from __future__ import annotations

import os
import re
import subprocess
import time
from datetime import datetime

from penstock.machine import age_s

ANSWERS_WITHIN_S = 10.0
END = re.compile(r"\bEndTime=(\S+)")


def seconds_left(walltime: int | None) -> float | None:
    """How long this process may still run.

    Args:
        walltime: seconds that it has from its start on; None for no such limit.

    Returns:
        Seconds until the earlier one of that limit and the end of the Slurm job that it runs in; None if there is
        neither, or if Slurm does not say when its job ends.
    """
    left = [] if walltime is None else [walltime - age_s()]
    if (end := _end_of_job()) is not None:
        left.append(end - time.time())
    return min(left) if left else None


def _end_of_job() -> float | None:
    """The end of the Slurm job, in seconds since 1970; None if it is not known."""
    if not (job := os.environ.get("SLURM_JOB_ID")):
        return None
    try:
        answer = subprocess.run(
            ["scontrol", "show", "job", "-o", job],
            env=os.environ | {"SLURM_TIME_FORMAT": "standard"},  # sites set others, which nobody can parse
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWERS_WITHIN_S,
        )
        return datetime.fromisoformat(END.search(answer.stdout)[1]).timestamp()  # in local time
    except (OSError, subprocess.TimeoutExpired, TypeError, ValueError):  # no scontrol, no answer, no end, "Unknown"
        return None
