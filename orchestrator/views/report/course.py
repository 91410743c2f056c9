"""The course of a run in charts: errors, rates, waits, buffer, solves, rollouts.

Axes:  R records, V validations.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from penstock.orchestrator.views.numbers import digits, share_but
from penstock.orchestrator.views.report.charts import (
    LINES,
    chart,
    duration_axis,
    legend,
    logarithmic,
    stacked,
    thinned,
    whole_numbers,
)
from penstock.orchestrator.views.report.html import absent, charts, paragraph, table
from penstock.orchestrator.views.report.past import Past

NOTHING = "There is no record yet: the run has not begun, or metrics.jsonl is gone."
BINS = 80  # of time, in which seconds are summed up, at most
BIN_S = 4.0  # of such a bin at least: workers report their waits a chunk or a lease at a time
MOST_PARAMETERS = 6  # whose bias is drawn


def losses(past: Past) -> str:
    """Loss and errors over time and over samples."""
    if not past.records:
        return absent(NOTHING)
    loss, seconds, unique = past.column("loss"), past.seconds, past.column("unique")
    measured = list(past.validations())
    measured = [measured[number] for number in thinned(len(measured))]
    at = np.array([number for number, _ in measured], dtype=int)
    errors = {
        name: np.array([errors["relative_l2"].get(name, np.nan) for _, errors in measured], dtype=np.float64)
        for name in ("mean", "median", "p99")
    }

    def draw(axis: Axes, x: np.ndarray) -> None:
        kept = thinned(len(x))
        axis.plot(x[kept], loss[kept], color=LINES[1], label="training loss")
        for name, color in zip(errors, (LINES[0], LINES[2], LINES[3]), strict=True):
            axis.plot(x[at], errors[name], ".-", ms=4, color=color, label=f"validation, {name}")
        if np.nanmax(np.concatenate([loss, *errors.values()]), initial=0.0) > 0:
            logarithmic(axis)
        axis.set_ylabel("loss, relative L2 error [-]")
        legend(axis, 2)

    def over_samples(axis: Axes) -> None:
        draw(axis, unique)
        axis.set_xlabel("unique samples")
        whole_numbers(axis)

    drawn = [
        chart(
            "losses-time",
            "Over time.",
            "The running mean of the training loss, and relative L2 errors on the validation set, which is never "
            "trained on: mean, median and 99th percentile over its samples.",
            lambda axis: draw(axis, duration_axis(axis, seconds)),
        ),
        chart(
            "losses-samples", "Over samples.", "The same over the unique samples that had come by then.", over_samples
        ),
    ]
    return charts(drawn)


def throughput(past: Past) -> str:
    """Rates, and what the time of the learner and of the workers went to."""
    if not past.records:
        return absent(NOTHING)
    seconds = past.seconds
    kept = thinned(len(seconds))

    def rates(axis: Axes) -> None:
        begins = np.flatnonzero(np.diff(past.column("elapsed_seconds")[kept]) < 0) + 1  # of further lives
        at, ends = np.repeat(begins, 2), np.stack([begins - 1, begins], axis=1).ravel()  # nothing came between them
        x = duration_axis(axis, np.insert(seconds[kept], at, seconds[kept][ends]))
        unique, trained = (np.insert(past.column(name)[kept], at, 0.0) for name in ("unique_per_s", "trained_per_s"))
        parts = [("for the first time", np.minimum(unique, trained)), ("repeated", np.maximum(trained - unique, 0.0))]
        stacked(axis, x, parts)
        axis.plot(x, unique, color=LINES[2], label="unique, arrived", lw=1.2)
        axis.figure.legends[0].remove()
        axis.set_ylabel("samples per second [1/s]")
        legend(axis, 3)

    drawn = [
        chart(
            "throughput-rates",
            "Samples per second.",
            "Samples drawn for training, for the first time or repeated; and the unique samples that arrived from the "
            "solvers, fewer than the former where the buffer drains, more where it fills. Means over 5 s.",
            rates,
        )
    ]
    waits = past.total("learner_wait_seconds")
    aside, compiling = past.total("aside_seconds"), past.total("compiling_seconds")
    training = np.maximum(past.total("train_seconds") - waits - aside, 0.0)
    learner = {"steps": training, "waits for samples": waits, "validation, checkpoints": aside, "compiling": compiling}
    drawn.append(
        _shares(
            "throughput-learner",
            "The learner's time.",
            "What the time of the learner went to. Blank is its start: the validation set, and samples up to the "
            "watermark.",
            seconds,
            seconds,
            learner,
        )
    )
    workers = past.total("worker_seconds")
    if workers[-1] > 0:
        solving, blocked = past.total("solver_seconds"), past.total("solver_blocked_seconds")
        unleased = past.total("solver_unleased_seconds")
        parts = {"solving": solving, "waits for the stream": blocked, "waits for leases": unleased}
        drawn.append(
            _shares(
                "throughput-workers",
                "The solvers' time.",
                "What the time of all workers went to: drawing, assembling, solving and packing; waiting for the "
                "stream, until the learner takes what they have; waiting for leases. Blank is their start and "
                "the validation set.",
                seconds,
                workers,
                parts,
            )
        )
        note = ""
    else:
        note = absent("This run was recorded by a version that did not record what the workers' time went to.")
    found = past.summary.bottleneck if past.summary else past.last.bottleneck
    return (
        (paragraph(f"Which side {'limited' if past.summary else 'limits'}: {found.sentence}.") if found else "")
        + charts(drawn)
        + note
    )


def _shares(
    key: str, title: str, caption: str, seconds: np.ndarray, whole: np.ndarray, parts: Mapping[str, np.ndarray]
) -> str:
    """A chart of shares of a time, from running sums [R], in bins of the run's time."""
    num_bins = int(np.clip((seconds[-1] - seconds[0]) / BIN_S, 1, BINS))
    edges = np.linspace(seconds[0] if len(seconds) > 1 else 0.0, seconds[-1], num_bins + 1)
    gained = {name: np.diff(np.interp(edges, seconds, values, left=0.0)) for name, values in parts.items()}
    available = np.maximum(np.diff(np.interp(edges, seconds, whole, left=0.0)), sum(gained.values()))
    shares = [
        (name, 100 * np.divide(values, available, out=np.zeros_like(values), where=available > 0))
        for name, values in gained.items()
        if values.any()
    ]
    if not shares:
        return ""

    def draw(axis: Axes) -> None:
        x = duration_axis(axis, np.repeat(edges, 2)[1:-1])
        stacked(axis, x, [(name, np.repeat(values, 2)) for name, values in shares])
        axis.set_ylim(0, 100)
        axis.set_ylabel("share of the time [%]")

    return chart(key, title, caption, draw)


