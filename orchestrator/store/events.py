"""The vocabulary of events.jsonl: what is recorded of a run.

docs/events.md has the same for readers. A program may rely on these names: one that goes, or means something else, is
a change of the format; new events and further keys are not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

KEYS = {
    "time": "when it was recorded: ISO 8601 with milliseconds, in UTC",
    "event": "its name, one of the above",
    "asked": "the number of workers that was asked for; null if the request was damaged",
    "before": "the number of workers before",
    "bytes": "resident memory of the worker",
    "cause": "why the run ended, in a line",
    "checkpoint": "step of the newest checkpoint, from which another learner goes on; null without any",
    "design": "the simulations that it is one of: `training` or `validation`",
    "error": "how the process died, in a line",
    "failed": "how many simulations of the design have failed with this one",
    "family": "name of the family of systems",
    "fault": "which process of Ray died, in a line",
    "host": "name of the driver's machine",
    "note": "the line",
    "penstock": "version of penstock",
    "pid": "process id, on the machine of the process",
    "reason": "why, in a line",
    "restarts": "how many times programs have been started again in this life of the run, with this one",
    "seconds": "for how long the worker has been silent",
    "simulation": "id of the simulation; null if it is not known",
    "sink": "its name in `monitor`",
    "step": "optimizer steps of the learner at its beginning",
    "strategy": "name of the strategy",
    "warning": "what is wrong although training goes on, and what to do",
    "why": "who asked for it, or why it was refused",
    "worker": "name of the solver worker, `solver-0` and so on",
    "workers": "the number of workers from now on",
}
"""What each key means, in every event that has it."""


@dataclass(frozen=True)
class Event:
    """What may happen."""

    about: str
    """What has happened, as a sentence."""
    keys: tuple[str, ...] = ()
    """What a line has besides `time` and `event`, in order."""


EVENTS = {
    "started": Event("The driver of the run began: a new run, or one that is resumed.", ("pid", "host", "penstock")),
    "worker started": Event("A solver worker is ready.", ("worker", "pid")),
    "worker silent": Event(
        "A worker has given nothing for longer than others take.", ("worker", "seconds", "simulation")
    ),
    "worker outgrown": Event("A worker has reached `solver.memory_mb` and is replaced.", ("worker", "pid", "bytes")),
    "worker died": Event(
        "A worker died, or was killed after a silence; its simulations are done again.", ("worker", "pid", "error")
    ),
    "worker retired": Event("A worker that was one too many has ended.", ("worker", "pid")),
    "workers scaled": Event("The number of workers has changed.", ("workers", "before", "why")),
    "scaling refused": Event("`penstock scale` asked for what is not possible.", ("asked", "why")),
    "learner died": Event("The learner's process died.", ("error", "checkpoint")),
    "learner restarted": Event("Another learner goes on in place of one that died.", ("pid", "step")),
    "simulation failed": Event(
        "A simulation failed: recorded of the first, the tenth, the hundredth and so on of each design.",
        ("design", "simulation", "reason", "failed"),
    ),
    "program restarted": Event(
        "An external program was started again after a fault, and the simulation retried: recorded of the first, the "
        "tenth, the hundredth and so on.",
        ("design", "simulation", "reason", "restarts"),
    ),
    "strategy chosen": Event("`strategy: auto` has chosen for a family of systems.", ("family", "strategy")),
    "solved again": Event(
        "The first system of a family that was solved only with a further strategy, or with a remark.",
        ("family", "reason"),
    ),
    "note": Event("The learner has something to say, once.", ("note",)),
    "warning": Event("Training goes on, but something is wrong with it, such as its loss.", ("warning",)),
    "sink failed": Event(
        "A program of `monitor` failed or did not answer; the run goes on, and it gets no more.", ("sink", "reason")
    ),
    "terminal closed": Event("The terminal of the run was closed; the run goes on."),
    "ray died": Event("A process of Ray on the driver's machine died, and the run with it.", ("fault",)),
    "ended": Event("The run has ended as it should, or was asked to end.", ("cause",)),
    "failed": Event("The run has failed.", ("cause",)),
}
"""Every event, by its name."""


def require_known(event: str, keys: Collection[str]) -> None:
    """Check an event before it is written.

    Args:
        event: its name.
        keys: what is recorded of it.

    Raises:
        ValueError: it is not in EVENTS, or not with these keys.
    """
    if event not in EVENTS:
        raise ValueError(f"there is no event {event!r} in EVENTS")
    if set(keys) != set(EVENTS[event].keys):
        raise ValueError(f"the event {event!r} has the keys {EVENTS[event].keys}, not {tuple(keys)}")
