"""The processor time of a run and of its viewers."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.chaos.watched_run import WatchedRun
from benchmarks.views.viewers import OpenPage, Repeated, Scraper, Terminal, address_of
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.report.past import Past

LOOK_EVERY_S = 0.25
ALL_EVERY_S = 2.0  # between two looks at all processes of the run, of which there are dozens
REPEATS = 20
DEMO = Path("examples") / "darcy.yaml"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run has taken.

    Seconds are of processor time, user's and system's.
    """

    steps: int
    wall_seconds: float
    """From the first process of the run to its end."""
    driver: float
    learner: float
    solvers: float
    monitor: float
    """0 where nobody watched, as is `dashboard`."""
    dashboard: float
    """With the processes that try out the surrogate."""
    worst_cases: float
    """Of the learner's, for pictures: the worst row of a validation is predicted again."""
    run: float
    """Of all processes of the run, Ray's included, those of the views excluded."""

    @property
    def driver_share(self) -> float:
        """Cores that the driver took, on average."""
        return self.driver / self.wall_seconds

    @property
    def learner_per_step(self) -> float:
        """Seconds of the learner per step."""
        return self.learner / self.steps


class _Clock:
    """Processor time of processes, as of the last look at each that lived."""

    def __init__(self):
        self.seconds: dict[int, float] = {}

    def look(self, process: psutil.Process, *, with_children: bool = False) -> None:
        """Note what a process has taken, and if asked for its children, dead or alive."""
        with suppress(psutil.Error):
            times = process.cpu_times()
            seconds = times.user + times.system
            if with_children:
                seconds += times.children_user + times.children_system
                for child in process.children(recursive=True):
                    with suppress(psutil.Error):
                        of_child = child.cpu_times()
                        seconds += of_child.user + of_child.system
            # a child that has just ended may be in neither sum for a moment
            self.seconds[process.pid] = max(seconds, self.seconds.get(process.pid, 0.0))


def demo(minutes: float, *, is_watched: bool) -> str:
    """The configuration of the demo, with another time of training, as YAML."""
    values: dict[str, Any] = yaml.safe_load(DEMO.read_text())
    values["training"]["stop_after"] = {"minutes": minutes}
    if is_watched:
        values["monitor"] = ["tensorboard"]
    return yaml.safe_dump(values, sort_keys=False)


def watch(folder: Path, minutes: float, *, is_watched: bool) -> Cost:
    """The cost of a run of the demo.

    Args:
        folder: an empty folder.
        minutes: how long it trains.
        is_watched: whether all views are there; else it is quiet.

    Raises:
        PenstockError: the run or a view failed.
    """
    run = WatchedRun(folder, demo(minutes, is_watched=is_watched))
    with _closed(Terminal()) as terminal, ExitStack() as stack:
        stack.callback(run.remove)
        began = time.monotonic()
        if is_watched:
            run.process = run.penstock("train", "run.yaml", output=terminal.end)
        else:
            run.process = run.penstock("train", "run.yaml", "--quiet")
        run.wait_until(lambda: (run.path / "run.json").exists() and "metrics" in run.read("run.json"), "its folder")
        views = stack.enter_context(_views(run)) if is_watched else {}
        of_views, of_run, all_at = _Clock(), _Clock(), 0.0
        processes = {name: psutil.Process(process.pid) for name, process in views.items()}
        while run.process.poll() is None:
            if run.read("run.json")["state"] == "running":  # afterwards a view takes nothing from it
                for process in processes.values():
                    of_views.look(process, with_children=True)
            if time.monotonic() >= all_at:
                of_views_now = {pid for each in processes.values() for pid in _family(each)}
                ours = [each for each in run.processes() if each.pid not in of_views_now]
                all_at = time.monotonic() + ALL_EVERY_S
            for process in ours:
                of_run.look(process)
            time.sleep(LOOK_EVERY_S)
        seconds = time.monotonic() - began
        run.finish(0)
        known = run.read("run.json")
        return Cost(
            steps=run.read("summary.json")["step"],
            wall_seconds=seconds,
            driver=of_run.seconds[run.process.pid],
            learner=of_run.seconds[known["learner_pid"]],
            solvers=sum(of_run.seconds.get(pid, 0.0) for pid in known["solver_pids"].values()),
            monitor=of_views.seconds.get(views["monitor"].pid, 0.0) if is_watched else 0.0,
            dashboard=of_views.seconds.get(views["dashboard"].pid, 0.0) if is_watched else 0.0,
            worst_cases=_worst_cases(RunFolder(run.path.resolve())) if is_watched else 0.0,
            run=sum(of_run.seconds.values()),
        )


def _worst_cases(folder: RunFolder) -> float:
    """What the worst cases of a run have taken, from one that is made again."""
    from penstock.orchestrator.plan import resolve
    from penstock.orchestrator.store.run_store import RunStore
    from penstock.orchestrator.store.trained import load_surrogate

    plan = resolve(folder.config())
    surrogate, step = load_surrogate(folder, plan)
    stored, layout = RunStore(folder).read_validation(plan.problem.layout), plan.problem.layout
    rows, _, _ = plan.unit.all_rows(stored.arrays, layout, stored.simulations, stored.steps)
    validation = plan.validation(rows, "cpu")
    validation.errors(surrogate)
    validation.worst_case(step)
    before = time.process_time()
    for _ in range(REPEATS):
        pickle.dumps(validation.worst_case(step))
    return (time.process_time() - before) / REPEATS * sum(1 for _ in Past.of(folder).validations())


@contextmanager
def _views(run: WatchedRun) -> Iterator[dict[str, subprocess.Popen]]:
    """Everything that watches a run in other processes, which it yields by name."""
    with ExitStack() as stack:
        terminal = stack.enter_context(_closed(Terminal()))
        monitor = run.penstock("monitor", output=terminal.end)
        stack.callback(_end, monitor)
        dashboard = run.penstock("dashboard", str(run.path.resolve()), output=subprocess.PIPE)
        stack.callback(_end, dashboard)
        page = OpenPage(address_of(dashboard))
        scraper = Scraper(run.read("run.json")["metrics"])
        for each in (page, scraper):
            stack.enter_context(_going(each))
        yield {"monitor": monitor, "dashboard": dashboard}
    for each, least in ((page.num_sections, 10), (scraper.count, 1), (terminal.num_bytes, 1000)):
        if each < least:
            raise run.wrong(f"a view showed nothing: {page.faults + scraper.faults}")


@contextmanager
def _closed(terminal: Terminal) -> Iterator[Terminal]:
    try:
        yield terminal
    finally:
        terminal.close()


@contextmanager
def _going(repeated: Repeated) -> Iterator[None]:
    repeated.start()
    try:
        yield
    finally:
        repeated.close()


def _end(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGINT)
    process.wait()


def _family(process: psutil.Process) -> set[int]:
    """A process and all below it, by number."""
    with suppress(psutil.Error):
        return {process.pid, *(child.pid for child in process.children(recursive=True))}
    return {process.pid}


def prepare(folder: Path) -> None:
    """Make runs alike: find matplotlib's fonts once, and set one type of terminal.

    Args:
        folder: where later runs find its list of fonts.
    """
    os.environ["MPLCONFIGDIR"] = str(folder)
    os.environ["TERM"] = "xterm-256color"
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], check=True)
