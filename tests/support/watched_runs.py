"""Records of a made run, for what shows runs."""

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.sinks.sinks import Sinks
from penstock.record import Record
from penstock.status import WorstCase

LAYOUT = Layout((FieldSpec(name="a", on=Grid((6, 5))),), (FieldSpec(name="u", on=Grid((6, 5))),))


class Run:
    """A run folder, and the lines that its user reads, for one `Sinks` after the other."""

    def __init__(self, path):
        path.mkdir(parents=True)
        self.folder, self.said = RunFolder(path), []

    def sinks(self, *monitor):
        config = Config(problem="darcy", training={"stop_after": {"steps": 1}}, monitor=list(monitor))
        return Sinks(config, self.folder, LAYOUT, self.said.append)


def errors(value):
    statistics = {"mean": value, "median": value / 2, "p99": 2 * value, "max": 3 * value}
    of_field = {"relative_l2": statistics, "h1": None, "vrmse": 1.5 * value}
    rollout = {"relative_l2": [value, 4 * value], "correlation_time": None}
    return {**of_field, "fields": {"u": of_field}, "constants": {"w": 1.0}, "rollout": rollout}


def record(step, **others):
    counts = {"unique": 8, "trained": 8 * step, "loss": 1 / (1 + step), "learning_rate": 0.01}
    times = {"time": 1.8e9 + step, "elapsed_seconds": float(step), "train_seconds": float(step)}
    return Record(step=step, **counts | times | others)


def worst_case(step):
    values = np.random.default_rng(step).normal(size=(2, 1, 1, 6, 5)).astype(np.float32)
    arrays = {"fields": values[0], "targets": values[1]}
    return WorstCase(step=step, row=3, arrays=arrays, predictions={"targets": 1.1 * values[1]}, errors={"u": 0.1})
