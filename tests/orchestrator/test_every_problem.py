"""Every problem that comes with penstock trains and predicts, small, with a model that fits its geometry.

One of each kind is traced for its file and drawn: for the others these would do the same again.
"""

import itertools
import json
from contextlib import closing

import numpy as np
import pytest
import torch

from penstock.layout import Layout
from penstock.learner.stream.stream import InProcessStream
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.cli import export, predict
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store import run_folder
from penstock.orchestrator.store.run_store import RunStore
from penstock.solvers.problems import PROBLEMS

MLP = {"name": "mlp", "hidden": [16]}
POINTS = {"name": "branch_trunk", "width": 16, "latent": 16, "layers": 2}
FNO = {"name": "fno", "width": 8, "modes": 3, "layers": 1}
SMALL = {  # options, and the model where it is no MLP
    "advection": ({"resolution": 32, "num_steps": 2},),
    "bratu": ({"resolution": 12, "num_levels": 2},),
    "burgers": ({"resolution": 64}, FNO),
    "burgers_shocks": ({"resolution": 64, "num_steps": 2},),
    "calderon": ({"resolution": 12, "num_functions": 3},),
    "cantilever": ({},),
    "cavity": ({"resolution": 8, "num_levels": 2, "largest_reynolds": 100.0},),
    "convection_diffusion": ({"resolution": 12},),
    "cook": ({"resolution": 4},),
    "cylinder": ({"resolution": 4, "num_levels": 2},),
    "darcy": ({"resolution": 12}, FNO),
    "diffusion_reaction": ({"resolution": 16, "num_steps": 2},),
    "double_glazing": ({"resolution": 12},),
    "drifting_diffusion": ({"resolution": 12, "num_steps": 2},),
    "elasticity": ({"resolution": 8}, FNO),
    "gray_scott": ({"resolution": 16, "num_steps": 2},),
    "heat": ({"resolution": 12, "num_steps": 2},),
    "heat_l_shape": ({"resolution": 8, "num_steps": 1}, POINTS),
    "heat_plate": ({"resolution": 12, "num_steps": 2},),
    "helmholtz": ({"resolution": 16}, FNO),
    "helmholtz_real": ({"resolution": 50},),
    "hyperelastic_block": ({"resolution": 2, "num_levels": 1},),
    "kdv_burgers": ({"resolution": 64, "num_steps": 2},),
    "korteweg_de_vries": ({"resolution": 64, "num_steps": 2},),
    "kuramoto_sivashinsky": ({"resolution": 64, "num_steps": 2, "warm_up": 5},),
    "lorenz": ({"num_steps": 2},),
    "navier_stokes": ({"resolution": 16, "num_steps": 2}, FNO),
    "nonlinear_diffusion": ({"resolution": 12, "num_levels": 2},),
    "poisson": ({"resolution": 12},),
    "poisson_boundary": ({"resolution": 12},),
    "poisson_sources": ({"resolution": 20},),
    "poisson_with_hole": ({"resolution": 20}, POINTS),
    "poisson_polygons": ({"resolution": 12}, POINTS),
    "random_cylinder": ({"resolution": 4, "num_levels": 2}, POINTS),
    "scattering": ({"resolution": 25, "num_functions": 3},),
    "shallow_water": ({"resolution": 16, "num_steps": 2},),
    "sound": ({"resolution": 32, "num_steps": 2},),
    "square_with_holes": ({"resolution": 20}, POINTS),
    "stokes": ({"resolution": 8}, FNO),
    "thermal": ({},),
    "void_cell": ({"resolution": 32}, POINTS),
    "vortex_street": ({"resolution": 4, "num_steps": 2, "steps_per_interval": 5},),
    "wave_1d": ({"resolution": 32, "num_steps": 2},),
}

