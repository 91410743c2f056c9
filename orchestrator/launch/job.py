"""Jobs: runs that were launched, and what runs them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from penstock.orchestrator.store.run_folder import RunFolder

FILE = "job.json"


class State(StrEnum):
    """Where a job is, as what runs it says."""

    WAITING = "waiting"
    RUNNING = "running"
    GONE = "gone"
    """It has ended, or nobody knows of it any more; how the run ended is in its folder."""


@dataclass(frozen=True)
class Job:
    """What runs a run, kept in its folder."""

    launcher: str
    """The name of a launcher."""
    id: str
    """What the job is called there."""
    submitted: str
    """When, as ISO text in UTC."""

    @classmethod
    def of(cls, folder: RunFolder) -> Job | None:
        """The job of a run; None for one that was not launched, or not yet."""
        facts: dict[str, Any] = folder.read(FILE)
        return cls(**facts) if facts else None

    def save(self, folder: RunFolder) -> None:
        """Write it into a run folder."""
        folder.write(FILE, asdict(self))
