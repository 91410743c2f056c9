"""What a run has cost and saved, and when it has paid for itself."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.errors import PenstockError
from penstock.orchestrator.resources.memory import size
from penstock.orchestrator.views.numbers import digits
from penstock.orchestrator.views.report.html import absent, paragraph, table
from penstock.orchestrator.views.report.past import Past
from penstock.orchestrator.views.report.trial import Trial, try_out

Row = tuple[str, str, str]
"""A figure: its name, its value, and how it was obtained."""
HEADER = ("figure", "value", "how it was obtained")


@dataclass(frozen=True)
class Cost:
    """What a run has cost so far; None where it is not known."""

    core_seconds: float | None
    gpu_seconds: float | None
    watt_hours: float | None
    solver_seconds: float | None
    """Core-seconds of a solver per unique sample."""

    @classmethod
    def of(cls, past: Past) -> Cost:
        """The cost by a run's records."""
        seconds, learner, ranks = past.seconds[-1], past.run.get("learner", {}), _ranks(past)
        worker_seconds = past.total("worker_seconds")[-1]
        joules = past.total("energy_joules")[-1]
        solving, samples = past.total("solver_seconds")[-1], past.last.unique
        return cls(
            core_seconds=ranks * worker_seconds + learner["cores"] * seconds if "cores" in learner else None,
            gpu_seconds=learner["gpus"] * seconds if "gpus" in learner else None,
            watt_hours=joules / 3600 if joules else None,
            solver_seconds=ranks * solving / samples if solving and samples else None,
        )


def cost(past: Past) -> str:
    """Core- and GPU-seconds, energy, bytes never written, and the break-even."""
    if not past.records:
        return absent("There is no record yet.")
    found = Cost.of(past)
    try:
        trial, why_not = try_out(past.folder), ""
    except PenstockError as error:
        trial, why_not = None, str(error)
    rows = [*_spent(past, found), *_spared(past, trial)]
    return table("What the run has cost and saved", HEADER, rows) + _break_even(found, trial, why_not)


def break_even(found: Cost, call_seconds: float) -> float | None:
    """The number of calls after which a run has paid for itself.

    It is the run's core-seconds over the core-seconds that a call of the surrogate saves.

    Args:
        found: what the run has cost.
        call_seconds: core-seconds of the surrogate per sample.

    Returns:
        The number of samples; None where a call saves nothing, or something is not known.
    """
    if found.core_seconds is None or found.solver_seconds is None or found.solver_seconds <= call_seconds:
        return None
    return found.core_seconds / (found.solver_seconds - call_seconds)


def about(calls: float) -> str:
    """A number of calls, of which three digits are known."""
    return f"{float(f'{calls:.3g}'):,.0f}"


def _break_even(found: Cost, trial: Trial | None, why_not: str) -> str:
    if trial is None:
        return absent(f"When the run has paid for itself is not known yet: {why_not}.")
    if found.core_seconds is None or found.solver_seconds is None:
        return absent(
            "When the run has paid for itself is not known: its cores and the solvers' times were not recorded."
        )
    calls = break_even(found, trial.call_seconds)
    rows: list[Row] = [
        (
            "solver, per call",
            f"{digits(found.solver_seconds)} core-s",
            "workers' time to draw, assemble, solve and pack, per unique sample",
        ),
        (
            "surrogate, per call",
            f"{digits(trial.call_seconds)} core-s",
            f"measured on the CPU of the machine that wrote this page, over {len(trial.errors)} samples in batches",
        ),
        (
            "break-even",
            "never" if calls is None else f"{about(calls)} calls",
            "a call of the surrogate takes longer than the solver"
            if calls is None
            else "the run's core-seconds over the difference of the two",
        ),
    ]
    text = (
        "On these cores the solver is faster than the surrogate, so the run can't pay for itself in core-seconds."
        if calls is None
        else f"The run has paid for itself after about {about(calls)} calls of the surrogate, one sample each."
    )
    return paragraph(text) + table("When the run has paid for itself", HEADER, rows)


def _spent(past: Past, found: Cost) -> list[Row]:
    recorded = "not recorded by the version that ran it"
    cores = "each worker's cores for as long as it was ready, and the learner's for as long as the run went on"
    return [
        ("core-seconds", recorded if found.core_seconds is None else digits(found.core_seconds), cores),
        (
            "GPU-seconds",
            recorded if found.gpu_seconds is None else digits(found.gpu_seconds),
            "the learner had no GPU" if found.gpu_seconds == 0 else "the learner's GPUs for as long as the run went on",
        ),
        (
            "energy",
            "not known" if found.watt_hours is None else f"{digits(found.watt_hours)} Wh",
            "processors (RAPL) and GPUs (NVML) of the driver's machine, other work included"
            if found.watt_hours is not None
            else "no energy counter (RAPL, NVML) can be read on the driver's machine",
        ),
    ]


def _spared(past: Past, trial: Trial | None) -> list[Row]:
    if trial is None:
        return []
    never = size(past.last.unique * trial.sample_bytes)
    return [("never written to disk", never, f"{past.last.unique} unique samples of {size(trial.sample_bytes)} each")]


def _ranks(past: Past) -> int:
    ranks = past.standing.config.get("solver.ranks", 1)
    return ranks if isinstance(ranks, int) else 1