def buffer(past: Past) -> str:
    """The number of samples in the buffer, their age and their bias."""
    if not past.records:
        return absent(NOTHING)
    seconds, samples, capacity = past.seconds, past.column("buffer_samples"), past.column("buffer_capacity")
    kept = thinned(len(seconds))

    def population(axis: Axes) -> None:
        x = duration_axis(axis, seconds[kept])
        stacked(axis, x, [("in the buffer", samples[kept])])
        axis.plot(x, capacity[kept], color=LINES[1], label="capacity", lw=1.2)
        axis.figure.legends[0].remove()
        axis.set_ylabel("samples")
        legend(axis, 2)

    drawn = [chart("buffer-population", "Population.", "Samples in the buffer, and its capacity.", population)]
    with_bias = [number for number, record in enumerate(past.records) if record.bias]
    kept = np.array(with_bias, dtype=int)[thinned(len(with_bias))]
    biases = [past.records[number].bias for number in kept]
    if not biases:
        return charts(drawn) + absent("Age and bias of the samples were not measured yet.")

    def age(axis: Axes) -> None:
        axis.plot(duration_axis(axis, seconds[kept]), [bias["age_p95"] for bias in biases], color=LINES[0])
        axis.set_ylim(bottom=0)
        axis.set_ylabel("age, 95th percentile [samples]")

    drawn.append(
        chart(
            "buffer-age", "Age.", "How many samples have arrived since those in the buffer did: 95 % are younger.", age
        )
    )
    last = biases[-1]["parameters"]
    names = sorted(last, key=lambda name: last[name]["ks"], reverse=True)[:MOST_PARAMETERS]
    if not names:
        return charts(drawn) + absent("The problem names no parameters whose bias could be measured.")

    def bias(axis: Axes) -> None:
        x = duration_axis(axis, seconds[kept])
        for name, color in zip(names, LINES, strict=False):
            axis.plot(
                x, [each["parameters"].get(name, {}).get("ks", np.nan) for each in biases], color=color, label=name
            )
        axis.plot(x, 0.87 / np.sqrt(np.maximum(samples[kept], 1)), ":", color=LINES[-1], label="by chance", lw=1.2)
        largest = max(each["parameters"].get(name, {}).get("ks", 0.0) for each in biases for name in names)
        axis.set_ylim(0, 1.5 * largest or 1)
        axis.set_ylabel("KS distance [-]")
        legend(axis, 2)

    more = f" The {MOST_PARAMETERS} largest of {len(last)} are drawn." if len(last) > MOST_PARAMETERS else ""
    drawn.append(
        chart(
            "buffer-bias",
            "Bias.",
            "The Kolmogorov-Smirnov distance of each parameter's quantiles in the buffer from uniform ones: 0 is "
            f"without bias, and about 0.87 / √n comes by chance.{more}",
            bias,
        )
    )
    return charts(drawn)


