"""The benchmarks 2D-1, from rest, and 2D-2; the order in time."""

from itertools import pairwise

import numpy as np
import pytest

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import SolveError
from penstock.solvers.problems.flow import vortex_street
from penstock.solvers.problems.flow.channel import parabola
from penstock.solvers.problems.flow.splitting import FlowState
from penstock.solvers.problems.flow.vortex_street import VortexStreet


@pytest.fixture(scope="module")
def solve():
    return LinearSolver(Direct(), rtol=1e-10)


def test_from_rest_a_slow_flow_becomes_that_of_the_benchmark(solve):
    """Drag 5.57953523 and lift 0.01061895 at Re = 20 (Schäfer and Turek 1996, Nabh 1998)."""
    problem = VortexStreet(resolution=8, interval=0.05, steps_per_interval=1)
    channel = problem.channel
    on_boundary = channel.velocity_on_boundary(parabola(8))
    velocity, pressure = channel.parts(channel.state(on_boundary))
    state = FlowState.steady(velocity, pressure)
    for _ in range(80):
        before, state = state, problem.splitting.advance(state, on_boundary, 0.1 / 20, solve)
    drag, lift = 20 * problem.splitting.force(before, state, 0.1 / 20, channel.rim)
    assert drag == pytest.approx(5.57953523, rel=1e-3)
    assert lift == pytest.approx(0.01061895, abs=2e-3)


def test_shedding_has_the_drag_lift_and_frequency_of_the_benchmark(solve):
    """2D-2 (Schäfer and Turek 1996) at Re = 100, soon after the cylinder has come to rest."""
    problem = VortexStreet(resolution=8, num_steps=180, interval=0.005, steps_per_interval=1)
    samples = list(problem.simulate({"reynolds": 100.0, "turn": 1.0}, solve))
    drag, lift = (np.array([sample.outputs[name] for sample in samples]) for name in ("drag", "lift"))
    assert drag[80:].max() == pytest.approx(3.23, rel=0.02)
    assert [lift[80:].min(), lift[80:].max()] == pytest.approx([-1, 1], rel=0.06)
    rises = np.flatnonzero((lift[:-1] < 0) & (lift[1:] >= 0))
    assert 0.1 / (0.005 * np.diff(rises).mean()) == pytest.approx(0.3, rel=0.06)


@pytest.mark.slow  # the flow takes eight periods to become periodic, each 134 steps
def test_a_periodic_flow_lies_within_the_bounds_of_the_benchmark(solve):
    """2D-2 (Schäfer and Turek 1996), the last period but lift's half of the next.

    On this mesh lift is still 2 % below its bounds, 0.99 to 1.01. Where it is largest the time t0 begins, and pressure
    is compared at t0 + 1 / (2 f).
    """
    problem = VortexStreet(resolution=12, num_steps=960, interval=0.0025, steps_per_interval=1)
    samples = list(problem.simulate({"reynolds": 100.0, "turn": 1.0}, solve))
    drag, lift = (np.array([sample.outputs[name] for sample in samples]) for name in ("drag", "lift"))
    rises = np.flatnonzero((lift[:-1] < 0) & (lift[1:] >= 0))
    crossings = rises - lift[rises] / (lift[rises + 1] - lift[rises])
    period = crossings[-1] - crossings[-2]
    assert 0.295 < 0.1 / (0.0025 * period) < 0.305
    last = slice(rises[-2], rises[-1])
    assert 3.22 < drag[last].max() < 3.24
    assert 0.96 < lift[last].max() < 1.01

    points = problem.channel.nodes[problem.channel.node_of_point]
    before, behind = (np.argmin(np.linalg.norm(points - place, axis=1)) for place in ([0.15, 0.2], [0.25, 0.2]))
    pressure = samples[rises[-2] + np.argmax(lift[last]) + round(period / 2)].outputs["pressure"]
    assert 2.46 < pressure[before] - pressure[behind] < 2.50


def test_steps_are_of_order_two(solve):
    """By differences of one halved step to the next, while the cylinder turns."""
    ends, start = [], VortexStreet(resolution=4).steady(20.0, solve)
    for num_steps in (10, 20, 40, 80):
        problem, state = VortexStreet(resolution=4, interval=0.2, steps_per_interval=num_steps), start
        for step in range(num_steps):
            spin = np.sin(np.pi * (step + 1) / num_steps / 2) ** 2
            on_boundary = problem.channel.velocity_on_boundary(parabola(4), spin=spin)
            state = problem.splitting.advance(state, on_boundary, 0.1 / 20, solve)
        ends.append(state.velocity)
    differences = [np.linalg.norm(fine - coarse) for coarse, fine in pairwise(ends)]
    assert np.log2(np.divide(differences[:-1], differences[1:]))[-1] == pytest.approx(2.0, abs=0.3)


def test_turning_breaks_the_balance_and_samples_pack(solve):
    problem = VortexStreet(resolution=4, num_steps=3, steps_per_interval=5)
    parameters = problem.draw(generator_of(0, "training", 0))
    samples = list(problem.simulate(parameters, solve))
    arrays = problem.layout.pack(samples)
    assert arrays["fields"].shape == (3, 2, 140) and arrays["targets"].shape == (3, 3, 140)
    np.testing.assert_array_equal(arrays["fields"][1:], arrays["targets"][:-1, :2])
    assert [sample.time for sample in samples] == pytest.approx([0.05, 0.1, 0.15])
    assert (arrays["target_scalars"][:, 0] > 1).all()


def test_a_flow_without_bounds_is_refused(solve, monkeypatch):
    monkeypatch.setattr(vortex_street, "FASTEST", 1.0)
    problem = VortexStreet(resolution=4, num_steps=1, steps_per_interval=1)
    with pytest.raises(SolveError, match="take more steps per interval"):
        list(problem.simulate(problem.draw(generator_of(0, "training", 0)), solve))


@pytest.mark.parametrize("options", [{"resolution": 5}, {"num_steps": 0}, {"interval": 0.0}, {"steps_per_interval": 0}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        VortexStreet(**options)
