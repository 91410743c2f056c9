"""The step with and without the allocator settings of training.

Each measurement runs in a separate process.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import torch

from benchmarks.learner.cases import LEARNING_RATE, Case
from benchmarks.report import paragraph
from penstock.learner.allocator import KEEP_FREED_MEMORY
from penstock.learner.ladder.section import Section, Target
from penstock.learner.ladder.timing import MIN_ROUNDS, NUM_WARM_UP, spread
from penstock.report import markdown

NUM_PAIRS = 4
PROGRAM = "from benchmarks.learner.allocator import measure_step; measure_step()"
INTRODUCTION = """
L1 once more, in a process whose glibc keeps freed memory for the next step ({settings}) as that of a run does, and in
one with a glibc that gives it back, in turns. "faults" are the pages that the system mapped per step, "system" the time
that it took, "peak" the most memory that the process had.
"""
KEYS = ("ms", "faults", "system_ms", "peak_mb")


def allocator(cases: Mapping[str, Case], device: torch.device, seconds: float, num_pairs: int = NUM_PAIRS) -> Section:
    """The section on the allocator.

    Args:
        cases: the cases by name.
        device: the device of the steps.
        seconds: seconds of steps in all processes of an arm together.
        num_pairs: number of processes per arm.
    """
    rows, targets = [], []
    for name, case in cases.items():
        pairs = [[_step(case, device, seconds / num_pairs, keep) for keep in (True, False)] for _ in range(num_pairs)]
        for arm, runs in zip(("kept", "given back"), zip(*pairs, strict=True), strict=True):
            rows.append([name, arm, *(f"{median(run[key] for run in runs):,.1f}" for key in KEYS)])
        ratio = spread([given_back["ms"] / kept["ms"] for kept, given_back in pairs])
        targets.append(Target(what=f"{name}: memory kept against given back", measured=ratio, least=1.0))
    settings = ", ".join(f"{name}={value}" for name, value in KEEP_FREED_MEMORY.items())
    table = markdown(rows, ["case", "freed memory is", "ms per step", "faults", "system, ms", "peak, MB"])
    return Section("Allocator", f"{paragraph(INTRODUCTION.format(settings=settings))}\n\n{table}", tuple(targets))


def _step(case: Case, device: torch.device, seconds: float, keep: bool) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name not in KEEP_FREED_MEMORY}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=pickle.dumps((case, device, seconds, torch.get_num_threads())),
        env=environment | KEEP_FREED_MEMORY if keep else environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(result.stdout)


def peak_mb() -> float:
    """The most memory that this process had, in MiB; getrusage adds its parent's."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def measure_step() -> None:
    """Measure the step in this process, and print the figures.

    It reads `_step`'s arguments from the standard input, and writes JSON to the standard output.
    """
    case, device, seconds, num_threads = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(num_threads)
    step = case.step(device)
    arrays = {name: torch.randn(case.batch_size, *shape, device=device) for name, shape in case.layout.shapes.items()}
    for _ in range(NUM_WARM_UP):
        step(arrays, LEARNING_RATE).item()
    before, start, num_steps = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), 0
    while num_steps < MIN_ROUNDS or time.perf_counter() < start + seconds:
        step(arrays, LEARNING_RATE).item()
        num_steps += 1
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "ms": 1e3 * took / num_steps,
        "faults": (after.ru_minflt - before.ru_minflt) / num_steps,
        "system_ms": 1e3 * (after.ru_stime - before.ru_stime) / num_steps,
        "peak_mb": peak_mb(),
    }
    print(json.dumps(figures))