def solving(past: Past) -> str:
    """The strategies, and the time and iterations of solves."""
    if not past.records:
        return absent(NOTHING)
    parts = []
    if past.decisions:
        rows = [
            (decision.family, label, _milliseconds(seconds), "chosen" if label == decision.strategy else "")
            for decision in past.decisions
            for label, seconds in decision.seconds.items()
        ]
        parts.append(
            table(
                "Strategies that were tried",
                ("family of systems", "strategy", "median time of a solve", "choice"),
                rows,
            )
        )
        parts += [paragraph(f"{decision.family}: {decision.reason}.") for decision in past.decisions]
    solved_by = past.summary.solved_by if past.summary and past.summary.solved_by else past.last.solved_by
    if total := sum(solved_by.values()):
        rows = [(name, str(num), _share(num, total)) for name, num in solved_by.items()]
        parts.append(
            table(
                "Training systems by the strategy that solved them, since this life of the run began",
                ("strategy", "systems", "share"),
                rows,
            )
        )
    if not np.isfinite(past.column("seconds_per_system")).any():
        reason = "the problem has none" if past.last.delivered else "no simulation is done yet"
        return "".join(parts) + absent(f"No linear system was solved for training: {reason}.")
    per_system = {name: _recent(past, name) for name in ("seconds_per_system", "iterations_per_system")}
    x = past.seconds

    def times(axis: Axes) -> None:
        at, values = per_system["seconds_per_system"]
        axis.plot(duration_axis(axis, x[at]), 1e3 * values, color=LINES[0])
        axis.set_ylim(bottom=0)
        axis.set_ylabel("time per system [ms]")

    def iterations(axis: Axes) -> None:
        at, values = per_system["iterations_per_system"]
        axis.plot(duration_axis(axis, x[at]), values, color=LINES[2])
        axis.set_ylim(bottom=0)
        axis.set_ylabel("iterations per system")

    over = "Mean over the training systems that were solved since the point before"
    drawn = [chart("solving-times", "Time of a solve.", f"{over}, all attempts included.", times)]
    if np.nanmax(past.column("iterations_per_system")) > 0:
        text = f"{over}: products with the matrix; 0 of a direct solve."
        drawn.append(chart("solving-iterations", "Iterations.", text, iterations))
    return "".join(parts) + charts(drawn)


def rollout(past: Past) -> str:
    """Errors of rollouts over their time."""
    found = [errors["rollout"] for _, errors in past.validations() if errors.get("rollout")]
    if not found:
        is_validated = next(past.validations(), None) is not None
        return absent(
            "There are no rollouts: the surrogate does not lead from states of a simulation to later ones."
            if is_validated
            else "There are none before the first validation."
        )
    last, first = found[-1], found[0]

    def errors(axis: Axes) -> None:
        axis.plot(first["steps"], first["relative_l2"], color=LINES[1], label="first validation", lw=1.2)
        axis.plot(last["steps"], last["relative_l2"], color=LINES[0], label="last validation")
        logarithmic(axis)
        axis.set_xlabel("steps of the simulation")
        axis.set_ylabel("relative L2 error [-]")
        whole_numbers(axis)
        legend(axis, 2)

    drawn = [
        chart(
            "rollout-errors",
            "Error.",
            "Mean relative L2 error of repeated steps, each from the prediction of the one before.",
            errors,
        )
    ]
    if last.get("correlation"):

        def correlation(axis: Axes) -> None:
            axis.plot(last["steps"], last["correlation"], color=LINES[2])
            axis.axhline(0.8, ls=":", color=LINES[-1], lw=1.2)
            axis.set_ylim(top=1.02)
            axis.set_xlabel("steps of the simulation")
            axis.set_ylabel("correlation with the truth [-]")
            whole_numbers(axis)

        kept = ""
        if last.get("lost") == 0:
            kept = " It stays above 0.8."
        elif last.get("correlation_time") is not None:
            kept = f" It stays above 0.8 for {digits(last['correlation_time'])} steps on average."
        drawn.append(
            chart(
                "rollout-correlation", "Correlation.", f"Mean correlation of prediction and solver.{kept}", correlation
            )
        )
    return charts(drawn)


def _recent(past: Past, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of records, and the mean of a column over the systems between them.

    The column holds means since a life of the run began. Records that do not count systems have the column as it is.
    """
    means, counts = past.column(name), np.array([sum(record.solved_by.values()) for record in past.records])
    numbers = np.flatnonzero(np.isfinite(means))
    numbers = numbers[thinned(len(numbers), BINS)]
    if not counts[numbers].any():
        return numbers, means[numbers]
    sums = means[numbers] * counts[numbers]
    gained, solved = np.diff(sums, prepend=0.0), np.diff(counts[numbers], prepend=0)
    is_new = solved < 0  # another life of the run
    gained, solved = np.where(is_new, sums, gained), np.where(is_new, counts[numbers], solved)
    return numbers[solved > 0], np.maximum(gained[solved > 0], 0.0) / solved[solved > 0]


def _share(num: int, total: int) -> str:
    """A share in percent, which is neither 0 nor 100 unless it is none or all."""
    return share_but(1 - num / total) if 2 * num > total else f"{digits(100 * num / total)} %"


def _milliseconds(seconds: float | None) -> str:
    return "failed, or was cut short" if seconds is None else f"{digits(1e3 * seconds)} ms"
