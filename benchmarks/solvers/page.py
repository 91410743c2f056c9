"""The page benchmarks/tables/solvers.md, with one section per case.

All sections are drawn from solvers.json.

A run of some cases replaces their sections and leaves the others as they were.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks import report
from benchmarks.solvers.plots import draw_plots
from benchmarks.solvers.published import MAX_WORK, VARIANTS_LIMIT
from penstock.errors import PenstockError
from penstock.report import markdown
from penstock.solvers.referee.lineup import MAX_GCRODR_ITERATIONS
from penstock.solvers.referee.referee import ARM_SECONDS, HOPELESS, RUN_SYSTEMS
from penstock.solvers.referee.table import number, percent, times

RAW, PAGE = "solvers.json", "solvers.md"
INTRODUCTION = f"""
Every arm solves the same systems on one core, system by system in turns. Times are CPU seconds of the one thread that
solves, so waiting for a core on a busy machine is left out. Set-up that an arm makes once is left out, too: its first
systems (1; as many as it learns from where it recycles) are others than those compared where time allows, and enter
no figure; an arm without a warm solve is marked "cold". Set-up that it repeats from time to time is in means and in
ratios. "set-up" is the time before the first iteration or back-solve: preconditioner, factor, a recycle space brought
to the new matrix, the comparison with the matrix before. "end to end" is the mean, one assembly, and one system's
share of sorting where an arm sorts. "iterations" are PETSc's count for its methods and all products with A for
GCRO-DR and penstock's CG. Every solution is checked; one that misses the goal is a failure, is listed with its
reason, and enters no other column. "largest error" is that of ||x - A^-1 b|| / ||A^-1 b|| against a direct solve by
MUMPS with a step of refinement (for 64^3 cells CG with GAMG to 1e-10), made outside of all timing. "systems" are
those solved warm: an arm leaves a case after {ARM_SECONDS:g} s with its warm-up, or {HOPELESS} failures and no
success, and MUMPS does after one system of 64^3 cells; GMRES is given up after {MAX_WORK:.0e} / (n restart)
iterations, GCRO-DR after {MAX_GCRODR_ITERATIONS:,}. Arms called "user" are loops that a good PETSc user would write:
one KSP kept, the matrix overwritten in place. None of them keeps the factor of an earlier matrix as a preconditioner,
which a user who knows his sequence might: of that there is only our `lagged`. SKR is GCRO-DR(40, 20) in sorted order;
its variants are run up to n = {VARIANTS_LIMIT:,}. Ratios are those of the sums of times over the systems that both
arms solved warm, paired by system; in brackets the median of the ratios system by system. `auto` has made its
decision, and settled, on systems before those of the table. Its trials and calibration are the time of these systems
above its mean, as a share of {RUN_SYSTEMS} systems. Times at an accuracy are those of arms with a tolerance fitted on
other systems. "auto, assembled once" is `auto` for a problem that assembles its constant matrix once, as the user who
keeps his factor would, instead of again for every system.
"""

AGAINST_USER = {
    ("A", "residual"): 0.95,
    ("B", "error"): 1.3,
    ("B", "residual"): 1.0,
    ("C", "residual"): 3.0,
    ("D", "residual"): 0.95,
}
"""Ratios that `auto` must reach against the best good user's loop.

The keys are the letter of the case and the measure.
"""
AGAINST_SKR = {"A 9604": 7, "A 39204": 10, "B 12/3 10201": 5, "B 12/3 66049": 8, "B 12/3 178084": 20, "B 3D": 4}
AGAINST_SKR |= {"A mended 9604": 7, "A mended 39204": 10, "C": 45, "D": 2}
"""Ratios expected of `auto` against SKR, by the beginning of a case's name."""
WORTH = 1.5  # ratio of times that makes recycling worth it
IN_TWO_SEQUENCES = 1.3  # ratio of `auto` against the best good user's loop, wanted in two sequences
TRIALS_SHARE = 0.02


def summary(sections: Sequence[dict[str, Any]]) -> str:
    """One line per case, and the targets over several cases."""
    header = [
        "case",
        "goal",
        "auto chose",
        "best user's loop",
        "auto against it",
        "target",
        "met",
        "against our best",
        "against SKR",
        "expected",
        "trials and calibration",
        "recycling's best: time, iterations",
    ]
    table = markdown([_summary_row(section) for section in sections], header)
    return table + "\n\n" + "\n".join(f"- {line}" for line in _across(sections))


