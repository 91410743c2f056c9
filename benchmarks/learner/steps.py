"""The page benchmarks/tables/steps.md: steps of our models and of public ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from benchmarks import report
from benchmarks.learner.contests import CONTESTS, against
from benchmarks.learner.page import footer
from penstock.errors import PenstockError
from penstock.learner.ladder.section import summary

NUM_THREADS = 2
SECONDS = 3.0
INTRODUCTION = """
Forward, the relative L2 loss, backward and AdamW, on one batch in memory, with {threads} threads. All arms of a
section run in turns, each for about {seconds:g} seconds; ms are medians over rounds. A speed is the median ratio of
the times of pairs from one round, in brackets its quartiles; above 1 penstock is faster than the step of that row.
CPU time is that of all threads together, which other work of the machine disturbs less than wall time. The speeds in
the first table are in CPU time, against the fastest public model that has as many parameters, or nearly so. AdamW is
fused for all, except for complex weights, for which there is none; speeds per FLOP are in wall time.
"""


def run(names: Sequence[str], seconds: float = SECONDS) -> None:
    """Measure the contests of these names, or all and write the page.

    Raises:
        PenstockError: no contest has such a name, or the time is not above 0.
    """
    if not seconds > 0:
        raise PenstockError(f"--seconds {seconds:g}: must be above 0")
    if unknown := [name for name in names if name not in CONTESTS]:
        raise PenstockError(f"{unknown[0]}: there are {', '.join(CONTESTS)}")
    torch.set_num_threads(NUM_THREADS)
    device, sections = torch.device("cpu"), []
    for name in names or CONTESTS:
        print(name, file=sys.stderr, flush=True)
        sections.append(against(CONTESTS[name], device, seconds))
        print(f"\n## {sections[-1].title}\n\n{sections[-1].text}\n", flush=True)
    print(summary(sections))
    if names:
        return
    options = f" --seconds {seconds:g}" if seconds != SECONDS else ""
    parts = [
        "# Steps of penstock's models against those of public ones",
        report.paragraph(INTRODUCTION.format(threads=NUM_THREADS, seconds=seconds)),
        summary(sections),
        *(f"## {section.title}\n\n{section.text}" for section in sections),
        footer(device, f"steps{options}"),
    ]
    report.write("steps.md", "\n\n".join(parts) + "\n")
