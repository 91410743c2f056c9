"""Trajectories by sine transforms, orders in space and time, samples."""

import numpy as np
import pytest
from scipy.fft import dstn, idstn

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.transient.heat import Heat
from tests.support.systems import to_scipy


def lowest_mode(n):
    """The mode sin(πx) sin(πy) at the inner vertices."""
    line = np.sin(np.pi * np.arange(1, n) / n)
    return np.outer(line, line)


def test_trajectory_is_that_of_sine_transforms(scipy_solve):
    """Steps against sine transforms, which diagonalise both matrices.

    K has h² times the five-point Laplacian's eigenvalues, M has h².
    """
    n, step = 12, 0.02
    problem = Heat(resolution=n, num_steps=60, time_step=step)
    parameters = problem.draw(generator_of(0, "training", 0))
    x, y = np.meshgrid(*2 * [np.arange(1, n) / n], indexing="ij")
    along = 2 - 2 * np.cos(np.pi * np.arange(1, n) / n)
    eigenvalues = 1 + step * n**2 * (along[:, None] + along)
    u = np.zeros((n - 1, n - 1))
    for i, sample in enumerate(problem.simulate(parameters, scipy_solve), start=1):
        angle = parameters["phase"] + 2 * np.pi * i * step
        centre = 0.5 + parameters["radius"] * np.array([np.cos(angle), np.sin(angle)])
        hump = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 0.05**2))
        np.testing.assert_allclose(sample.inputs["before"], u, atol=1e-13)
        np.testing.assert_allclose(sample.inputs["source"], hump, atol=1e-13)
        u = idstn(dstn(u + step * hump, type=1) / eigenvalues, type=1)
        np.testing.assert_allclose(sample.outputs["solution"], u, atol=1e-13)
    assert i == 60


def test_a_step_of_the_lowest_mode_is_of_second_order_in_space(scipy_solve):
    """The slowest mode shrinks by 1 / (1 + 2π² Δt) per step without a source."""
    errors = []
    for n in (8, 16, 32):
        problem, mode = Heat(resolution=n), lowest_mode(n)
        u = scipy_solve(problem.assemble(mode, np.zeros_like(mode))).x.array_r.reshape(mode.shape)
        errors.append(np.abs(u - mode / (1 + 2 * np.pi**2 * 0.01)).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.1)


def test_decay_of_the_lowest_mode_is_of_first_order_in_time(scipy_solve):
    """The orders in space and time at t = 0.1, where u has fallen to exp(-2π² t)."""
    errors, n = [], 32
    for num_steps in (10, 20, 40):
        problem, u = Heat(resolution=n, time_step=0.1 / num_steps), lowest_mode(n)
        for _ in range(num_steps):
            u = scipy_solve(problem.assemble(u, np.zeros_like(u))).x.array_r.reshape(u.shape)
        errors.append(np.abs(u - lowest_mode(n) * np.exp(-0.2 * np.pi**2)).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(1.0, abs=0.1)


def test_samples_pack(scipy_solve):
    problem = Heat(resolution=10, num_steps=5)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 1)), scipy_solve))
    arrays = problem.layout.pack(samples)
    assert arrays["fields"].shape == (5, 2, 9, 9)
    assert arrays["targets"].shape == (5, 1, 9, 9)
    assert [sample.step for sample in samples] == list(range(problem.num_steps))
    np.testing.assert_array_equal(arrays["fields"][1:, 0], arrays["targets"][:-1, 0])


def test_matrix_is_constant_and_symmetric_and_the_guess_is_the_last_step():
    problem = Heat(resolution=8)
    before = np.random.default_rng(0).standard_normal((7, 7))
    first = to_scipy(problem.assemble(np.zeros((7, 7)), before).A).copy()
    system = problem.assemble(before, before)
    assert abs(to_scipy(system.A) - first).max() == abs(first - first.T).max() == 0
    assert system.is_spd
    np.testing.assert_array_equal(system.guess.array_r, before.ravel())


def test_derivatives_are_those_of_finite_differences_to_second_order(scipy_solve):
    """Central differences of one step along radius and phase, with u_{i-1} kept."""
    problem = Heat(resolution=12, num_steps=5, derivatives=2, derivatives_as="tangents")
    parameters = problem.draw(generator_of(0, "training", 2))
    samples = list(problem.simulate(parameters, scipy_solve))
    before = samples[3].inputs["before"]
    assert samples[3].step == 3 and np.abs(before).max() > 0
    for name in ("radius", "phase"):
        derivative = samples[3].outputs[f"solution_by_{name}"]
        errors = []
        for step in (0.02, 0.01):
            ends = [problem.source({**parameters, name: parameters[name] + by}, 0.04) for by in (step, -step)]
            tangent = samples[3].inputs[f"source_by_{name}"]
            np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), tangent, atol=0.05 * np.abs(tangent).max())
            above, below = [scipy_solve(problem.assemble(before, end)).x.array_r.copy() for end in ends]
            difference = ((above - below) / (2 * step)).reshape(before.shape)
            errors.append(np.abs(difference - derivative).max() / np.abs(derivative).max())
        assert errors[1] < 2e-2 and errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)
    assert problem.layout.pack(samples)["targets"].shape == (5, 3, 11, 11)


def test_derivatives_leave_the_solution_as_it_is_and_go_through_its_matrix(scipy_solve):
    parameters, states = Heat().draw(generator_of(0, "training", 2)), []

    def noting(system):
        states.append(system.A.stateGet())
        return scipy_solve(system)

    plain = list(Heat(resolution=8, num_steps=3).simulate(parameters, scipy_solve))
    more = list(Heat(resolution=8, num_steps=3, derivatives=1).simulate(parameters, noting))
    for one, other in zip(plain, more, strict=True):
        np.testing.assert_array_equal(one.outputs["solution"], other.outputs["solution"])
    assert len(states) == 6 and states[::2] == states[1::2]


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 1},
        {"num_steps": 0},
        {"time_step": 0.0},
        {"time_step": np.inf},
        {"derivatives": -1},
        {"derivatives": 3},
    ],
)
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        Heat(**options)
