"""The run in a few lines, its configuration and its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.orchestrator.history.standing import STATES
from penstock.orchestrator.views.numbers import digits, duration
from penstock.orchestrator.views.report.html import absent, facts, folded, paragraph, table
from penstock.orchestrator.views.report.past import Past

MOST_EVENTS = 200


def overview(past: Past) -> str:
    """Where the run stands."""
    found, last = past.standing, past.last
    parts = []
    parts += [paragraph(text, "warning") for text in past.damage]
    if last and last.warning:
        parts.append(paragraph(last.warning, "warning"))
    parts += [paragraph(str(silence), "warning") for silence in (last.silent if last else ())]
    values: dict[str, str | None] = {
        "state": f"{found.state}: {STATES[found.state]}",
        "remark": found.remark,
        "problem": found.problem,
        "model": found.model,
        "host": found.host,
    }
    if last:
        errors = last.validation["relative_l2"] if last.validation else None
        persistence = (last.validation or {}).get("persistence")
        values |= {
            "time of the run": duration(past.seconds[-1]),
            "time of training": duration(last.train_seconds),
            "simulations": f"{last.delivered} delivered, {last.failed} failed, {last.retried} retried",
            "samples": f"{last.unique} unique, {last.trained} trained"
            + (f" (reuse {digits(last.reuse)})" if last.reuse else ""),
            "steps": str(last.step),
            "training loss": None if last.loss is None else digits(last.loss),
            "relative L2 error": errors
            and ", ".join(
                f"{name} {digits(errors[name])}" for name in ("mean", "median", "p99", "max") if name in errors
            ),
            "if nothing changed in a step": persistence and f"mean {digits(persistence)}",
        }
    return "".join(parts) + facts("Where the run stands", values)


def configuration(past: Past) -> str:
    """The configuration, the versions and the machine."""
    run, versions = past.run, past.run.get("versions", {})
    machine = run.get("machine", {})
    ran = {
        "penstock": run.get("penstock"),
        **versions,
        "host": run.get("host"),
        "processor": machine.get("processor"),
        "cores": _text(machine.get("cores")),
        "memory": f"{machine['memory_bytes'] / 2**30:.1f} GiB" if "memory_bytes" in machine else None,
        "learner's device": run.get("learner", {}).get("device"),
    }
    parts = [facts("Versions and machine", {name: _text(value) for name, value in ran.items()})]
    config = past.standing.config
    if not config:
        return "".join(parts) + absent("config.yaml can't be read.")
    rows = [(key, _text(value) or "null") for key, value in config.items()]
    parts.append(folded(f"configuration, {len(rows)} keys", table("config.yaml", ("key", "value"), rows)))
    return "".join(parts)


def events(past: Past) -> str:
    """The events, the newest last."""
    if not past.events:
        return absent("Nothing is recorded in events.jsonl.")
    rows = [
        (str(event.get("time", "-")).partition(".")[0].replace("T", " "), str(event.get("event", "-")), _details(event))
        for event in past.events[-MOST_EVENTS:]
    ]
    title = f"{len(rows)} events" if len(rows) == len(past.events) else f"the last {len(rows)} of {len(past.events)}"
    return folded(title, table("events.jsonl", ("time, UTC", "event", "details"), rows))


def _details(event: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("time", "event"))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
