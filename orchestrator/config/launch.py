"""The keys that say where a run has its place, and with what it is launched."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from penstock.orchestrator.config.kuberay import KubeRaySection
from penstock.orchestrator.config.sections import Section

CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+)(?::(?P<minutes>\d+))?(?::(?P<seconds>\d+))?")


def _seconds(value: Any) -> Any:
    """Seconds of a walltime; YAML itself reads 4:00:00 as 14,400."""
    if not isinstance(value, str):
        return value
    if not (match := CLOCK.fullmatch(value)):
        raise ValueError("give seconds, h:mm:ss as 4:00:00, or d-hh:mm:ss as 1-12:00:00")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + seconds


Walltime = Annotated[Annotated[int, Field(gt=0)] | None, BeforeValidator(_seconds)]
"""A time in seconds, which may be written as batch systems write it."""


class ClusterSection(Section):
    """Where Ray runs, and for how long."""

    address: str | None = None
    """A running Ray cluster to join, as `host:port` or `auto`.

    Absent, the run starts Ray on this machine and stops it again.
    """
    walltime: Walltime = None
    """Time after which the run must have ended, from its start on, in seconds or as `4:00:00` or `1-12:00:00`.

    Two minutes before, or a fifth of it where that is less, it writes a checkpoint and ends with exit code 75: go on
    with `penstock resume`, for which the time begins again. In a job of Slurm its end counts too, whichever is earlier.
    """


class LaunchSection(Section):
    """With what `penstock launch` starts the run; `train` does not look at it."""

    prologue: str = ""
    """Lines of shell that every node runs before penstock: modules, a conda or virtual environment."""
    kuberay: KubeRaySection = KubeRaySection()
