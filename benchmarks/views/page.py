"""What it costs to watch a run: `python -m benchmarks views`."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.report import footer, paragraph, require_folder, write
from benchmarks.views.scrape import SCRAPES, Scrape, scrape
from benchmarks.views.viewers import COLUMNS, SCRAPE_EVERY_S
from benchmarks.views.watching import DEMO, Cost, prepare, watch
from penstock.machine import processor
from penstock.report import markdown

MOST = 0.01  # the share of the machine's processor time that all views together may take
MOST_MS = 20.0  # of a scrape
INTRODUCTION = """
The demo, {demo} with {minutes:g} minutes of training, {pairs} times unwatched (`--quiet`, no sinks, no scrapes) and as
often with all views, in turns: its live view in a terminal of {columns} columns, TensorBoard's event
files, a scrape every {every:g} s, `penstock monitor` in a second terminal, and `penstock dashboard` with the run's page
open from the beginning to the end, whose sections are asked for as its script does. Seconds are processor time,
user and system, by process; other work of the machine makes them longer, through its caches. Each figure is the median;
the smallest and the largest are in brackets.
"""
DIFFERENCES = """
The driver's difference is that in average cores, times the watched run's seconds, as it does its work once per second.
The learner's is that in time per step, times the watched run's steps. It is mostly noise, of caches and of the rest of
the machine, on a learner that takes most of a core. The views ask only for its worst cases, which are measured alone;
"all views" counts those and no more of the learner.
"""


@dataclass(frozen=True)
class Pair:
    """Two runs that follow one another."""

    quiet: Cost
    watched: Cost

    @property
    def driver(self) -> float:
        """Additional seconds of the driver."""
        return (self.watched.driver_share - self.quiet.driver_share) * self.watched.wall_seconds

    @property
    def learner(self) -> float:
        """Additional seconds of the learner, from whatever cause."""
        return (self.watched.learner_per_step - self.quiet.learner_per_step) * self.watched.steps

    @property
    def views(self) -> float:
        """Seconds of all views."""
        return self.driver + self.watched.monitor + self.watched.dashboard + self.watched.worst_cases

    @property
    def machine_seconds(self) -> float:
        """What the machine's processors could have done during the watched run."""
        return self.watched.wall_seconds * (os.cpu_count() or 1)


def run(minutes: float, num_pairs: int) -> int:
    """Measure in pairs, print the tables, and write them.

    Args:
        minutes: how long each run trains.
        num_pairs: pairs of runs.

    Returns:
        The exit status: 1 where watching costs more than MOST of the machine's time, or a scrape takes over MOST_MS.

    Raises:
        PenstockError: a run or a view failed.
    """
    require_folder()
    load = os.getloadavg()[0]
    scraped = scrape()
    pairs = []
    with tempfile.TemporaryDirectory(prefix="") as root:
        prepare(Path(root) / "matplotlib")
        for number in range(num_pairs):
            costs = {}
            for is_watched in (False, True) if number % 2 == 0 else (True, False):
                folder = Path(root) / f"{number}-{'watched' if is_watched else 'quiet'}"
                folder.mkdir()
                costs[is_watched] = watch(folder, minutes, is_watched=is_watched)
                print(costs[is_watched], file=sys.stderr, flush=True)
            pairs.append(Pair(quiet=costs[False], watched=costs[True]))
    share = statistics.median(pair.views / pair.machine_seconds for pair in pairs)
    introduction = INTRODUCTION.format(
        demo=DEMO, minutes=minutes, pairs=num_pairs, columns=COLUMNS, every=SCRAPE_EVERY_S
    )
    tables = costs_table(pairs), shares_table(pairs), scrape_table(scraped)
    print("\n\n".join(tables))
    texts = [
        "# What it costs to watch a run",
        paragraph(introduction),
        tables[0],
        paragraph(DIFFERENCES),
        tables[1],
        paragraph(
            f"A scrape of a made run's metrics over HTTP, client and endpoint in one process, {SCRAPES} times; it "
            f"should take at most {MOST_MS:g} ms:"
        ),
        tables[2],
        footer(
            f"python -m benchmarks views --minutes {minutes:g} --pairs {num_pairs}",
            f"{processor()}, {os.cpu_count()} cores, load {load:.1f} at the start",
            f"Python {sys.version.split()[0]}"
            + "".join(f", {name} {version(name)}" for name in ("ray", "torch", "rich", "matplotlib")),
        ),
    ]
    write("views.md", "\n\n".join(texts) + "\n")
    return int(share > MOST or scraped.median_ms > MOST_MS)


def costs_table(pairs: Sequence[Pair]) -> str:
    """What each process took, unwatched and watched, and the difference."""
    differences = {
        "driver": [pair.driver for pair in pairs],
        "learner": [pair.learner for pair in pairs],
        "monitor": [pair.watched.monitor for pair in pairs],
        "dashboard": [pair.watched.dashboard for pair in pairs],
        "worst_cases": [pair.watched.worst_cases for pair in pairs],
    }
    rows = []
    for name, field in (
        ("driver, s", "driver"),
        ("learner, s", "learner"),
        ("of that the worst cases, s", "worst_cases"),
        ("`penstock monitor`, s", "monitor"),
        ("`penstock dashboard`, s", "dashboard"),
        ("all processes of the run, s", "run"),
        ("steps", "steps"),
        ("wall time, s", "wall_seconds"),
    ):
        quiet, watched = (_of([getattr(cost, field) for cost in costs]) for costs in _arms(pairs))
        rows.append([name, quiet, watched, _of(differences[field]) if field in differences else ""])
    return markdown(rows, ["", "quiet", "watched", "difference"])


def shares_table(pairs: Sequence[Pair]) -> str:
    """What part of the time the views take."""
    rows = []
    for name, seconds_of in (
        ("driver", lambda pair: pair.driver),
        ("`penstock monitor`", lambda pair: pair.watched.monitor),
        ("`penstock dashboard`", lambda pair: pair.watched.dashboard),
        ("worst cases, in the learner", lambda pair: pair.watched.worst_cases),
        ("all views", lambda pair: pair.views),
        (
            "all views, with all of the learner's difference",
            lambda pair: pair.views - pair.watched.worst_cases + pair.learner,
        ),
    ):
        of_machine = _of([100 * seconds_of(pair) / pair.machine_seconds for pair in pairs])
        rows.append([name, of_machine, _of([100 * seconds_of(pair) / pair.watched.run for pair in pairs])])
    return markdown(rows, ["", "% of the machine's processor time", "% of the run's own"])


def scrape_table(found: Scrape) -> str:
    """What a scrape takes."""
    rows = [
        ["series", str(found.num_series)],
        ["median, ms", f"{found.median_ms:.1f}"],
        ["longest, ms", f"{found.longest_ms:.1f}"],
        ["processor time, ms", f"{found.processor_ms:.1f}"],
    ]
    return markdown(rows, ["a scrape with 256 workers' series", ""])


def _of(values: Sequence[float]) -> str:
    """The median, with the smallest and the largest."""
    middle, low, high = (
        f"{value:.{_places(value)}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def _arms(pairs: Sequence[Pair]) -> tuple[list[Cost], list[Cost]]:
    return [pair.quiet for pair in pairs], [pair.watched for pair in pairs]


def _places(value: float) -> int:
    return 0 if isinstance(value, int) or abs(value) >= 100 else 2
