"""benchmarks/solvers.md: one section a case, and what all of them are drawn from, solvers.json.

A run of some cases replaces their sections and leaves the others as they were.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from typing import Any

from penstock.solvers.bench import report
from penstock.solvers.bench.arms import KeptKSP, Role
from penstock.solvers.bench.comparison import ARM_SECONDS, RUN_SYSTEMS, Comparison, Record
from penstock.solvers.bench.plots import draw_plots

RAW, PAGE = "solvers.json", "solvers.md"
HEADER = ("arm", "systems", "iterations", "set-up, ms", "solve, ms", "median, ms", "mean, ms", "end to end, ms")

INTRODUCTION = f"""
Every arm solves the same systems on one core; the arms take turns system by system, so that a busy machine slows all of
them alike. Medians leave out an arm's first system, in which most arms set up what they keep; means do not. "set-up" is
what comes before the first iteration (preconditioner or factor); penstock's own strategies are timed whole. "end to
end" adds one assembly, and one system's share of sorting where an arm sorts. "iterations" are PETSc's own for its
methods and all products with A for GCRO-DR and penstock's CG. Every solution is checked; one that misses the goal is a
failure, is listed with its reason, and enters no other column. "systems" are those solved: an arm leaves a case after
{ARM_SECONDS:g} s. Arms called "user" are loops that a good PETSc user would write: one KSP kept, the matrix overwritten
in place. SKR is GCRO-DR(40, 20) in sorted order. Ratios are medians over turns, each of them timed side by side, again
without the first. `auto` has made its decision on systems before those of the table. Times at an accuracy are those of
arms whose tolerance was fitted on other systems.
"""


def section_of(comparison: Comparison, command: str) -> dict[str, Any]:
    """What the page, the plots and later runs need of a comparison."""
    case = comparison.case
    facts = {
        "case": case.name,
        "title": case.title,
        "num_unknowns": case.num_unknowns,
        "goal": comparison.goal.text,
        "measure": comparison.goal.measure,
        "num_systems": comparison.num_systems,
        "assembly_ms": 1e3 * comparison.assembly_s,
        "sort_ms": 1e3 * comparison.sort_s,
        "arms": [_arm_facts(record, comparison) for record in comparison.records],
        "auto": _auto_facts(comparison),
        "recycling": _recycling_facts(comparison),
        "seconds": comparison.seconds,
        "made_by": report.footer(command),
    }
    return facts | {"text": render(facts)}


def _arm_facts(record: Record, comparison: Comparison) -> dict[str, Any]:
    solved = list(record.solved.values())
    facts = {
        "title": record.arm.title,
        "role": record.arm.role,
        "num_solved": len(solved),
        "failures": dict(record.failures),
    }
    if not solved:
        return facts
    median = 1e3 * record.median_s
    splits = isinstance(record.arm, KeptKSP)
    return facts | {
        "iterations": statistics.mean(one.iterations for one in solved),
        "setup_ms": 1e3 * record.median(lambda one: one.setup_s) if splits else None,
        "solve_ms": 1e3 * record.median(lambda one: one.solve_s) if splits else None,
        "median_ms": median,
        "mean_ms": 1e3 * statistics.mean(one.seconds for one in solved),
        "end_to_end_ms": median + 1e3 * (comparison.assembly_s + record.arm.is_sorted * comparison.sort_s),
        "worst": record.worst,
    }


def _auto_facts(comparison: Comparison) -> dict[str, Any] | None:
    """What `auto` chose, what that took, and the median ratios of other arms' times to its own."""
    records = [record for record in comparison.records if record.solved]
    auto = next((record for record in records if record.arm.role is Role.AUTO), None)
    if auto is None or auto.arm.decision is None:
        return None
    rivals = {
        "user": [one for one in records if one.arm.role is Role.USER],
        "unaware user": [one for one in records if one.arm.role is Role.USER and not one.arm.knows_constant],
        "ours": [one for one in records if one.arm.role is Role.OURS],
        "SKR": [one for one in records if one.arm.role is Role.SKR],
    }
    best = {name: min(ones, key=lambda one: one.median_s) for name, ones in rivals.items() if ones}
    trials_s = comparison.trials_s - comparison.num_trials * auto.median_s
    return {
        "strategy": auto.arm.decision.strategy,
        "reason": auto.arm.decision.reason,
        "num_trials": comparison.num_trials,
        "trials_share": trials_s / (RUN_SYSTEMS * auto.median_s),
        "ratios": {name: (record.arm.title, record.ratio(auto)) for name, record in best.items()},
    }


def _recycling_facts(comparison: Comparison) -> list[dict[str, Any]]:
    """What recycling saves each arm that has a control."""
    by_title = {record.arm.title: record for record in comparison.records if record.solved}
    return [
        {
            "arm": record.arm.title,
            "control": control.arm.title,
            "time": control.ratio(record),
            "iterations": control.ratio(record, lambda solved: solved.iterations),
        }
        for record in by_title.values()
        if (control := by_title.get(record.arm.control))
    ]


