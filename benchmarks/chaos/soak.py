"""A long run at full speed, its memory and files: `python -m benchmarks soak`."""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import canned
from benchmarks.chaos.watched_run import WatchedRun
from benchmarks.report import footer, paragraph, require_folder, write
from penstock.errors import PenstockError
from penstock.machine import processor
from penstock.report import markdown

CONFIGURATION = """
name: soak
problem: {name: ./canned.py:Canned, side: 45}
solver: {workers: 2}
buffer: {kind: reservoir, capacity: 4096, watermark: 256}
model: {name: fno, width: 8, modes: 4, layers: 1}
training: {batch_size: 32, device: cpu, stop_after: {minutes: MINUTES}}
validation: {simulations: 32, every_s: EVERY_S}
checkpoint: {every_s: EVERY_S}
"""
EVERY_S = 60.0  # validations and checkpoints; more often in a run of less than 10 minutes
LOOKS = 400  # looks at the processes, at most one a second
MOST = 0.02  # growth of a process's memory from the first quarter to the last
VARYING = re.compile(r"[0-9a-f]{16,}|[0-9]+")
SESSION = re.compile(r"[^/]+/session_[^/]+/")
LEAST_BYTES = 1_000_000  # of growth: what is less is no growth, because small processes have pages of 2 % of theirs


@dataclass(frozen=True)
class Look:
    """What a run takes at a time."""

    memory: Mapping[str, int]
    """Proportional set size of each process in bytes, by name."""
    files: Mapping[str, int]
    """Bytes on the disk by name, with `*` for numbers: those that replace one another count as one."""


def run(minutes: float) -> int:
    """Watch a run, and print and write the table.

    Args:
        minutes: how long it trains.

    Returns:
        The exit status: 1 where the memory of a process has grown.

    Raises:
        PenstockError: the run did not end by itself.
    """
    require_folder()
    load = os.getloadavg()[0]
    looks, summary = watch(minutes)
    if len(looks) < 4:
        raise PenstockError(f"--minutes {minutes:g}: the run ended before its processes were looked at four times")
    memory, has_grown = memory_table(looks)
    files = files_table(looks, minutes)
    introduction = f"""
        Two workers send samples of 16 kB that cost nothing to solve, and the learner trains a small FNO, each as fast
        as it can, for {minutes:g} minutes: {summary["unique"]:,} samples were produced and {summary["trained"]:,}
        trained in {summary["step"]:,} steps. {len(looks)} looks at every process of the run and at every file; each
        figure is the median over a quarter of them. Memory is the proportional set size, which counts shared memory
        once. A growth of {100 * MOST:g} % at most is wanted, of what is more than {LEAST_BYTES / 1e6:g} MB."""
    growing = """
        Files that were larger in the last quarter than in the first, in the run folder, Ray's (`ray/`) and /dev/shm.
        metrics.jsonl has a line per second, and logs have what happens: both grow with the length of a run and not
        with its rate, up to 16 MB and twice 8 MB. What else grows is a fault."""
    made_by = footer(
        f"python -m benchmarks soak --minutes {minutes:g}",
        f"{processor()}, {os.cpu_count()} cores, load {load:.1f} at the start",
        f"Python {sys.version.split()[0]}",
    )
    print(f"{memory}\n\n{files}")
    parts = ["# A long run at full speed", paragraph(introduction), memory, paragraph(growing), files, made_by]
    write("soak.md", "\n\n".join(parts) + "\n")
    return int(has_grown)


def watch(minutes: float) -> tuple[list[Look], dict]:
    """Looks at a run while it trains, and its summary."""
    every_s = min(EVERY_S, 6 * minutes)
    text = CONFIGURATION.replace("MINUTES", f"{minutes:g}").replace("EVERY_S", f"{every_s:g}")
    looks: list[Look] = []
    with tempfile.TemporaryDirectory() as folder:
        watched = WatchedRun(Path(folder), text, canned.__file__)
        try:
            watched.train()
            watched.wait_until(lambda: watched.record.get("step", 0) > 0, "the first training step")
            while watched.process.poll() is None and watched.record["state"] != "ended":
                looks.append(look(watched))
                time.sleep(max(1.0, 60 * minutes / LOOKS))
            watched.finish(0)
            return looks, watched.read("summary.json")
        finally:
            watched.remove()


def look(watched: WatchedRun) -> Look:
    """Look at all processes and files of a run."""
    known = watched.read("run.json")
    names = {pid: name for name, pid in known.get("solver_pids", {}).items()}
    names |= {known.get("learner_pid"): "learner", watched.process.pid: "driver"}
    memory: dict[str, int] = {}
    numbers: Counter[str] = Counter()
    for process in sorted(watched.processes(), key=lambda process: process.pid):
        with suppress(psutil.Error, OSError):
            size = process.memory_full_info().pss
            name = names.get(process.pid) or name_of(process)
            numbers[name] += 1
            memory[name if numbers[name] == 1 else f"{name} ({numbers[name]})"] = size
    watched.note_shared_memory()
    files: Counter[str] = Counter()
    for name, path in files_of(watched):
        with suppress(OSError):
            files[VARYING.sub("*", name)] += 512 * path.stat().st_blocks
    return Look(memory, files)


def files_of(watched: WatchedRun) -> Iterator[tuple[str, Path]]:
    """All files of a run, in its folder, Ray's, and /dev/shm, with their names."""
    for prefix, root in (("", watched.path.resolve()), ("ray/", watched.temporary)):
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield SESSION.sub("", f"{prefix}{path.relative_to(root)}"), path
    for path in watched.shared_memory:
        yield str(path), path


def name_of(process: psutil.Process) -> str:
    """Ray's name for a process, or the last part of its program or script."""
    words = process.cmdline()
    first = words[0] if words else process.name()
    if first.startswith("ray::"):
        return first
    scripts = [word for word in words[1:4] if word.endswith(".py")]
    return Path(scripts[0] if scripts else first).name


def quarters(values: Sequence[int]) -> tuple[float, float]:
    """Medians of the first and of the last quarter."""
    length = max(1, len(values) // 4)
    return statistics.median(values[:length]), statistics.median(values[-length:])


def memory_table(looks: Sequence[Look]) -> tuple[str, bool]:
    """The processes that were there all the time; whether one of them has grown."""
    rows, has_grown = [], False
    for name in sorted(looks[-1].memory.keys() & looks[0].memory.keys()):
        first, last = quarters([each.memory[name] for each in looks if name in each.memory])
        grows = last - first > max(MOST * first, LEAST_BYTES)
        has_grown |= grows
        growth = f"{100 * (last / max(1, first) - 1):+.1f} %"
        rows.append([name, f"{first / 1e6:.1f}", f"{last / 1e6:.1f}", growth, "no" if grows else "yes"])
    return markdown(rows, ["process", "first quarter, MB", "last quarter, MB", "growth", "flat"]), has_grown


def files_table(looks: Sequence[Look], minutes: float) -> str:
    """The files that have grown, the largest growth first."""
    grown = []
    for name in {name for each in looks for name in each.files}:
        first, last = quarters([each.files.get(name, 0) for each in looks])
        if last > first:
            grown.append((last - first, name, first, last))
    hours = 0.75 * minutes / 60  # between the middles of the quarters
    return markdown(
        [
            [name, f"{first / 1e3:.0f}", f"{last / 1e3:.0f}", f"{growth / 1e3 / hours:.0f}"]
            for growth, name, first, last in sorted(grown, reverse=True)
        ],
        ["file", "first quarter, kB", "last quarter, kB", "growth, kB per hour"],
    )
