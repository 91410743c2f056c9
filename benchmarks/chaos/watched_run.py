"""`penstock train` in a separate folder, watched from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from penstock.errors import PenstockError

PATIENCE_S = 300.0  # only ends a wait for what will never come
CLEAN_WITHIN_S = 30.0  # Ray's processes notice the death of a driver after some seconds


class WatchedRun:
    """A run of the command line.

    Args:
        folder: an empty folder.
        configuration: YAML text.
        problem: file of the problem's class, which is copied to the folder; None for a problem of penstock's.
    """

    def __init__(self, folder: Path, configuration: str, problem: str | None = None):
        self.folder = folder
        if problem is not None:
            shutil.copy(problem, folder)
        (folder / "run.yaml").write_text(configuration)
        self.temporary = Path(tempfile.mkdtemp(prefix=""))  # a short name, because Ray's sockets are in it
        self.shared_memory: set[Path] = set()
        """Files in /dev/shm that processes of the run were seen to have open."""
        self.process: subprocess.Popen | None = None
        self.wrapper: list[str] = []
        """Words of a command that starts the one behind it, in another environment."""

    def penstock(self, *arguments: str, output: int | None = None) -> subprocess.Popen:
        """Start a command.

        Args:
            arguments: its words.
            output: where it prints, as `subprocess` takes it; what it says goes to console.txt where left out.

        Returns:
            The process, whose output is text.
        """
        own = {"HOME": str(self.folder), "TMPDIR": str(self.temporary), "OMP_WAIT_POLICY": "passive"}
        own["TORCHINDUCTOR_CACHE_DIR"] = str(self.folder / "inductor")  # torch keeps it for other processes to come
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | own
        with (self.folder / "console.txt").open("a") as console:
            return subprocess.Popen(
                [*self.wrapper, sys.executable, "-m", "penstock", *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console if output is None else output,
                stderr=console,
                start_new_session=True,
                text=True,
            )

    def train(self) -> None:
        self.process = self.penstock("train", "run.yaml")

    @property
    def path(self) -> Path:
        return self.folder / "runs" / "latest"

    @property
    def record(self) -> dict[str, Any]:
        """The newest line of metrics.jsonl; empty before there is one."""
        with suppress(FileNotFoundError):
            lines = (self.path / "metrics.jsonl").read_text().split("\n")[:-1]  # the last one may be half written
            return json.loads(lines[-1]) if lines else {}
        return {}

    def read(self, name: str) -> dict[str, Any]:
        """A file of JSON in the run folder."""
        return json.loads((self.path / name).read_text())

    def processes(self) -> list[psutil.Process]:
        """Every living process of the run: all that is in its folder."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(self.folder):
                    found.append(process)
        return found

    def note_shared_memory(self) -> None:
        for process in self.processes():
            with suppress(psutil.Error, OSError):
                mapped = Path(f"/proc/{process.pid}/maps").read_text().split()
                self.shared_memory |= {Path(word) for word in mapped if word.startswith("/dev/shm/")}

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something while the run goes.

        Raises PenstockError if the run ends before, or if it does not come.
        """
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if self.process.poll() is not None:
                raise self.wrong(f"the run ended with exit code {self.process.returncode} before {what}")
            if time.monotonic() > end:
                raise self.wrong(f"{what} did not come within {PATIENCE_S:.0f} s; the last record: {self.record}")
            time.sleep(0.1)

    def finish(self, exit_code: int) -> None:
        """Wait for the end of the process that drives the run, which must have this exit code."""
        try:
            found = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise self.wrong(f"the run did not end within {PATIENCE_S:.0f} s") from None
        if found != exit_code:
            raise self.wrong(f"exit code {found} where {exit_code} was to be expected")

    def wrong(self, what: str) -> PenstockError:
        """The error to raise where the run did something wrong, with its last words."""
        words = (self.folder / "console.txt").read_text().splitlines()[-8:]
        return PenstockError("\n  ".join([f"{what} (in {self.folder}); it said last:", *words]), exit_code=1)

    def left(self) -> list[str]:
        """What is left of it on the machine, after a while: processes, temporary files, shared memory."""
        end = time.monotonic() + CLEAN_WITHIN_S
        while (found := self._left()) and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def _left(self) -> list[str]:
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                found.append(f"process {process.pid}: {' '.join(process.cmdline())[:80]}")
        return found + [str(path) for path in (*self.temporary.iterdir(), *self.shared_memory) if path.exists()]

    def remove(self) -> None:
        """End whatever is left, and remove the temporary folder."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)