RIVALS = {
    "user": "the best good user's loop",
    "unaware user": "the best loop that does not know the matrix to be constant",
    "ours": "the best single strategy of ours",
    "SKR": "SKR",
}


def render(section: dict[str, Any]) -> str:
    """A section of the page."""
    header = [*HEADER, f"largest {section['measure']}", "failures"]
    rows = [
        [
            arm["title"],
            str(arm["num_solved"]),
            _number(arm.get("iterations"), ".1f"),
            *(_number(arm.get(key)) for key in ("setup_ms", "solve_ms", "median_ms", "mean_ms", "end_to_end_ms")),
            _number(arm.get("worst"), ".1e"),
            str(sum(arm["failures"].values())),
        ]
        for arm in section["arms"]
    ]
    lines = []
    if auto := section["auto"]:
        lines.append(f"`auto` chose: {auto['reason']}")
        lines.append(
            f"its trials took {auto['num_trials']} systems, and cost {100 * auto['trials_share']:.1f} % of the solve "
            f"time of {RUN_SYSTEMS}"
        )
        ratios = auto["ratios"]
        lines += [
            f"`auto` against {RIVALS[name]} ({title}): {ratio:.2f}x"
            for name, (title, ratio) in ratios.items()
            if name != "unaware user" or title != ratios["user"][0]
        ]
    lines += [
        f"recycling's own worth, {one['arm']} against {one['control']}: {one['time']:.2f}x in time, "
        f"{one['iterations']:.2f}x in iterations"
        for one in section["recycling"]
    ]
    lines += [
        f"failures of {arm['title']}: " + "; ".join(f"{times} x {reason}" for reason, times in arm["failures"].items())
        for arm in section["arms"]
        if arm["failures"]
    ]
    return f"""## {section["case"]}, {section["goal"]}

{section["title"]}; n = {section["num_unknowns"]:,}, {section["num_systems"]} systems, assembly \
{_number(section["assembly_ms"])} ms, sorting {_number(section["sort_ms"])} ms a system.

{report.markdown(rows, header)}

{chr(10).join(f"- {line}" for line in lines)}

{section["made_by"]}
"""


def summary(sections: Iterable[dict[str, Any]]) -> str:
    """One line a case."""
    rows = []
    for section in sections:
        if not (auto := section["auto"]):
            continue
        ratios = {name: f"{ratio:.2f}x" for name, (_, ratio) in auto["ratios"].items()}
        if ratios.get("user") != ratios.get("unaware user"):
            ratios["user"] += f" ({ratios['unaware user']} where the matrix is not known to be constant)"
        skr = next((one for one in section["recycling"] if one["arm"].startswith("GCRO-DR")), None)
        rows.append(
            [
                section["case"],
                section["measure"],
                auto["strategy"],
                auto["ratios"]["user"][0].removeprefix("user: ") if "user" in ratios else "-",
                *(ratios.get(name, "-") for name in ("user", "ours", "SKR")),
                f"{skr['time']:.2f}x, {skr['iterations']:.2f}x" if skr else "-",
            ]
        )
    header = [
        "case",
        "goal",
        "auto chose",
        "best user's loop",
        "auto against it",
        "against our best",
        "against SKR",
        "recycling: time, iterations",
    ]
    return report.markdown(rows, header)


def _number(value: float | None, form: str | None = None) -> str:
    if value is None:
        return "-"
    if form is not None:
        return format(value, form)
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if 0 < value < 100 else f"{value:.0f}"


def known_sections() -> dict[str, dict[str, Any]]:
    path = report.FOLDER / RAW
    return json.loads(path.read_text()) if path.exists() else {}


def publish(name: str, section: dict[str, Any]) -> None:
    """Put a section in the place of the old one, and write page and plots anew."""
    sections = known_sections() | {name: section}
    sections = dict(sorted(sections.items(), key=_place))
    compared = [section for section in sections.values() if "arms" in section]
    report.FOLDER.mkdir(exist_ok=True)
    pictures = "\n\n".join(f"![{alt}]({file})" for file, alt in draw_plots(compared, report.FOLDER))
    parts = [
        "# Linear solves, arm by arm",
        report.paragraph(INTRODUCTION),
        summary(compared),
        pictures,
        *(section["text"].strip() for section in sections.values()),
    ]
    report.write(RAW, json.dumps(sections, indent=1) + "\n")
    report.write(PAGE, "\n\n".join(parts) + "\n")


def _place(item: tuple[str, dict[str, Any]]) -> tuple:
    """Cases by letter and name, sizes by number."""
    name, section = item
    number = section.get("num_unknowns", 0)
    return section.get("case", "~").removesuffix(str(number)), number, name
