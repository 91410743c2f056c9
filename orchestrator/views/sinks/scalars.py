"""The numbers of a record by names, as programs like TensorBoard group them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.orchestrator.history.standing import flat
from penstock.record import Record


def scalars_of(record: Record) -> dict[str, float]:
    """The numbers of a record, without the errors.

    Args:
        record: the record.

    Returns:
        The numbers by name, without those that are not known.
    """
    bias = record.bias or {"parameters": {}}
    found = {
        "training/loss": record.loss,
        "training/learning_rate": record.learning_rate,
        "training/samples_per_s": record.trained_per_s,
        "training/reuse": record.reuse,
        "training/wait_seconds": record.learner_wait_seconds,
        "stream/samples": record.unique,
        "stream/samples_per_s": record.unique_per_s,
        "stream/failed_simulations": record.failed,
        "stream/blocked_seconds": record.solver_blocked_seconds,
        "stream/workers": record.workers,
        "buffer/samples": record.buffer_samples,
        "buffer/age_p95": bias.get("age_p95"),
        **{f"buffer/ks/{name}": stats["ks"] for name, stats in bias["parameters"].items()},
    }
    return _known(found)


def scalars_of_errors(errors: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a validation.

    Args:
        errors: `Errors.as_dict()`.

    Returns:
        The numbers by name: of a rollout the error at its end, and of constant outputs none.
    """
    own = {name: errors.get(name) for name in ("relative_l2", "h1", "vrmse")}
    found = {f"errors/{key.replace('.', '/')}": value for key, value in flat(own | errors.get("fields", {})).items()}
    if rollout := errors.get("rollout"):
        found["rollout/relative_l2"] = rollout["relative_l2"][-1]
        found["rollout/correlation_time"] = rollout["correlation_time"]
    return _known(found)


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None}
