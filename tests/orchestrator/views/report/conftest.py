"""A run that is trained in a second, with records of two lives whose sums are known."""

import json
from contextlib import closing

import pytest

from penstock.learner.stream.stream import InProcessStream
from penstock.messages import Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.run_store import RunStore
from penstock.record import Bottleneck, Record

VALUES = {
    "problem": {"name": "darcy", "resolution": 16},
    "model": {"name": "fno", "width": 4, "modes": 2, "layers": 1},
    "solver": {"strategy": "direct"},
    "buffer": {"capacity": 20, "watermark": 4},
    "validation": {"simulations": 5},
    "training": {"batch_size": 2, "stop_after": {"simulations": 6}, "device": "cpu"},
}
BOTTLENECK = Bottleneck(side="none", certainty=1.0, sentence="none limits")


def record(number: int, life: int) -> Record:
    """The record of a second of a life of 20 s; the second life goes on from second 18 of the first."""
    done = number + 18 * life
    error = 1.0 / (1 + done)
    return Record(
        state="training",
        step=10 * done,
        progress=done / 40,
        unique=8 * done,
        trained=20 * done,
        buffer_samples=min(20, done),
        buffer_capacity=20,
        loss=2 * error,
        bias={"parameters": {"mode": {"mean": 0.5, "spread": 0.3, "ks": 0.1}}, "steps": {}, "age_p95": 9.0},
        validation={
            "relative_l2": {"mean": error, "median": error, "p99": 2 * error, "max": 3 * error},
            "vrmse": error,
            "rollout": {
                **{"steps": [1, 2], "relative_l2": [error, 2 * error], "correlation": [0.9, 0.7]},
                **{"correlation_time": 1.5, "lost": 0.5},
            },
        }
        if number % 5 == 0
        else None,
        learner_wait_seconds=0.25 * done,
        solver_blocked_seconds=0.5 * done,
        train_seconds=float(done),
        elapsed_seconds=float(number),
        delivered=8 * done,
        unique_per_s=8.0,
        trained_per_s=20.0,
        iterations_per_system=3.0,
        seconds_per_system=0.01,
        workers=2,
        bottleneck=BOTTLENECK,
        solved_by={"direct": 8 * number},
        worker_seconds=2.0 * number,
        solver_seconds=1.0 * number,
        solver_unleased_seconds=0.5 * number,
        aside_seconds=0.125 * number,
        energy_joules=90.0 * number,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run's folder, in the folder with runs/latest."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("run"))
        plan = resolve(Config.model_validate(VALUES))
        folder = RunFolder.create(plan.config)
        worker = make_worker(plan)
        with closing(InProcessStream()) as stream:
            learner = plan.learner(stream, RunStore(folder))
            for number, (design, count) in enumerate([("validation", 5), ("training", 6)]):
                stream.submit(Lease(number=number, simulations=tuple(range(count)), design=design), worker)
            learner.run()
    folder.write("run.json", {"state": "ended", "cause": "samples", "learner": {"device": "x", "cores": 3, "gpus": 1}})
    choice = {
        "family": "darcy",
        "number": 0,
        "strategy": "cg",
        "seconds": {"cg": 0.01, "direct": None},
        "reason": "<b>",
    }
    folder.write("strategies.json", {"darcy": choice})
    folder.event("started", pid=1, host="here", penstock="0")
    lines = [record(number, life).to_json() for life in (0, 1) for number in range(1, 21)]
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
