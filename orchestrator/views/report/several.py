"""Several runs on one page: in the same charts, and how they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from penstock.errors import PenstockError
from penstock.orchestrator.history.comparison import differences
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.numbers import digits, duration
from penstock.orchestrator.views.report.charts import (
    LINES,
    chart,
    duration_axis,
    legend,
    logarithmic,
    thinned,
    whole_numbers,
)
from penstock.orchestrator.views.report.cost import Cost, about, break_even
from penstock.orchestrator.views.report.html import absent, charts, paragraph, table
from penstock.orchestrator.views.report.page import Section, section
from penstock.orchestrator.views.report.past import Past
from penstock.orchestrator.views.report.trial import try_out

STYLES = ("-", "--", ":", "-.")  # one after the other where there are more runs than colours


def compared_sections(folders: Sequence[RunFolder]) -> list[Section]:
    """Sections that compare runs as they stand.

    Args:
        folders: their folders, two at least.

    Returns:
        The sections.

    Raises:
        PenstockError: the records of one are there and can't be read.
    """
    pasts = [Past.of(folder) for folder in folders]
    return [
        section("overview", "Runs", partial(_overview, pasts)),
        section("losses", "Losses and errors", partial(_losses, pasts)),
        section("throughput", "Throughput", partial(_throughput, pasts)),
        section("cost", "Cost and break-even", partial(_costs, pasts)),
        *(
            Section(f"differences-{title}", f"How they differ: {title}", _table(title, rows, pasts))
            for title, rows in differences(folders)
        ),
    ]


def _overview(pasts: Sequence[Past]) -> str:
    rows = [
        (
            past.name,
            past.standing.state,
            past.standing.problem or "-",
            past.standing.model or "-",
            "-" if past.standing.error is None else digits(past.standing.error),
            str(past.last.unique) if past.last else "-",
            duration(past.seconds[-1]) if past.last else "-",
        )
        for past in pasts
    ]
    header = ("run", "state", "problem", "model", "mean relative L2 error", "unique samples", "time of the run")
    damage = "".join(paragraph(f"{past.name}: {text}", "warning") for past in pasts for text in past.damage)
    if len({past.standing.problem for past in pasts}) > 1:
        damage += paragraph(
            "These runs have different problems: neither errors nor times per sample compare.", "warning"
        )
    return damage + table("Where the runs stand", header, rows)


def _losses(pasts: Sequence[Past]) -> str:
    begun = [past for past in pasts if past.records]
    if not begun:
        return absent("None of the runs has a record yet.")

    def errors(past: Past) -> tuple[np.ndarray, np.ndarray]:
        found = [(number, errors["relative_l2"]["mean"]) for number, errors in past.validations()]
        numbers, values = zip(*found, strict=True) if found else ((), ())
        return np.array(numbers, dtype=int), np.array(values)

    def losses(past: Past) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(len(past.records)), past.column("loss")

    drawn = [
        _chart(f"losses-{what}-{over}", begun, *about, over=over)
        for what, about in (
            ("error", (errors, "Error", "mean relative L2 error [-]", "on the validation set of each run", True)),
            ("loss", (losses, "Loss", "training loss [-]", "a running mean", True)),
        )
        for over in ("time", "samples")
    ]
    return charts(drawn)


def _throughput(pasts: Sequence[Past]) -> str:
    begun = [past for past in pasts if past.records]
    if not begun:
        return absent("None of the runs has a record yet.")

    def rates(name: str) -> Callable[[Past], tuple[np.ndarray, np.ndarray]]:
        return lambda past: (np.arange(len(past.records)), past.column(name))

    drawn = [
        _chart(f"throughput-{name}", begun, rates(name), title, "samples per second [1/s]", "over the last 5 s", False)
        for name, title in (("unique_per_s", "Unique samples"), ("trained_per_s", "Trained samples"))
    ]
    return charts(drawn)


def _chart(
    key: str,
    pasts: Sequence[Past],
    values_of: Callable[[Past], tuple[np.ndarray, np.ndarray]],
    title: str,
    label: str,
    what: str,
    is_log: bool,
    *,
    over: str = "time",
) -> str:
    """A chart with a line per run, over the run's time or its unique samples."""

    def draw(axis: Axes) -> None:
        values = [values_of(past) for past in pasts]
        if over == "time":
            x = duration_axis(axis, np.concatenate([past.seconds for past in pasts]))
            x = np.split(x, np.cumsum([len(past.records) for past in pasts])[:-1])
        else:
            x = [past.column("unique") for past in pasts]
            axis.set_xlabel("unique samples")
            whole_numbers(axis)
        for number, (past, abscissa, (at, ordinate)) in enumerate(zip(pasts, x, values, strict=True)):
            kept = thinned(len(at))
            style = STYLES[number // len(LINES) % len(STYLES)]
            axis.plot(abscissa[at[kept]], ordinate[kept], style, color=LINES[number % len(LINES)], label=past.name)
        positive = np.concatenate([ordinate for _, (_, ordinate) in zip(pasts, values, strict=True)])
        if is_log and (positive > 0).any():
            logarithmic(axis)
        axis.set_ylabel(label)
        legend(axis, 1)

    return chart(key, f"{title} over {over}.", f"{title} of each run, {what}.", draw)


def _costs(pasts: Sequence[Past]) -> str:
    rows = []
    for past in pasts:
        if not past.records:
            continue
        found = Cost.of(past)
        try:
            call_seconds = try_out(past.folder).call_seconds
        except PenstockError:
            call_seconds = None
        numbers = (found.core_seconds, found.gpu_seconds, found.watt_hours, found.solver_seconds, call_seconds)
        calls = None if call_seconds is None else break_even(found, call_seconds)
        is_known = None not in (found.core_seconds, found.solver_seconds, call_seconds)
        ending = about(calls) if calls is not None else "never" if is_known else "-"
        rows.append((past.name, *("-" if number is None else digits(number) for number in numbers), ending))
    header = ("run", "core-seconds", "GPU-seconds", "energy [Wh]", "solver [core-s per call]")
    return table(
        "What each run has taken, and the calls after which it has paid for itself; - is not known",
        (*header, "surrogate [core-s per call]", "break-even [calls]"),
        rows,
    )


def _table(title: str, rows: dict[str, list[str]], pasts: Sequence[Past]) -> str:
    if not rows:
        return absent("No difference.")
    names = [past.name for past in pasts]
    return table(f"Keys that differ: {title}", ("key", *names), [(key, *values) for key, values in rows.items()])
