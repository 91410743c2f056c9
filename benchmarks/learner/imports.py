"""The time that the learner's modules take to import, without torch."""

from __future__ import annotations

import subprocess
import sys

from penstock.learner.ladder.section import Section, Target
from penstock.learner.ladder.timing import spread

NUM_PROCESSES = 5
MOST_S = 3.0
PROGRAM = """
import time, torch
start = time.perf_counter()
import pkgutil, penstock.learner
for module in pkgutil.walk_packages(penstock.learner.__path__, "penstock.learner."):
    __import__(module.name)
print(time.perf_counter() - start)
"""


def imports() -> Section:
    """The section on imports: all modules of penstock.learner, in new processes."""
    command = [sys.executable, "-c", PROGRAM]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(NUM_PROCESSES)]
    took = spread([float(run.stdout) for run in runs])
    text = f"All modules of `penstock.learner` take {took} s to import, not counting torch."
    return Section("Import", text, (Target(what="seconds beyond the import of torch", measured=took, most=MOST_S),))
