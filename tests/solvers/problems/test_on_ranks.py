"""Problems that are distributed over MPI ranks, against the same on one rank."""

import pytest

from penstock.solvers.problems.steady.darcy import Darcy
from penstock.solvers.problems.steady.poisson import Poisson

ON_RANKS = """
import numpy as np
from mpi4py import MPI
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.problems.solids.cantilever import Cantilever
from penstock.solvers.problems.solids.cook import Cook
from penstock.solvers.problems.solids.elasticity import Elasticity
from penstock.solvers.problems.steady.darcy import Darcy
from penstock.solvers.problems.steady.thermal import Thermal
from penstock.solvers.problems.transient.heat_l_shape import HeatLShape

cases = [
    (Cantilever, {"resolution": 2, "length": 6.0}),
    (Cook, {"resolution": 4}),
    (Darcy, {"resolution": 12, "medium": "log_normal", "derivatives": 2}),
    (Elasticity, {"resolution": 3, "dimension": 3, "derivatives": 1}),
    (HeatLShape, {"resolution": 8, "num_steps": 3}),
    (Thermal, {"resolution": 1, "edges": "functions"}),
]
for cls, options in cases:
    name, packed = cls.__name__, []
    for comm in (MPI.COMM_SELF, MPI.COMM_WORLD):
        problem = cls(**options)
        problem.comm = comm
        solve = LinearSolver(Direct(), rtol=1e-12)
        simulations = [problem.simulate(problem.draw_numbered(0, "training", i), solve) for i in range(2)]
        packed.append(problem.layout.pack([sample for samples in simulations for sample in samples]))
    assert problem.is_parallel and packed[0].keys() == packed[1].keys()
    for key, alone in packed[0].items():
        assert np.abs(packed[1][key] - alone).max() <= 1e-6 * np.abs(alone).max(), (name, key)  # samples are float32
    assert len({array.tobytes() for array in MPI.COMM_WORLD.allgather(packed[1]["targets"])}) == 1, name
    if MPI.COMM_WORLD.rank == 0:
        print(name)
"""


def test_two_ranks_give_the_samples_of_one_and_every_rank_has_them(run_on_ranks):
    """Scalar and vector fields in two and three dimensions, degree 1 and 2, values that are given, and derivatives."""
    assert run_on_ranks(2, ON_RANKS).split() == ["Cantilever", "Cook", "Darcy", "Elasticity", "HeatLShape", "Thermal"]


@pytest.mark.parametrize("problem", [Darcy(resolution=4, dimension=3), Poisson()], ids=["darcy in 3D", "poisson"])
def test_problems_with_matrices_of_one_rank_say_so(problem):
    assert not problem.is_parallel
