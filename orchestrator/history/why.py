"""The first cause of a failure: which process, and what followed from it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock.errors import one_line, shortened
from penstock.orchestrator.history.merged_logs import Line, LogFile, stamp_of
from penstock.orchestrator.launch.commands import resume_command
from penstock.orchestrator.resources.memory import size
from penstock.orchestrator.run.logs import log_of_death
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.record import in_words
from penstock.status import kind_of

TRACEBACK = "Traceback (most recent call last):"
RAISED = re.compile(r"[A-Za-z_][\w.]*(?:: |$)")  # the last line of a traceback
ALIKE_CHARACTERS = 80  # of two texts, numbers left out, that are about the same fault
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
FULL_BYTES = 10**6  # a disk with less than this free is full
ENDED = re.compile(r"penstock (train|resume) ends$")  # before the traceback of a driver
SAID = "penstock: "  # before the cause of a failure on standard error
GIVEN_UP = ("its worker died", "took longer than")  # reasons of a simulation that failed by the death of its worker
ENDS = ("ended", "failed")
TEXTS = {
    "worker died": "error",
    "learner died": "error",
    "simulation failed": "reason",
    "program restarted": "reason",
    "ray died": "fault",
    "warning": "warning",
}
"""Events that something went wrong, and the key that says what."""
COUNTS = {"simulation failed": "failed", "program restarted": "restarts"}
"""Events of which some are recorded only, and the key that counts all."""
FOLLOWED = {
    "worker died": ("another worker died", "{} more workers died"),
    "worker started": ("another worker was started", "{} more workers were started"),
    "worker silent": ("a worker fell silent", "workers fell silent {} times"),
    "simulation failed": ("more simulations failed", "more simulations failed"),
    "program restarted": ("a program was started again", "programs were started again"),
    "learner died": ("the learner died once more", "the learner died {} more times"),
    "learner restarted": ("another learner took its place", "others took its place {} times"),
    "warning": ("a warning came", "{} warnings came"),
    "ray died": ("Ray ended", "Ray ended"),
}
"""Events that may follow from the first cause: of one, and of several."""
Events = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Raised:
    """A traceback in a log."""

    first: Line
    text: str
    """What was raised: its last line."""


def why(folder: RunFolder) -> str:
    """Say in a paragraph why a run has failed.

    Args:
        folder: the run folder; nothing else is asked.

    Returns:
        The paragraph: which process it was and what came first, what followed from it, and where the traceback is. Of
        a run that has not failed, how it stands and what went wrong in it.

    Raises:
        PenstockError: run.json is damaged.
    """
    run, name, life = folder.read("run.json"), folder.path.name, _last_life(folder)
    state = run.get("state")
    if state is None:
        return f"{name} holds no run: it ended before it began; `penstock logs` shows what there is."
    if state == "submitted":
        return f"{name} waits to begin: `penstock jobs` says where its job is."
    if state == "running" and folder.is_running():
        return f"{name} is running. {_troubles(life)}"
    if state in ("ended", "stopped"):
        return f"{name} has not failed, it {state}: {in_words(str(run.get('cause')))}. {_troubles(life)}"
    if cause := run.get("cause") or _last_words(folder, _since(life)):
        return f"{name} failed{_at(life[-1:])}. {_chain(folder, life, one_line(cause))}"
    return f"{name} is dead. {_without_a_word(folder, run, life)}"


def _chain(folder: RunFolder, life: Events, cause: str) -> str:
    """The first cause of an end, and what followed from it."""
    ending, since = _sentence(f"the run ended: {shortened(cause)}"), _since(life)
    match = next((event for event in life if _is_alike(_text(event), cause)), None)
    if match is not None and (death := _death_behind(match, life)) is not None:
        match = death
    if match is not None:
        followed = life[life.index(match) + 1 :]
        first = f"First, {_clause(match)} at {match['time']}: {_text(match)}."
        return f"{first} {_consequences(followed)}{ending} {_log_of(folder, match, since)}"
    if any(os.strerror(number) in cause for number in DISK_FAULTS):
        first = f"First, the disk refused what was written: {_sentence(cause)} {_disk(folder)}"
        raised = [*_raised(folder, "learner", since), *_raised(folder, "driver", since)]
        return " ".join(filter(None, (first, _place(raised, cause, is_needed=True))))
    for process in _processes(folder):
        raised = _raised(folder, process, since)
        if _place(raised, cause, is_needed=True):
            who = "the learner" if process == "learner" else process.replace("learner-", "learner rank ")
            warned = [event for event in life if event["event"] == "warning"]
            before = f"{_clause(warned[0])} at {warned[0]['time']}: {_text(warned[0])}; then " if warned else ""
            first = _sentence(f"First, {before}{who} raised an error: {shortened(cause)}")
            return f"{first} The run ended with it. {_place(raised, cause)}"
    first = _sentence(f"The driver ended the run, and nothing else had gone wrong that explains it: {cause}")
    return f"{first} {_place(_raised(folder, 'driver', since), cause) or _tail(folder, 'driver')}"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _text(event: dict[str, Any]) -> str:
    return str(event.get(TEXTS.get(event["event"], ""), "")).rstrip(".")


def _is_alike(text: str, cause: str) -> bool:
    """Whether a cause repeats a text, whatever the numbers in it are."""
    kind = kind_of(text)[:ALIKE_CHARACTERS].strip()
    return bool(kind) and kind in kind_of(cause)


def _death_behind(event: dict[str, Any], life: Events) -> dict[str, Any] | None:
    """The first death of a worker in a simulation that failed because of it."""
    if event["event"] != "simulation failed":
        return None
    place = re.compile(rf"in simulation {event.get('simulation')}\b")
    deaths = (each for each in life if each["event"] == "worker died" and place.search(_text(each)))
    return next(deaths, None) if _text(event).startswith(GIVEN_UP) else None


def _clause(event: dict[str, Any]) -> str:
    """Which process an event is about, and what became of it."""
    match event["event"]:
        case "worker died":
            return f"{event.get('worker')} (pid {event.get('pid')}) died"
        case "learner died":
            return "the learner died"
        case "simulation failed" | "program restarted" as name:
            design = event.get("design")
            place = "" if design == "training" else f" of the {design} set"
            which = f"simulation {event.get('simulation')}{place}"
            return f"{which} failed" if name == "simulation failed" else f"the program was restarted in {which}"
        case "ray died":
            return "a process of Ray died"
    return "the learner warned"


def _consequences(followed: Events) -> str:
    """What followed, as the beginning of a sentence."""
    counts = Counter(event["event"] for event in followed)
    clauses = [
        texts[0] if counts[event] == 1 else texts[1].format(counts[event])
        for event, texts in FOLLOWED.items()
        if counts[event]
    ]
    if failed := [event.get("failed", 1) for event in followed if event["event"] == "simulation failed"]:
        clauses = [f"{each} (at least {max(failed)} in all)" if "simul" in each else each for each in clauses]
    return f"From it followed: {', '.join(clauses)}; then " if clauses else "At once "


def _troubles(life: Events, nothing: str = "Nothing went wrong in it.") -> str:
    """What went wrong in a run before its end, or so far; `nothing` if nothing did."""
    troubles = []
    for name in TEXTS:
        if found := [event for event in life if event["event"] == name]:
            most = max(len(found), *(event.get(COUNTS.get(name), 0) for event in found))
            at_least = "at least " if name in COUNTS else ""
            number = "" if most == 1 else f", as the first of {at_least}{most} such events"
            troubles.append(f"{_clause(found[0])} at {found[0]['time']}{number}: {shortened(_text(found[0]))}")
    return f"Before that {'; '.join(troubles)}." if troubles else nothing


def _log_of(folder: RunFolder, event: dict[str, Any], since: float) -> str:
    """Where the traceback of an event is, or how the log of its process ends."""
    if event["event"] == "worker died":
        raised = _raised(folder, str(event.get("worker")), since)
        return _place(raised, _text(event), is_needed=True) or _tail(folder, str(event.get("worker")))
    if event["event"] == "learner died":
        return _tail(folder, log_of_death(_text(event)).partition(".")[0])
    if event["event"] in COUNTS:
        begin = f"simulation {event.get('simulation')} of design {event.get('design')!r}"
        begin += " failed" if event["event"] == "simulation failed" else ":"
        for process in _processes(folder):
            if line := next((x for x in _lines(folder, process) if begin in x.text and x.time >= since), None):
                has_traceback = line.text.endswith(begin)  # else its reason follows, which says all
                what = "Its traceback" if has_traceback else "It has no traceback; the log says it"
                return f"{what}: logs/{line.path.name}, line {line.number}."
        return "It has no traceback: no code raised an error."
    return _place(_raised(folder, "driver", since), _text(event))


def _place(raised: Sequence[Raised], cause: str, *, is_needed: bool = False) -> str:
    """Where the traceback of a cause is.

    Args:
        raised: the tracebacks of a log.
        cause: the cause.
        is_needed: whether it has to be about the cause; else it may be the last one.
    """
    about = [each for each in raised if _is_alike(each.text.partition(": ")[2] or each.text, cause)]
    if not (found := about[:1] or ([] if is_needed else raised[-1:])):
        return ""
    first = found[0].first
    return f"Its traceback: logs/{first.path.name}, line {first.number}."


def _raised(folder: RunFolder, process: str, since: float) -> list[Raised]:
    """The tracebacks in the log of a process, of this life of the run."""
    found, first = [], None
    for line in _lines(folder, process):
        if line.text.strip() == TRACEBACK:
            first = line
        elif first is not None and not line.text.startswith((" ", "\t")) and RAISED.match(line.text):
            if first.time >= since:
                found.append(Raised(first, line.text))
            first = None
    return found


def _lines(folder: RunFolder, process: str) -> Iterator[Line]:
    for name in (f"{process}.log.1", f"{process}.log"):
        yield from LogFile(folder.logs / name).lines()


def _processes(folder: RunFolder) -> list[str]:
    """The processes that have a log, learners first, without driver and job."""
    names = {path.name.partition(".")[0] for path in folder.logs.glob("*.log")} - {"driver", "job"}
    return sorted(names, key=lambda name: (not name.startswith("learner"), len(name), name))


def _tail(folder: RunFolder, process: str) -> str:
    """How a log ends, of a process that raised nothing."""
    if (last := _last_line(folder, process)) is None:
        return f"It left no traceback, and its log, logs/{process}.log, is empty: it was ended from outside."
    place = f"logs/{last.path.name}, line {last.number}"
    return _sentence(f"It left no traceback; its log ends ({place}): {shortened(one_line(last.text))}")


def _last_words(folder: RunFolder, since: float) -> str:
    """What a driver said at its end that could not record it; "" if it said nothing."""
    if (line := _last_line(folder, "job")) is not None and line.text.startswith(SAID):
        return line.text.removeprefix(SAID)
    is_of_driver, last = False, None
    for line in _lines(folder, "driver"):  # other commands on the folder leave their tracebacks there too
        is_of_driver = bool(ENDED.search(line.text)) if line.is_stamped else is_of_driver
        last = line if line.text.strip() else last
    has_raised = is_of_driver and last.time >= since and RAISED.match(last.text)
    return last.text.partition(": ")[2] if has_raised else ""


def _last_line(folder: RunFolder, process: str) -> Line | None:
    """The last line of a log that says something."""
    last = None
    for line in _lines(folder, process):
        last = line if line.text.strip() else last
    return last


def _since(life: Events) -> float:
    """When a life of the run began; what came before is of others."""
    return datetime.fromisoformat(life[0]["time"]).timestamp() if life and life[0]["event"] == "started" else 0.0


def _without_a_word(folder: RunFolder, run: dict[str, Any], life: Events) -> str:
    """What is known of a driver that is gone."""
    times = [path.stat().st_mtime for path in (folder.metrics, folder.events) if path.exists()]
    last = f"; its last sign of life was at {stamp_of(max(times))}" if times else ""
    host = f" on {run['host']}" if run.get("host") else ""
    full = _disk(folder)
    return (
        f"Its driver (pid {run.get('driver_pid')}{host}) is gone without a word: it was killed (kill -9, or the kernel "
        f"where memory ran out), or the machine went down{last}. {full + ' ' if full else ''}"
        f"{_troubles(life, 'Nothing had gone wrong before.')} "
        f"{_tail(folder, 'driver')} Go on with: {resume_command(folder)}"
    )


def _disk(folder: RunFolder) -> str:
    """What is to be said of the disk of the folder."""
    try:
        free = shutil.disk_usage(folder.path).free
    except OSError:
        return ""
    return f"Its disk is full: {size(free)} are free." if free < FULL_BYTES else f"Its disk has {size(free)} free now."


def _at(events: Events) -> str:
    return f" at {events[0]['time']}" if events and events[0]["event"] == "failed" else ""


def _last_life(folder: RunFolder) -> list[dict[str, Any]]:
    """The events since the last start.

    A folder of an earlier version has no `started`, but it has ends.
    """
    life: list[dict[str, Any]] = []
    for line in LogFile(folder.events).lines():
        try:
            event = json.loads(line.text)
            event["time"] = stamp_of(datetime.fromisoformat(event["time"]).timestamp())
            is_readable = isinstance(event["event"], str)
        except (ValueError, TypeError, KeyError):
            is_readable = False
        if not is_readable:  # a line that is damaged: the others tell enough
            continue
        if event["event"] == "started" or (life and life[-1]["event"] in ENDS):
            life = []
        life.append(event)
    return life
