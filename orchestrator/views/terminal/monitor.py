"""The live view of a run, for `train` and for `monitor` in a second terminal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from penstock.errors import PenstockError
from penstock.orchestrator.launch.commands import program, resume_command
from penstock.orchestrator.store.failures import failures
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.card import systems_solved
from penstock.orchestrator.views.numbers import digits, duration, share_but
from penstock.orchestrator.views.terminal.progress import Bar, Beside, Pairs, words
from penstock.orchestrator.views.terminal.screen import Form, Screen, Spot
from penstock.record import Record, Summary, in_words

TAIL_BYTES = 65536  # of metrics.jsonl, read first; a record takes a few kB
MISSING = "what is missing may bias"


class View:
    """Shows records as they come.

    On a terminal one table stays in place; elsewhere there is one line every 10 s. Scripts get every record.

    Args:
        screen: where to print.
        title: title of the table.
    """

    def __init__(self, screen: Screen, title: str):
        self._screen = screen
        self._title = title
        self._spot = Spot(screen)

    @contextmanager
    def shown(self):
        """Within the block the view is shown; yields itself."""
        with self._spot.shown():
            yield self

    def show(self, record: Record) -> None:
        """Show a record."""
        self._screen.give("record", record.to_json())
        self._spot.put(lambda: _table(self._title, record), lambda: _line(record))


def tell_end(screen: Screen, folder: RunFolder, arguments: str = "") -> None:
    """Print how a run has ended; for scripts, its summary.

    Args:
        screen: where to print.
        folder: the run folder.
        arguments: what follows the names of the commands to type next.
    """
    if summary := folder.read("summary.json"):
        screen.give("summary", summary)
    if screen.form is Form.PEOPLE:
        for line in summary_lines(folder, arguments):
            screen.say(line)


def summary_lines(folder: RunFolder, arguments: str = "") -> list[str]:
    """The end of a run in a few lines, with the commands to type next.

    Args:
        folder: the run folder.
        arguments: what follows the commands' names.

    Returns:
        The lines.
    """
    summary = Summary.from_json(written) if (written := folder.read("summary.json")) else None
    if summary is None:
        return [f"stopped before there was anything to sum up; go on with: {resume_command(folder)}"]
    elapsed, of_training = duration(summary.elapsed_seconds), duration(summary.train_seconds)
    lines = [
        f"ended {elapsed} after its start or last resume, {of_training} of training in all: {in_words(summary.cause)}"
    ]
    if summary.validation:
        lines.append(
            f"validation relative L2 error over {summary.validation['simulations']} simulations: "
            + statistics(summary.validation["relative_l2"])
        )
        lines += explained_lines(summary.validation)
        if reasons := summary.validation.get("failed_reasons"):  # absent from a summary of an earlier penstock
            num_failed, num_delivered = summary.validation["failed"], summary.validation["simulations"]
            lines.append(f"validation: {failures(num_failed, num_delivered, reasons)}; {MISSING} the errors")
    lines.append(
        f"{summary.delivered} simulations delivered, {summary.failed} failed, {summary.retried} retried; "
        f"{summary.unique} unique samples, {summary.trained} trained (reuse {_reuse(summary.reuse)})"
        + (f", {summary.dropped} second copies dropped" if summary.dropped else "")
    )
    if len(summary.solved_by) > 1 and "auto" not in summary.solved_by:
        lines.append(systems_solved(summary.solved_by))
    if summary.failed_reasons:
        of_all = failures(summary.failed, summary.delivered, summary.failed_reasons)
        lines.append(f"{of_all}; {MISSING} the surrogate")
    if summary.bottleneck:
        lines.append(summary.bottleneck.sentence)
    if summary.warning:
        lines.append(summary.warning)
    lines.append(f"run folder: {folder.path}")
    lines += [f"next: {program()} {command}{arguments}" for command in ("report", "export", "predict")]
    return lines


def statistics(errors: Mapping[str, float]) -> str:
    """The mean, 99th percentile and maximum of errors, separated by commas."""
    return ", ".join(f"{name} {digits(errors[name])}" for name in ("mean", "p99", "max"))


def explained_lines(validation: Mapping[str, Any]) -> list[str]:
    """What is explained, what else the errors tell, and constant outputs.

    Args:
        validation: errors as they were recorded; those of an earlier penstock may lack entries.

    Returns:
        The lines.
    """
    lines = []
    if "vrmse" in validation:
        left = validation["vrmse"] ** 2
        explained = f"{share_but(left)} of the variance is explained"
        lines.append(f"VRMSE {_vrmse(validation)}: {explained if left < 1 else 'no better than predicting the mean'}")
    if persistence := validation.get("persistence"):
        better = "" if validation["relative_l2"]["mean"] < persistence else ", which the surrogate does not beat"
        lines.append(f"mean error of the forecast that nothing changes in a step: {digits(persistence)}{better}")
    if rollout := validation.get("rollout"):
        lines.append(_of_rollouts(rollout))
    if validation.get("constants"):
        lines.append(f"constant outputs, left out of all errors: {_constants(validation)}")
    return lines


def monitor(folder: RunFolder, screen: Screen) -> int:
    """Follow a run until it ends, by its folder alone.

    A finished run is shown as it ended.

    Args:
        folder: the run folder.
        screen: where to print.

    Returns:
        The exit code.

    Raises:
        PenstockError: there is no run, or its driver has died.
    """
    view, shown, is_told = View(screen, folder.path.name), None, False
    with view.shown():
        while screen.has_reader:
            run = folder.read("run.json")
            if not run:
                raise PenstockError(f"{folder.path} holds no run: it ended before it began")
            record = last_record(folder)
            if record and record != shown:
                view.show(record)
                shown = record
            if run["state"] in ("ended", "failed", "stopped"):
                break
            if run["state"] == "submitted":
                if not is_told:
                    is_told = True
                    screen.tell("the run was submitted and waits to begin: see `penstock jobs`")
                time.sleep(1.0)
                continue
            if not folder.is_running():
                raise PenstockError(
                    f"the run's driver (pid {run['driver_pid']}) is gone without a word; go on with: "
                    f"{resume_command(folder)}",
                    exit_code=1,
                )
            time.sleep(1.0)
        else:  # a view that nobody sees ends, and the run goes on
            return 0
    if run["state"] == "failed":
        screen.fail(f"the run failed: {run['cause']}")
        screen.drain()
        return 1
    tell_end(screen, folder, f" {os.path.relpath(folder.path)}")
    screen.drain()
    return 0


def last_record(folder: RunFolder) -> Record | None:
    """The last record of metrics.jsonl, before lines that are none; None without any.

    A crash of the machine may leave a part of one.

    Args:
        folder: the run folder.

    Raises:
        PenstockError: the file can't be read.
    """
    try:
        with folder.metrics.open("rb") as file:
            end, num_bytes = file.seek(0, os.SEEK_END), TAIL_BYTES
            while True:
                start = file.seek(max(0, end - num_bytes))
                lines = file.read(end - start).split(b"\n")
                for line in reversed(lines[1 if start else 0 : -1]):  # the first may be a part, and the last has no end
                    with suppress(ValueError, TypeError, KeyError, AttributeError):
                        return Record.from_json(json.loads(line))
                if not start:
                    return None
                num_bytes *= 8
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PenstockError(f"{folder.metrics} can't be read: {error.strerror}") from error


def _line(record: Record) -> str:
    troubles = _troubles(record)
    parts = [
        f"{duration(record.elapsed_seconds)} {record.state}",
        *([_words(record)] if record.ahead else []),
        f"simulations {record.delivered}" + (f" ({troubles})" if troubles else ""),
        f"samples/s {_rates(record)}",
        f"buffer {record.buffer_samples}/{record.buffer_capacity}",
    ]
    if record.dropped:
        parts.append(f"dropped {record.dropped} second copies")
    if record.iterations_per_system is not None:
        parts.append(f"iterations {digits(record.iterations_per_system)}/system")
    if record.loss is not None:
        parts.append(f"step {record.step} loss {digits(record.loss)}")
    if record.validation:
        parts.append(f"error {digits(record.validation['relative_l2']['mean'])}")
        if "vrmse" in record.validation:  # absent from records of an earlier penstock
            parts.append(f"VRMSE {digits(record.validation['vrmse'])}")
    parts.append(f"learner wait {digits(record.learner_wait_seconds)} s")
    parts.append(f"solver blocked {digits(record.solver_blocked_seconds)} s")
    if record.bottleneck:
        parts.append(record.bottleneck.first_words)
    return " | ".join([*parts, *_warnings(record)])


def _warnings(record: Record) -> list[str]:
    """Warnings about the loss and about workers."""
    return [*([record.warning] if record.warning else []), *map(str, record.silent)]


def _table(title: str, record: Record) -> Panel:
    simulations = ", ".join(filter(None, (f"{record.delivered} delivered", _troubles(record))))
    left = (
        ("simulations", simulations),
        ("samples/s", _rates(record)),
        ("reuse", f"{_reuse(record.reuse)} trained / unique"),
        ("buffer", f"{record.buffer_samples} of {record.buffer_capacity} samples"),
        ("dropped", f"{record.dropped} second copies of samples"),
        ("stream bias", _bias(record)),
        ("solves", _solves(record)),
        ("solver blocked", f"{digits(record.solver_blocked_seconds)} s, {record.workers} worker(s)"),
    )
    validation = record.validation or {}
    errors, h1 = validation.get("relative_l2"), validation.get("h1")
    right = (
        ("step", f"{record.step}"),
        ("training loss", "-" if record.loss is None else digits(record.loss)),
        ("learning rate", f"{record.learning_rate:.1e}"),
        ("validation error", f"{digits(errors['mean'])} mean" if errors else "-"),
        ("", f"{digits(errors['p99'])} p99, {digits(errors['max'])} max" if errors else ""),
        ("", f"{digits(h1['mean'])} mean in H1" if h1 else ""),
        ("VRMSE", _vrmse(validation) if "vrmse" in validation else "-"),
        *([("rollouts", _last_of_rollouts(validation["rollout"]))] if validation.get("rollout") else []),
        *([("constant", _constants(validation))] if validation.get("constants") else []),
        ("learner wait", f"{digits(record.learner_wait_seconds)} s"),
    )
    columns = Beside(Pairs(left), Pairs(right))
    head = Text(f"{record.state}  {duration(record.elapsed_seconds)}", style="bold")
    ahead = record.ahead  # absent from records of an earlier penstock
    bar = Bar(ahead.done, ahead.total, _words(record)) if ahead else Bar(record.progress, 1.0, "")
    warnings = [Text(warning, style="yellow") for warning in _warnings(record)]
    bottleneck = [Text(), Text(record.bottleneck.sentence)] if record.bottleneck else []
    return Panel(
        Group(head, bar, *warnings, Text(), columns, *bottleneck),
        title=title,
        title_align="left",
        width=100,
    )


def _words(record: Record) -> str:
    return words(record.ahead, is_over=record.state == "ended")


def _troubles(record: Record) -> str:
    troubles = {"failed": record.failed, "retried": record.retried}
    return ", ".join(f"{count} {outcome}" for outcome, count in troubles.items() if count)


def _vrmse(validation: Mapping[str, Any]) -> str:
    """The VRMSE of the whole output, and of the worst of several fields."""
    fields = {name: errors["vrmse"] for name, errors in validation["fields"].items()}
    worst = max(fields, key=fields.__getitem__)
    return digits(validation["vrmse"]) + (f", worst {digits(fields[worst])} of {worst}" if len(fields) > 1 else "")


def _last_of_rollouts(rollout: Mapping[str, Any]) -> str:
    line = f"{digits(rollout['relative_l2'][-1])} after {rollout['steps'][-1]} steps"
    time = rollout["correlation_time"]
    return line if time is None else f"{line}, correlated for {digits(time)}"


def _of_rollouts(rollout: Mapping[str, Any]) -> str:
    steps, errors = rollout["steps"], rollout["relative_l2"]
    first, last = (f"{digits(errors[i])} after {steps[i]}" for i in (0, -1))
    line = f"rollouts: relative L2 error {first}, {last} steps"
    if rollout["correlation_time"] is None:
        return line
    if rollout["lost"] == 0:
        return f"{line}; the correlation stays above 0.8"
    return (
        f"{line}; the correlation is above 0.8 for {digits(rollout['correlation_time'])} steps, and "
        f"{100 * rollout['lost']:.0f} % of them lose it"
    )


def _constants(validation: Mapping[str, Any]) -> str:
    constants = [f"{name} = {digits(value)}" for name, value in validation["constants"].items()]
    return ", ".join(constants[:3]) + (f" and {len(constants) - 3} more" if len(constants) > 3 else "")


def _rates(record: Record) -> str:
    seconds = record.train_seconds
    if record.state == "ended" and seconds:  # the last seconds of a run are validation and a checkpoint
        return f"{digits(record.unique / seconds)} unique, {digits(record.trained / seconds)} trained"
    return f"{digits(record.unique_per_s)} unique, {digits(record.trained_per_s)} trained"


def _solves(record: Record) -> str:
    if record.iterations_per_system is None:
        return "-"
    iterations, milliseconds = digits(record.iterations_per_system), digits(1e3 * record.seconds_per_system)
    return f"{iterations} iterations, {milliseconds} ms per system"


def _bias(record: Record) -> str:
    parameters = record.bias and record.bias["parameters"]
    if not parameters:
        return "-"
    return f"{digits(max(bias['ks'] for bias in parameters.values()))} KS distance"


def _reuse(reuse: float | None) -> str:
    return "-" if reuse is None else digits(reuse)
