"""Commands shown to users: how to call penstock, and how to go on with a run."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from penstock.errors import PenstockError
from penstock.orchestrator.launch.job import Job
from penstock.orchestrator.launch.launching import launcher_class
from penstock.orchestrator.store.run_folder import RunFolder


def program() -> str:
    """How to call penstock here, for commands shown to the user."""
    if shutil.which("penstock"):
        return "penstock"
    name = Path(sys.argv[0])
    return "python -m penstock" if name.name == "__main__.py" else os.path.relpath(name)


def resume_command(folder: RunFolder) -> str:
    """What a person types to go on with a run that has stopped.

    Args:
        folder: the run folder. Its job says whether that is a command of a scheduler.

    Returns:
        The command, with paths as they are called from the current folder.
    """
    with suppress(PenstockError):  # of a damaged job.json; what led here is the fault to report
        job = Job.of(folder)
        if job is not None and (command := launcher_class(job.launcher).resume_command(job, folder)):
            return command
    return f"{program()} resume {shlex.quote(os.path.relpath(folder.path))}"
