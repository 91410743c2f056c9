"""The sections that try the surrogate out, made by a process beside the server.

The process uses one core and no GPU, its memory is freed when it ends, and its faults do not end the server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Hashable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

from penstock.errors import PenstockError, one_line
from penstock.machine import end_with_parent
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.dashboard.boards import stamp
from penstock.orchestrator.views.numbers import duration
from penstock.orchestrator.views.report.html import absent
from penstock.orchestrator.views.report.page import SECTIONS, Section, sections_of

KEYS = ("parameters", "cases", "cost")
LONGEST_S = 600.0
TRIAL_S = 3.0  # of a core, which a trial takes at least, mostly to load torch
EARLY = "This is shown from the first checkpoint on."
ONE_CORE = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}


class Trier:
    """Starts the process that tries a surrogate out, and ends it with the server."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._is_closed = False

    def sections(self, folder: RunFolder, from_age_s: float | None = None) -> Iterator[Section]:
        """The sections of KEYS.

        Args:
            folder: the run.
            from_age_s: the age that the run must reach before it is tried out; None if it has.

        Raises:
            PenstockError: they could not be made.
        """
        if not _checkpoints(folder):  # the process could do nothing but load torch
            yield from _without_trial(EARLY)
            return
        if from_age_s is not None:
            yield from _without_trial(
                f"This is shown once the run is {duration(round(from_age_s))} old, or over: trying out the surrogate "
                "takes some seconds of a core."
            )
            return
        command = [sys.executable, "-P", "-m", __name__, str(folder.path)]
        environment = os.environ | ONE_CORE | {"CUDA_VISIBLE_DEVICES": ""}
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
            self._process = process
            try:
                if self._is_closed:
                    process.kill()
                written, errors = process.communicate(timeout=LONGEST_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise PenstockError(f"trying out the surrogate takes more than {LONGEST_S:.0f} s") from None
            finally:
                self._process = None
        if process.returncode:
            last = errors.decode(errors="replace").strip().rpartition("\n")[2]
            raise PenstockError(f"the surrogate can't be tried: {one_line(last) or f'exit {process.returncode}'}")
        for values in json.loads(written.splitlines()[-1]):
            yield Section(**values)

    def close(self) -> None:
        """End the process that is at work, and any that would begin."""
        self._is_closed = True
        if process := self._process:
            process.kill()


def _without_trial(text: str) -> Iterator[Section]:
    return (Section(key, SECTIONS[key][0], absent(text)) for key in KEYS)


def source_of(folder: RunFolder) -> Hashable:
    """Something that changes with checkpoints, the validation set and at the end."""
    kept = _checkpoints(folder)
    return kept, bool(kept) and (stamp(folder.validation), stamp(folder.path / "summary.json"))


def seconds_so_far() -> float:
    """Processor time of the processes that have ended so far."""
    times = os.times()
    return times.children_user + times.children_system


def _checkpoints(folder: RunFolder) -> tuple[tuple[str, int], ...]:
    """Names and times of the checkpoints, without those that are being written."""
    try:
        found = [(entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(folder.checkpoints)]
    except OSError:  # not there, or going away
        return ()
    return tuple(sorted((name, time) for name, time in found if name.isdigit()))


def main(path: str) -> None:
    """Print the sections of a run as JSON, and nothing else."""
    with redirect_stdout(sys.stderr):  # a user's problem or model may print
        made = sections_of(RunFolder(Path(path)), KEYS)
    json.dump([asdict(section) for section in made], sys.stdout)


if __name__ == "__main__":
    end_with_parent()  # a server that is killed can't end it
    main(sys.argv[1])
