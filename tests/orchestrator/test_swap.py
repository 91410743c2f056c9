"""Inverse maps: a run whose problem has its roles swapped, from the stream to the exported card."""

from contextlib import closing

import numpy as np
import pytest
import yaml

from penstock.learner.stream.stream import InProcessStream
from penstock.messages import Lease, whole_simulations
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.cli.export import export
from penstock.orchestrator.cli.generate import generate
from penstock.orchestrator.cli.predict import predict
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.run_store import RunStore
from tests.support.refusals import refusal

NO_INPUTS = """
from penstock.geometry import Grid
from penstock.layout import FieldSpec
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import Problem


class NoInputs(Problem):
    '''A field from nothing.'''

    space = ParameterSpace()
    inputs = ()
    outputs = (FieldSpec(name="u", on=Grid((8, 8))),)

    def simulate(self, parameters, solve):
        raise NotImplementedError
"""


def config_of(problem, **sections):
    values = {
        "problem": problem,
        "model": {"name": "fno", "width": 4, "modes": 2, "layers": 1},
        "solver": {"strategy": "direct"},
        "buffer": {"capacity": 20, "watermark": 4},
        "validation": {"simulations": 3},
        "training": {"batch_size": 2, "stop_after": {"simulations": 6}, "device": "cpu"},
    }
    return Config.model_validate(values | sections)


def samples_of(config, design="training"):
    worker = make_worker(resolve(config))
    chunks = list(worker.stream(Lease(number=0, simulations=(0, 1), design=design)))
    rows, simulations, _ = whole_simulations(chunks)
    assert simulations.tolist() == [0, 1]
    return rows


def test_a_swapped_problem_has_the_same_samples_with_other_roles():
    options = {"name": "darcy", "resolution": 8}
    plain, swapped = samples_of(config_of(options)), samples_of(config_of(options | {"swap": True}))
    np.testing.assert_array_equal(swapped["fields"], plain["targets"])
    np.testing.assert_array_equal(swapped["targets"], plain["fields"])


def test_a_swapped_darcy_is_trained_exported_and_predicted(tmp_path, monkeypatch, capfd):
    """`config.yaml` and the card say so, and inputs and outputs are named as the run had them."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create(resolve(config_of({"name": "darcy", "resolution": 8, "swap": True})).config)
    assert yaml.safe_load((folder.path / "config.yaml").read_text())["problem"]["swap"] is True
    plan = resolve(folder.config())
    worker = make_worker(plan)
    with closing(InProcessStream()) as stream:
        learner = plan.learner(stream, RunStore(folder))
        for number, (design, count) in enumerate([("validation", 3), ("training", 6)]):
            stream.submit(Lease(number=number, simulations=tuple(range(count)), design=design), worker)
        learner.run()
    exported, drawn = {}, []

    def export_file(surrogate, card, path, example):  # torch.export takes 6 s
        exported.update(card=card, example=example, outputs=[spec.name for spec in surrogate.layout.outputs])
        return path

    monkeypatch.setattr("penstock.orchestrator.cli.export.export_file", export_file)
    export(folder, tmp_path / "inverse.pt2")
    assert exported["card"]["problem"]["swap"] is exported["card"]["configuration"]["problem"]["swap"] is True
    assert exported["outputs"] == ["coefficient"]
    assert set(np.unique(exported["example"]["targets"])) == {3.0, 12.0}
    monkeypatch.setattr("penstock.orchestrator.cli.predict.draw_comparison", lambda *rest: drawn.append(rest[-2]))
    predict(folder, 2, tmp_path / "predictions")
    names = {path.name for path in (tmp_path / "predictions" / "predictions.zarr").iterdir()}
    assert "coefficient_predicted" in names and "solution_predicted" not in names
    assert drawn == [plan.problem.layout] and drawn[0].outputs[0].name == "coefficient"


def test_calderon_is_learnt_in_both_directions():
    """Fields of both roles are on different grids, as the fully connected net takes them."""
    for swap, shape in ((False, (4, 7, 3)), (True, (1, 8, 8))):
        options = {"name": "calderon", "resolution": 8, "num_functions": 3, "swap": swap}
        plan = resolve(config_of(options, model={"name": "mlp", "hidden": [4]}))
        assert plan.surrogate().layout.shapes["targets"] == shape
        assert samples_of(plan.config)["targets"].shape == (2, *shape)


def test_a_store_is_swapped_where_it_is_trained_on(tmp_path, capfd):
    options = {"name": "darcy", "resolution": 8}
    generate(config_of(options), 5, tmp_path / "store")
    store = {"name": "store", "path": str(tmp_path / "store"), "held_out": 2}
    plain, swapped = (samples_of(config_of(store | {"swap": swap}), "validation") for swap in (False, True))
    np.testing.assert_array_equal(swapped["targets"], plain["fields"])
    message = refusal(generate, config_of(options | {"swap": True}), 1, tmp_path / "other")
    assert "problem.swap: a store keeps the roles of the problem" in message


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ({"name": "heat", "swap": True}, "problem.swap: heat yields several samples per simulation, or a time"),
        ({"name": "heat_plate", "swap": True}, "problem.swap: heat_plate yields several samples"),
        (
            {"name": "darcy", "medium": "log_normal", "derivatives": 1, "derivatives_as": "tangents", "swap": True},
            "problem.swap: derivatives of darcy are by its inputs: give them as outputs",
        ),
    ],
)
def test_problems_without_an_inverse_are_refused(problem, message):
    assert message in refusal(lambda: resolve(config_of(problem)).problem)


def test_what_cannot_be_predicted_is_refused(tmp_path):
    """A problem without inputs, one whose scalars the model can't return, and one on two grids."""
    (tmp_path / "mine.py").write_text(NO_INPUTS)
    config = config_of({"name": f"{tmp_path}/mine.py:NoInputs", "swap": True})
    assert "has no inputs that could be predicted" in refusal(lambda: resolve(config).problem)
    config = config_of({"name": "poisson", "resolution": 8, "swap": True})
    assert "fno: needs all fields on one grid, and no scalars among the outputs" in refusal(resolve(config).surrogate)
    config = config_of({"name": "calderon", "resolution": 8, "swap": True})
    assert "fno: needs all fields on one grid, and these sit on " in refusal(resolve(config).surrogate)
