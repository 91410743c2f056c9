"""Peers and ours agree on small problems, and the command prints their table."""

import numpy as np
import pytest

from benchmarks.peers import spectral
from benchmarks.turns import Turns, in_turns

SMALL = {
    "navier_stokes": ({"resolution": 16, "num_steps": 2, "viscosity": 0.01}, 20, 1e-6),
    "burgers": ({"resolution": 64}, 256, 1e-6),
    "korteweg_de_vries": ({"resolution": 64, "num_steps": 3}, 20, 1e-6),
    "kuramoto_sivashinsky": ({"resolution": 64, "num_steps": 3, "warm_up": 1}, 10, 1e-5),
    "gray_scott": ({"resolution": 16, "num_steps": 1}, 20, 1e-3),
    "kdv_burgers": ({"case": "E3", "resolution": 32, "num_steps": 3}, 16, 1e-3),
    "wave_1d": ({"num_steps": 5}, 1, 1e-12),
    "diffusion_reaction": ({"resolution": 16, "num_steps": 2}, 20, 2e-3),
    "shallow_water": ({"resolution": 16, "num_steps": 2}, 8, 2e-3),
    "burgers_shocks": ({"resolution": 32, "num_steps": 2}, 32, 1e-2),
}


def test_every_contest_is_checked():
    assert {contest.problem for contest in spectral.CONTESTS} == set(SMALL)


@pytest.mark.parametrize("contest", spectral.CONTESTS, ids=lambda contest: contest.problem)
def test_loops_of_numpy_find_our_frames(contest):
    options, steps, tolerance = SMALL[contest.problem]
    problem = spectral._problem(contest.problem, options)
    draw = problem.draw_numbered(0, "training", 1)
    peer = next(iter(contest.peers.values()))(problem, steps)(draw)
    assert spectral._error(spectral._solved(problem, draw), peer) < tolerance


def test_the_fewest_steps_that_keep_the_error_are_found():
    """A peer that is off by 1 / steps, and one that is never better than 0.3."""

    def peer(floor):
        return lambda problem, steps: lambda draw: np.array([1 + max(floor, 1 / steps)])

    arguments = (None, [None], [np.ones(1)])
    assert spectral._fewest_steps(peer(0.0), *arguments, 0.11, 64) == (10, pytest.approx(0.1))
    assert spectral._fewest_steps(peer(0.3), *arguments, 0.11, 64) == (4, pytest.approx(0.3))


def test_rounds_alternate_and_are_three_at_least():
    calls = []
    arms = [lambda draw: calls.append(f"o{draw}"), lambda draw: calls.append(f"p{draw}")]
    turns = in_turns(arms, range(9), seconds=0)
    assert calls == ["o0", "p0", "p1", "o1", "o2", "p2"] and turns.times.shape == (3, 2)


def test_a_row_says_the_quotient_of_the_rates_beside_it():
    """Medians 2 and 4; the quotients of rounds are 1/2, 1, 2, 3 and 8."""
    turns = Turns(np.array([[2.0, 1.0], [4.0, 4.0], [2.0, 4.0], [2.0, 6.0], [1.0, 8.0]]))
    assert turns.medians.tolist() == [2.0, 4.0]
    assert turns.cells(1) == ["2.00x", "1.00-3.00, 5"]


def test_the_command_prints_a_table(bench):
    """With the cheapest problem; for all of them, ours and the peers are compared in the tests beside it."""
    ran = bench("peers", "spectral", "wave_1d", "--resolution", "32", "--seconds", "0.01")
    assert ran.returncode == 0, ran.stderr
    assert "NumPy, exact by FFT" in ran.stdout and "wave_1d" in ran.stdout

    ran = bench("peers", "meshes", "cook", "--resolution", "4", "--seconds", "0.01")
    assert ran.returncode == 0, ran.stderr
    assert "cook" in ran.stdout and " DOLFINx, " in ran.stdout

    ran = bench("peers", "spectral", "lorenz")
    assert ran.returncode == 2 and "no peer of 'lorenz' is known" in ran.stderr


@pytest.mark.parametrize("name", ["elasticity", "cook", "hyperelastic_block", "thermal", "stokes", "cavity"])
def test_loops_of_dolfinx_find_our_samples(name):
    from benchmarks.peers import meshes

    contest = next(contest for contest in meshes.CONTESTS if contest.problem == name)
    options = {"thermal": {"resolution": 1}, "cavity": {"resolution": 4, "largest_reynolds": 50.0}}
    ours = meshes.Ours(name, options.get(name, {"resolution": 4}), contest.output)
    draw = ours.problem.draw_numbered(0, "training", 1)
    for solver in contest.solvers:
        assert meshes._difference(ours(draw), contest.loop(ours.problem, solver)(draw)) < meshes.TOLERANCE
