"""Jobs: runs that were launched, and what runs them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum

from penstock.errors import PenstockError
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
        """The job of a run; None for one that was not launched.

        Raises PenstockError if the file is damaged.
        """
        if not (facts := folder.read(FILE)):
            return None
        try:
            return cls(*(facts[field.name] for field in fields(cls)))
        except (KeyError, TypeError) as error:
            raise PenstockError(f"{folder.path / FILE} is damaged") from error

    def save(self, folder: RunFolder) -> None:
        """Write it into a run folder."""
        folder.write(FILE, asdict(self))
