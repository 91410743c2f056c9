"""The result of a comparison, as facts and as a section of text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from penstock.report import markdown
from penstock.solvers.referee.arms import Role
from penstock.solvers.referee.goals import AccuracyGoal
from penstock.solvers.referee.referee import RUN_SYSTEMS, Comparison, Ratio, Record

HEADER = ("arm", "systems", "iterations", "set-up, ms", "solve, ms", "median, ms", "mean, ms", "end to end, ms")


def section_of(comparison: Comparison, made_by: str = "") -> dict[str, Any]:
    """The facts of a comparison that the page, the plots and later runs need."""
    case = comparison.case
    facts = {
        "case": case.name,
        "title": case.title,
        "num_unknowns": case.num_unknowns,
        "is_sequence": case.is_sequence,
        "goal": comparison.goal.text,
        "measure": comparison.goal.measure,
        "num_systems": comparison.num_systems,
        "assembly_ms": 1e3 * comparison.assembly_s,
        "sort_ms": 1e3 * comparison.sort_s,
        "arms": [_arm_facts(record, comparison) for record in comparison.records],
        "auto": _auto_facts(comparison),
        "recycling": _recycling_facts(comparison),
        "seconds": comparison.seconds,
        "made_by": made_by,
    }
    return facts | {"text": render(facts)}


def _arm_facts(record: Record, comparison: Comparison) -> dict[str, Any]:
    facts = {
        "title": record.arm.title,
        "role": record.arm.role,
        "num_solved": len(record.warm),
        "failures": dict(record.failures),
    }
    if not record.solved:
        return facts
    all_solved = list(record.solved.values())
    facts |= {"worst": record.worst, "largest_error": record.largest_error}
    if not record.warm:
        return facts | {
            "iterations": statistics.mean(one.iterations for one in all_solved),
            "cold_ms": 1e3 * statistics.mean(one.seconds for one in all_solved),
        }
    mean = 1e3 * record.mean_s
    return facts | {
        "iterations": statistics.mean(record.solved[i].iterations for i in record.warm),
        "setup_ms": 1e3 * record.median(lambda one: one.setup_s),
        "solve_ms": 1e3 * record.median(lambda one: one.solve_s),
        "median_ms": 1e3 * record.median(),
        "mean_ms": mean,
        "end_to_end_ms": mean + 1e3 * (comparison.assembly_s + record.arm.is_sorted * comparison.sort_s),
    }


def _auto_facts(comparison: Comparison) -> dict[str, Any] | None:
    """The choice of `auto`, its cost, and the ratios of other arms' times to its time.

    Of several rivals the one with the lowest ratio counts. An entry without ratio says "cold" or "all failed".
    """
    auto = next((record for record in comparison.records if record.arm.role is Role.AUTO), None)
    if auto is None or auto.arm.decision is None or not auto.warm:
        return None
    rivals = {
        "user": [one for one in comparison.records if one.arm.role is Role.USER],
        "unaware user": [one for one in comparison.records if one.arm.role is Role.USER and not one.arm.knows_constant],
        "ours": [one for one in comparison.records if one.arm.role in (Role.OURS, Role.SKR)],
        "SKR": [one for one in comparison.records if one.arm.role is Role.SKR],
    }
    ratios: dict[str, tuple[str, Ratio | None]] = {}
    for name, ones in rivals.items():
        known = [(one.arm.title, ratio) for one in ones if (ratio := one.ratio(auto))]
        if known:
            ratios[name] = min(known, key=lambda pair: pair[1].of_sums)
        elif ones:
            ratios[name] = ("cold" if any(one.solved for one in ones) else "all failed", None)
    once = next((record for record in comparison.records if record.arm.role is Role.ASSEMBLED_ONCE), None)
    if once is not None:
        known = [(one.arm.title, ratio) for one in rivals["user"] if (ratio := one.ratio(once))]
        ratios["assembled once"] = min(known, key=lambda pair: pair[1].of_sums)
    mean = auto.mean_s
    excess = sum(comparison.trials) - len(comparison.trials) * mean
    if comparison.goal.measure == AccuracyGoal.measure:  # some of the systems after the decision are solved twice
        excess += sum(comparison.settling) - len(comparison.settling) * auto.median()
    return {
        "strategy": auto.arm.decision.strategy,
        "reason": auto.arm.decision.reason,
        "num_trials": len(comparison.trials),
        "trials_share": excess / (RUN_SYSTEMS * mean),
        "ratios": ratios,
    }


def _recycling_facts(comparison: Comparison) -> list[dict[str, Any]]:
    """The savings by recycling of each arm that has a control."""
    by_title = {record.arm.title: record for record in comparison.records}
    facts = []
    for record in by_title.values():
        control = by_title.get(record.arm.control)
        if control is None or (time := control.ratio(record)) is None:
            continue
        iterations = control.ratio(record, lambda solved: solved.iterations)
        names = {"arm": record.arm.title, "control": control.arm.title}
        facts.append(names | {"time": time, "iterations": iterations and iterations.of_sums})
    return facts


RIVALS = {
    "user": "the best good user's loop",
    "unaware user": "the best loop that does not know the matrix to be constant",
    "ours": "the best single strategy of ours",
    "SKR": "SKR",
    "assembled once": "the best good user's loop where the matrix is assembled once",
}


def render(section: dict[str, Any]) -> str:
    """The text of a section of the page."""
    largest = {"residual": {"worst": "largest residual", "largest_error": "largest error"}}
    largest = largest.get(section["measure"], {"worst": "largest error"})
    header = [*HEADER, *largest.values(), "failures"]
    rows = [
        [
            arm["title"],
            str(arm["num_solved"]),
            number(arm.get("iterations"), ".1f"),
            *(number(arm.get(key)) for key in ("setup_ms", "solve_ms", "median_ms")),
            f"{number(arm['cold_ms'])} (cold)" if "cold_ms" in arm else number(arm.get("mean_ms")),
            number(arm.get("end_to_end_ms")),
            *(number(arm.get(key), ".1e") for key in largest),
            str(sum(arm["failures"].values())),
        ]
        for arm in section["arms"]
    ]
    lines = []
    if auto := section["auto"]:
        lines.append(f"`auto` chose: {auto['reason']}")
        lines.append(
            f"its trials took {auto['num_trials']} systems; trials and calibration cost "
            f"{percent(auto['trials_share'])} of the solve time of {RUN_SYSTEMS}"
        )
        ratios = auto["ratios"]
        lines += [
            f"`auto` against {RIVALS[name]} ({title}): {times(ratio)}"
            for name, (title, ratio) in ratios.items()
            if name != "unaware user" or title != ratios["user"][0]
        ]
    lines += [
        f"worth of recycling alone, {one['arm']} against {one['control']}: {times(one['time'])} in time, "
        f"{number(one['iterations'], '.2f')}x in iterations"
        for one in section["recycling"]
    ]
    lines += [
        f"failures of {arm['title']}: " + "; ".join(f"{times} x {reason}" for reason, times in arm["failures"].items())
        for arm in section["arms"]
        if arm["failures"]
    ]
    return (
        f"""## {section["case"]}, {section["goal"]}

{section["title"]}; n = {section["num_unknowns"]:,}, {section["num_systems"]} systems, assembly \
{number(section["assembly_ms"])} ms, sorting {number(section["sort_ms"])} ms per system.

{markdown(rows, header)}

{chr(10).join(f"- {line}" for line in lines)}

{section["made_by"]}
""".rstrip()
        + "\n"
    )


def percent(share: float) -> str:
    """A share as percent, with no sign before a zero."""
    return f"{round(100 * share, 1) + 0.0:.1f} %"


def times(ratio: Sequence[float] | None) -> str:
    """The ratio of sums, and in brackets the median of pairs."""
    return "no ratio" if ratio is None else f"{ratio[0]:.2f}x ({ratio[1]:.2f}x)"


def number(value: float | None, form: str | None = None) -> str:
    if value is None:
        return "-"
    if form is not None:
        return format(value, form)
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if 0 < value < 100 else f"{value:.0f}"
