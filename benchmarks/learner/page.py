"""The pages benchmarks/tables/learner-cpu.md and learner-gpu.md."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks import report
from benchmarks.learner import cases
from benchmarks.learner.allocator import allocator
from benchmarks.learner.contests import CONTESTS, against
from benchmarks.learner.imports import imports
from benchmarks.learner.ingest import ingest
from benchmarks.learner.padding import padding
from penstock.errors import PenstockError
from penstock.learner.ladder.ladder import ladder
from penstock.learner.ladder.section import Section, summary
from penstock.machine import processor

SECONDS = 6.0
PAGES = {"cpu": "learner-cpu.md", "cuda": "learner-gpu.md"}
MLPS = {
    "cpu": cases.mlp(100_000, num_slots=2000),  # 800 MB of slots
    "cuda": cases.mlp(1_000_000, num_slots=1000),  # 4 GB, twice in the device's memory and twice in pinned
}

INTRODUCTION = """
Each arm was measured for about {seconds:g} seconds, in rounds of all arms in turns. Figures are medians over rounds,
in brackets the quartiles; ratios are paired by round, so other work of the machine meets both arms. "Speed against"
is the inverse ratio of times. L1 is the step on one batch that lies on the device; L2 the step fed from a full
Reservoir without producers; L2p the same while a thread ingests as fast as the buffer's rule admits, chunk by chunk as
in a run. torch's DataLoader reads the same buffer's arrays without lock or account, in the training process
(num_workers=0, as in the SC 2023 paper's artefact): item by item with the default collate, and batch by batch in one
gather through `__getitems__`, with pinned memory for a GPU.
"""
TWO_CORES = " Training's threads and the producer share the processor's cores: L2p has fewer of them than L1."

SECTIONS: dict[str, Callable[[torch.device, float], Section]] = {
    "fno": lambda device, seconds: ladder(cases.fno(), device, seconds),
    "mlp": lambda device, seconds: ladder(MLPS[device.type], device, seconds),
    "points": lambda device, seconds: ladder(cases.points(), device, seconds),
    "padding": lambda device, seconds: padding(cases.points(), device, seconds),
    "public": lambda device, seconds: against(CONTESTS["fno-2d"], device, seconds),
    "ingest": ingest,
    "allocator": lambda device, seconds: allocator({"FNO": cases.fno(), "MLP": MLPS[device.type]}, device, seconds),
    "import": lambda device, seconds: imports(),
}


def run(device_name: str | None = None, case: str | None = None, seconds: float = SECONDS) -> None:
    """Measure what limits training on this machine, and write the page of its device."""
    if not seconds > 0:
        raise PenstockError(f"--seconds {seconds:g}: must be above 0")
    if case is not None and case not in SECTIONS:
        raise PenstockError(f"--case {case}: there are {', '.join(SECTIONS)}")
    if device_name is not None and device_name not in PAGES:
        raise PenstockError(f"--device {device_name}: there are {' and '.join(PAGES)}")
    has_gpu = torch.cuda.is_available()
    if device_name == "cuda" and not has_gpu:
        raise PenstockError("--device cuda: torch sees no GPU here")
    device = torch.device(device_name or ("cuda" if has_gpu else "cpu"))
    if case is None:
        report.require_folder()
    sections = []
    start = time.perf_counter()
    # On a GPU tensors are in torch's memory pool, whatever the allocator of the host does.
    names = [case] if case else [name for name in SECTIONS if name != "allocator" or device.type == "cpu"]
    for name in names:
        print(f"{(time.perf_counter() - start) / 60:5.1f} min: {name}", file=sys.stderr)
        sections.append(SECTIONS[name](device, seconds))
        print(f"\n## {sections[-1].title}\n\n{sections[-1].text}\n", flush=True)
    print(summary(sections))
    if case is None:
        options = f" --device {device.type}" + (f" --seconds {seconds:g}" if seconds != SECONDS else "")
        report.write(PAGES[device.type], page(sections, device, seconds, options))


def page(sections: list[Section], device: torch.device, seconds: float, options: str) -> str:
    introduction = INTRODUCTION.format(seconds=seconds) + (TWO_CORES if device.type == "cpu" else "")
    parts = [
        f"# What limits training on a {'GPU' if device.type == 'cuda' else 'CPU'}",
        report.paragraph(introduction),
        summary(sections),
        *(f"## {section.title}\n\n{section.text}" for section in sections),
        footer(device, f"learner{options}"),
    ]
    return "\n\n".join(parts) + "\n"


def footer(device: torch.device, command: str) -> str:
    machine = f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
    if device.type == "cuda":
        machine = f"{torch.cuda.get_device_name(device)}, {machine}"
    cuda = f", CUDA {torch.version.cuda}" if device.type == "cuda" else ""
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}{cuda}"
    return report.footer(f"python -m benchmarks {command}", machine, versions)