KINDS = {  # of a model and outputs: the problem that is traced and drawn
    "branch_trunk: 2-D mesh": "heat_l_shape",
    "branch_trunk: 2-D points": "poisson_with_hole",
    "fno: 1-D grid": "burgers",
    "fno: 2-D grid": "darcy",
    "mlp: 1-D grid": "wave_1d",
    "mlp: 2-D grid": "nonlinear_diffusion",
    "mlp: 2-D mesh": "thermal",
    "mlp: 2-D mesh + scalars": "cantilever",
    "mlp: 3-D mesh": "hyperelastic_block",
    "mlp: scalars": "lorenz",
}


def kind_of(model: str, layout: Layout) -> str:
    places = [block.on for block in layout.output_blocks]
    names = {"scalars" if on is None else f"{on.dimension}-D {type(on).__name__.lower()}" for on in places}
    return f"{model}: {' + '.join(sorted(names))}"


def test_all_are_there():
    assert {*SMALL, "store", "external"} == {*PROBLEMS}  # the latter two have tests of their runs elsewhere


@pytest.fixture
def torch_threads():
    """A run sets the number of threads for its process, and here others come after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few_samples(monkeypatch):
    """Training begins when there is a batch, of however few simulations."""
    monkeypatch.setattr("penstock.learner.buffers.watermark.MIN_SIMULATIONS", 1)


def untraced(surrogate, card, path, example):
    """Stands for the export of the file: of each problem's card there must be a JSON."""
    path.with_suffix(".card.json").write_text(json.dumps(card))
    return path


def assert_fed(validation, num_steps):
    """An input that is said to be fed holds the output of the step before."""
    blocks = validation.layout.blocks.values()
    values = {name: v for b in blocks for name, v in b.by_name(validation.arrays[b.name]).items()}
    for name, source in validation.layout.feeds.items():
        for first in range(0, len(validation), num_steps):
            for row in range(first, first + num_steps - 1):
                np.testing.assert_array_equal(values[name][row + 1], values[source][row])


@pytest.mark.usefixtures("torch_threads", "few_samples")
@pytest.mark.parametrize("name", SMALL)
def test_a_problem_trains_exports_and_predicts(name, tmp_path, monkeypatch, capfd):
    if name in ("poisson_polygons", "square_with_holes"):
        pytest.importorskip("gmsh", exc_type=ImportError)
    options, *model = SMALL[name]
    monkeypatch.chdir(tmp_path)
    plan = resolve(
        Config.model_validate(
            {
                "problem": {"name": name, **options},
                "model": model[0] if model else MLP,
                "solver": {"workers": 1, "strategy": "direct", "sort": False},
                "buffer": {"capacity": 16, "watermark": 4, "batches_per_simulation": None},
                "training": {"batch_size": 4, "device": "cpu", "stop_after": {"steps": 3}},
                "validation": {"simulations": 2},
            }
        )
    )
    if KINDS[kind_of(plan.config.model.name, plan.problem.layout)] != name:
        monkeypatch.setattr(export, "export_file", untraced)
        monkeypatch.setattr(predict, "draw_comparison", lambda *arguments: None)
        monkeypatch.setattr(predict, "draw_strip", lambda *arguments: None)
    folder = run_folder.RunFolder.create(plan.config)
    with closing(InProcessStream()) as stream:
        learner, worker, numbers = plan.learner(stream, RunStore(folder)), make_worker(plan.solving), itertools.count()
        for design, limit in (("validation", 2), ("training", 4)):
            ledger = Ledger(InOrder(design), limit)
            while (lease := plan.order.lease(ledger, next(numbers), 0, window=4, num_ready=1)) is not None:
                stream.submit(lease, worker)
        learner.run()
    assert np.isfinite(learner.status().training.validation["relative_l2"]["mean"])
    assert_fed(learner.trainer.course.validation, plan.problem.num_steps)
    export.export(folder, None)
    predict.predict(folder, 1, None)
    printed = capfd.readouterr().out
    assert "wrote " in printed and "relative L2 error of" in printed and "failed" not in printed
