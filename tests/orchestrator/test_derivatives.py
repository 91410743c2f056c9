"""Derivatives as tangents: what becomes of the plan of a run, and of the run as a whole."""

from contextlib import closing

import numpy as np

import penstock
from penstock.arrays.zarr_store import by_name
from penstock.learner.stream.stream import InProcessStream
from penstock.learner.surrogate import DifferentiatedSurrogate, Surrogate
from penstock.messages import Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.cli.predict import predict
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.run_store import RunStore
from tests.support.refusals import refusal

HEAT = {"name": "heat", "resolution": 9, "num_steps": 4, "derivatives": 2, "derivatives_as": "tangents"}
DARCY = {"name": "darcy", "resolution": 8, "medium": "log_normal", "derivatives": 2, "derivatives_as": "tangents"}


def config_of(problem, *, draw="samples", **training):
    return Config.model_validate(
        {
            "problem": problem,
            "model": {"name": "fno", "width": 4, "modes": 2, "layers": 1},
            "solver": {"strategy": "direct"},
            "buffer": {"capacity": 16, "watermark": 4, "draw": draw},
            "training": {"batch_size": 2, "stop_after": {"simulations": 8}, "device": "cpu", **training},
            "validation": {"simulations": 2},
        }
    )


def test_the_model_is_built_without_derivatives_and_batches_have_them():
    plan = resolve(config_of(HEAT))
    surrogate = plan.surrogate()
    assert isinstance(surrogate, DifferentiatedSurrogate) and surrogate.of_model.layout.shapes["targets"] == (1, 8, 8)
    assert plan.batch_layout.shapes["targets"] == (3, 8, 8) and plan.batch_layout.shapes["tangents"] == (2, 8, 8)
    assert type(resolve(config_of(HEAT | {"derivatives_as": "outputs"})).surrogate()) is Surrogate


def test_what_would_lose_the_tangents_is_refused():
    for draw in ("pairs", {"name": "windows", "inputs": 1, "outputs": 2}, "trajectories"):
        plan = resolve(config_of(HEAT, draw=draw))
        message = refusal(lambda plan=plan: plan.batch_layout)
        assert message.startswith("buffer.draw: ") and message.endswith("draw samples, or give derivatives as outputs")
    message = refusal(resolve(config_of(DARCY, compile=True)).surrogate)
    assert message.startswith("training.compile: torch.compile can't differentiate a model forwards")
    message = refusal(lambda: resolve(config_of(DARCY | {"swap": True})).problem)
    assert message == "problem.swap: derivatives of darcy are by its inputs: give them as outputs"


def test_a_run_reports_errors_of_derivatives_and_loads_as_a_function_of_the_inputs(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create(resolve(config_of(DARCY)).config)
    plan = resolve(folder.config())
    worker = make_worker(plan)
    with closing(InProcessStream()) as stream:
        learner = plan.learner(stream, RunStore(folder))
        for number, (design, count) in enumerate([("validation", 2), ("training", 8)]):
            stream.submit(Lease(number=number, simulations=tuple(range(count)), design=design), worker)
        learner.run()
    predict(folder, 2, tmp_path / "predictions")
    printed = capfd.readouterr().out
    names = [spec.name for spec in plan.problem.outputs]
    assert len(names) == 3 and all(f"    {name}: mean" in printed for name in names)
    loaded = penstock.load(folder.path)
    assert [entry["name"] for entry in loaded.card["inputs"]] == ["coefficient"]
    assert [entry["name"] for entry in loaded.card["outputs"]] == ["solution"]
    stored = RunStore(folder).read_validation(plan.problem.layout)
    named = by_name(stored.arrays, plan.problem.layout)
    assert {spec.name for spec in plan.problem.tangents} < named.keys()
    assert loaded(coefficient=named["coefficient"])["solution"].shape == np.shape(named["solution"])
