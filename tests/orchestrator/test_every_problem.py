"""Every problem that comes with penstock trains, exports and predicts with a model that fits its geometry, small."""

import itertools
from contextlib import closing

import numpy as np
import pytest
import torch

from penstock.learner.stream.stream import InProcessStream
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.cli.export import export
from penstock.orchestrator.cli.predict import predict
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store import run_folder
from penstock.orchestrator.store.run_store import RunStore
from penstock.solvers.problems import PROBLEMS

MLP = {"name": "mlp", "hidden": [16]}
POINTS = {"name": "branch_trunk", "width": 16, "latent": 16, "layers": 2}
FNO = {"name": "fno", "width": 8, "modes": 3, "layers": 2}
SMALL = {  # options, and the model where it is no MLP; an FNO is slow to trace: one for a kind of problem
    "advection": ({"resolution": 32, "num_steps": 5},),
    "bratu": ({"resolution": 12, "num_levels": 3},),
    "burgers": ({"resolution": 64}, FNO),
    "burgers_shocks": ({"resolution": 64, "num_steps": 3},),
    "calderon": ({"resolution": 12, "num_functions": 3},),
    "cantilever": ({},),
    "cavity": ({"resolution": 8},),
    "convection_diffusion": ({"resolution": 12},),
    "cook": ({"resolution": 4},),
    "cylinder": ({"resolution": 8},),
    "darcy": ({"resolution": 12}, FNO),
    "diffusion_reaction": ({"resolution": 16, "num_steps": 3},),
    "double_glazing": ({"resolution": 12},),
    "drifting_diffusion": ({"resolution": 12, "num_steps": 3},),
    "elasticity": ({"resolution": 8}, FNO),
    "gray_scott": ({"resolution": 16, "num_steps": 3},),
    "heat": ({"resolution": 12, "num_steps": 3},),
    "heat_l_shape": ({"resolution": 8, "num_steps": 3}, POINTS),
    "heat_plate": ({"resolution": 12, "num_steps": 3},),
    "helmholtz": ({"resolution": 16}, FNO),
    "helmholtz_real": ({"resolution": 50},),
    "hyperelastic_block": ({"resolution": 2},),
    "kdv_burgers": ({"resolution": 64, "num_steps": 3},),
    "korteweg_de_vries": ({"resolution": 64, "num_steps": 3},),
    "kuramoto_sivashinsky": ({"resolution": 64, "num_steps": 3, "warm_up": 5},),
    "lorenz": ({"num_steps": 3},),
    "navier_stokes": ({"resolution": 16, "num_steps": 3}, FNO),
    "nonlinear_diffusion": ({"resolution": 12, "num_levels": 2},),
    "poisson": ({"resolution": 12},),
    "poisson_boundary": ({"resolution": 12},),
    "poisson_sources": ({"resolution": 20},),
    "poisson_with_hole": ({"resolution": 20}, POINTS),
    "poisson_polygons": ({"resolution": 12}, POINTS),
    "random_cylinder": ({"resolution": 8}, POINTS),
    "scattering": ({"resolution": 25, "num_functions": 3},),
    "shallow_water": ({"resolution": 16, "num_steps": 3},),
    "sound": ({"resolution": 32, "num_steps": 2},),
    "square_with_holes": ({"resolution": 20}, POINTS),
    "stokes": ({"resolution": 8}, FNO),
    "thermal": ({},),
    "void_cell": ({"resolution": 32}, POINTS),
    "vortex_street": ({"resolution": 8, "num_steps": 2},),
    "wave_1d": ({"resolution": 32, "num_steps": 3},),
}


def test_all_are_there():
    assert {*SMALL, "store", "external"} == {*PROBLEMS}  # the latter two have tests of their runs elsewhere


@pytest.fixture
def torch_threads():
    """A run sets the number of threads for its process, and here others come after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("torch_threads")
@pytest.mark.parametrize("name", SMALL)
def test_a_problem_trains_exports_and_predicts(name, tmp_path, monkeypatch, capsys):
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
                "training": {"batch_size": 4, "device": "cpu", "stop_after": {"steps": 5}},
                "validation": {"simulations": 3},
            }
        )
    )
    folder = run_folder.RunFolder.create(plan.config)
    with closing(InProcessStream()) as stream:
        learner, worker, numbers = plan.learner(stream, RunStore(folder)), make_worker(plan.solving), itertools.count()
        for design, limit in (("validation", 3), ("training", 12)):
            ledger = Ledger(InOrder(design), limit)
            while (lease := plan.order.lease(ledger, next(numbers), 0, window=4, num_ready=1)) is not None:
                stream.submit(lease, worker)
        learner.run()
    assert np.isfinite(learner.status().training.validation["relative_l2"]["mean"])
    export(folder, None)
    predict(folder, 1, None)
    printed = capsys.readouterr().out
    assert "wrote " in printed and "relative L2 error of" in printed and "failed" not in printed
