"""`penstock launch local`: a run in the background of this machine."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from penstock.errors import PenstockError
from penstock.orchestrator.launch.job import Job, State
from penstock.orchestrator.launch.launcher import OUTPUT, Launcher
from penstock.orchestrator.store.run_folder import RunFolder


class Local(Launcher):
    """A process in a new session, which outlives the terminal. See `Launcher`."""

    FILE = "job.sh"
    ASK_EVERY_S = 0.0

    def require_ready(self) -> None:
        """Nothing is needed."""

    def text(self, folders: Sequence[Path]) -> str:
        """A script of bash; see `Launcher.text`."""
        (folder,) = folders
        prologue = self.config.launch.prologue.rstrip("\n")
        command = shlex.join([sys.executable, "-m", "penstock", "resume", str(folder)])
        return "\n".join(filter(None, ["#!/bin/bash", prologue, f"exec {command}"])) + "\n"

    def submit(self, folders: Sequence[RunFolder]) -> list[str]:
        """Start the script; its process id is the job's. See `Launcher.submit`."""
        (folder,) = folders
        with (folder.logs / OUTPUT).open("a") as output:
            process = subprocess.Popen(
                ["bash", folder.path / self.FILE],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return [f"{process.pid}@{socket.gethostname()}"]

    def state(self, job: Job, folder: RunFolder) -> State:
        """See `Launcher.state`."""
        return State.RUNNING if _process_of(job, folder) else State.GONE

    def stop(self, job: Job, folder: RunFolder) -> None:
        """See `Launcher.stop`."""
        if process := _process_of(job, folder):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)


def _process_of(job: Job, folder: RunFolder) -> psutil.Process | None:
    """The job's process, while it lives; another one may have its id by now."""
    pid, _, host = job.id.partition("@")
    if host != socket.gethostname():
        raise PenstockError(f"it was launched on {host}: ask there")
    try:
        process = psutil.Process(int(pid))
        is_ours = any(word.startswith(str(folder.path)) for word in process.cmdline())
        return process if is_ours and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