def _summary_row(section: dict[str, Any]) -> list[str]:
    target = AGAINST_USER.get((section["case"][0], section["measure"]))
    expected = next((times for name, times in AGAINST_SKR.items() if section["case"].startswith(name)), None)
    row = [section["case"], section["measure"]]
    if not (auto := section["auto"]):
        return [*row, "failed", "-", "-", _target(target), "no", "-", "-", _expected(expected), "-", _worth(section)]
    ratios = auto["ratios"]
    shown = {name: times(ratio) if ratio else title for name, (title, ratio) in ratios.items()}
    if shown.get("user") != shown.get("unaware user"):
        shown["user"] += f"; {shown['unaware user']} where the matrix is not known to be constant"
    if "assembled once" in shown:
        shown["user"] += f"; {shown['assembled once']} where it is assembled once"
    title, ratio = ratios["user"]
    return [
        *row,
        auto["strategy"],
        title.removeprefix("user: "),
        shown["user"],
        _target(target),
        "-" if target is None or ratio is None else _yes(ratio[0] >= target),
        shown.get("ours", "-"),
        shown.get("SKR", "-"),
        _expected(expected),
        percent(auto["trials_share"]) + (" (above 2 %)" if auto["trials_share"] > TRIALS_SHARE else ""),
        _worth(section),
    ]


def _across(sections: Sequence[dict[str, Any]]) -> list[str]:
    """The results of the targets over several cases, one line per target."""
    sequences = [section for section in sections if section["case"].startswith("D") and section["is_sequence"]]
    fast = [
        section
        for section in sequences
        if section["auto"] and (ratio := section["auto"]["ratios"]["user"][1]) and ratio[0] >= IN_TWO_SEQUENCES
    ]
    worth = [section for section in sequences if _best_worth(section) >= WORTH]
    constant = [section for section in sections if section["case"].startswith("C")]
    constant_worth = [section for section in constant if _best_worth(section) >= WORTH]
    shares = [section["auto"]["trials_share"] for section in sections if section["auto"]]
    lines = []
    if sequences:
        lines += [
            f"`auto` at least {IN_TWO_SEQUENCES}x against the best good user's loop in two sequences of D: "
            f"{_yes(_num_series(fast) >= 2)} ({_cases(fast)})",
            f"recycling worth at least {WORTH}x in time in two sequences of D: "
            f"{_yes(_num_series(worth) >= 2)} ({_cases(worth)})",
        ]
    if constant:
        lines.append(
            f"recycling worth at least {WORTH}x in time in C: {_yes(len(constant_worth) == len(constant))} "
            f"({_cases(constant_worth)})"
        )
    if shares:
        lines.append(
            f"trials and calibration at most {100 * TRIALS_SHARE:g} % of {RUN_SYSTEMS} systems: "
            f"{_yes(max(shares) <= TRIALS_SHARE)} (largest {percent(max(shares))})"
        )
    return lines


def _cases(sections: Sequence[dict[str, Any]]) -> str:
    return ", ".join(section["case"] for section in sections) or "none"


def _num_series(sections: Sequence[dict[str, Any]]) -> int:
    """The number of cases that differ in more than their size."""
    return len({section["case"].removesuffix(f" {section['num_unknowns']}") for section in sections})


def _best_worth(section: dict[str, Any]) -> float:
    return max((one["time"][0] for one in section["recycling"]), default=0.0)


def _worth(section: dict[str, Any]) -> str:
    if not section["recycling"]:
        return "-"
    best = max(section["recycling"], key=lambda one: one["time"][0])
    return f"{times(best['time'])}, {number(best['iterations'], '.2f')}x: {best['arm']}"


def _target(target: float | None) -> str:
    return "-" if target is None else f"{target:g}x"


def _expected(times: float | None) -> str:
    return "-" if times is None else f"{times:g}x"


def _yes(is_met: bool) -> str:
    return "yes" if is_met else "no"


def known_sections() -> dict[str, dict[str, Any]]:
    """The sections of earlier runs. Raises PenstockError when the file can't be read."""
    path = report.FOLDER / RAW
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise PenstockError(f"{path} can't be read: {error}") from error


def publish(name: str, section: dict[str, Any]) -> None:
    """Replace the old section of this name, then write page and plots again."""
    sections = known_sections() | {name: section}
    sections = dict(sorted(sections.items(), key=_place))
    report.write(RAW, json.dumps(sections, indent=1) + "\n")
    compared = [section for section in sections.values() if "arms" in section]
    pictures = "\n\n".join(f"![{alt}]({file})" for file, alt in draw_plots(compared, report.FOLDER))
    minutes = sum(section["seconds"] for section in sections.values()) / 60
    parts = [
        "# Linear solves, arm by arm",
        report.paragraph(INTRODUCTION),
        summary(compared),
        f"All sections together took {minutes:.1f} minutes of processor time.",
        pictures,
        *(section["text"].strip() for section in sections.values()),
    ]
    report.write(PAGE, "\n\n".join(parts) + "\n")


def _place(item: tuple[str, dict[str, Any]]) -> tuple:
    """The sorting key of a section: cases by letter and name, sizes by number."""
    name, section = item
    number = section.get("num_unknowns", 0)
    return section.get("case", "~").removesuffix(str(number)), number, name
