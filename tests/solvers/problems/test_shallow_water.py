"""Stoker's dam break, conserved mass, symmetry."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.finite_volume.shallow_water import ShallowWater

DEPTH, VELOCITY, SHOCK = 1.45384089, 0.41692063, 1.33556996  # between fan and shock, of a dam 2 | 1 with gravity 1


def stoker(x):
    """Depth at t = 1 of a dam 2 | 1 at x = 0 (Stoker, 1957)."""
    fan = np.clip(x, -np.sqrt(2), VELOCITY - np.sqrt(DEPTH))
    return np.where(x < SHOCK, (2 * np.sqrt(2) - fan) ** 2 / 9, 1.0)


def plane_dam(resolution, axis):
    """State at t = 1 of a dam across an axis, [h, h u] along it, and the coordinates along the axis."""
    problem = ShallowWater(resolution=resolution, num_steps=1, interval=1.0)
    x = problem.grid.axes()[0]
    depth = np.repeat(np.where(x < 0, 2.0, 1.0)[:, None], 4, axis=1)
    state = np.stack([depth, 0 * depth, 0 * depth])
    *_, end = problem.frames(state if axis == 0 else state.swapaxes(1, 2))
    end = end if axis == 0 else end.swapaxes(1, 2)
    assert np.ptp(end, axis=2).max() < 1e-12 and np.abs(end[2 - axis]).max() < 1e-12
    return x, end[[0, 1 + axis], :, 0]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_plane_dam_breaks_as_stoker_says(axis):
    errors = []
    for resolution in (64, 128):
        x, (depth, momentum) = plane_dam(resolution, axis)
        errors.append(np.abs(depth - stoker(x)).mean())
    assert errors[1] < 0.6 * errors[0] and errors[1] < 0.01
    plateau = np.abs(x - 0.2) < 0.6
    np.testing.assert_allclose(depth[plateau], DEPTH, rtol=5e-3)
    np.testing.assert_allclose(momentum[plateau], DEPTH * VELOCITY, rtol=2e-2)
    assert x[depth > (1 + DEPTH) / 2].max() == pytest.approx(SHOCK, abs=1.5 * 5 / 128)


def test_the_excess_of_mass_is_that_of_the_dam_and_stays():
    """π R² and π h²/12 of the ramp, as long as no wave has reached the boundary."""
    problem = ShallowWater(resolution=64, num_steps=5, interval=0.2)
    frames = list(problem.frames(problem.dam(0.5)))
    excess = [(frame[0] - 1).sum() * problem.spacing**2 for frame in frames]
    assert excess[0] == pytest.approx(np.pi * (0.25 + problem.spacing**2 / 12), rel=2e-3)
    np.testing.assert_allclose(excess, excess[0], rtol=1e-9)
    np.testing.assert_allclose([frame[1:].sum() for frame in frames], 0, atol=1e-9)


def test_the_wave_is_as_round_as_the_dam():
    """Exactly symmetric about x = 0 and x = y, and to 3 % the same along an axis and a diagonal."""
    problem = ShallowWater(resolution=128, num_steps=1, interval=0.6)
    *_, (depth, along_x, along_y) = problem.frames(problem.dam(0.6))
    np.testing.assert_allclose(depth, depth[::-1], atol=1e-11)
    np.testing.assert_allclose(along_x, -along_x[::-1], atol=1e-11)
    np.testing.assert_allclose(depth, depth.T, atol=1e-11)
    np.testing.assert_allclose(along_x, along_y.T, atol=1e-11)
    x = problem.grid.axes()[0]
    axis = np.interp(np.linspace(0.1, 1.8, 60), x, depth[64])
    diagonal = np.interp(np.linspace(0.1, 1.8, 60), np.sqrt(2) * x, np.diag(depth))
    assert np.abs(axis - diagonal).mean() < 0.01


def test_water_at_rest_stays_at_rest():
    problem = ShallowWater(resolution=16, num_steps=1)
    still = np.stack([np.full((16, 16), 1.7), np.zeros((16, 16)), np.zeros((16, 16))])
    *_, end = problem.frames(still)
    np.testing.assert_allclose(end, still, atol=1e-14)


def test_samples_have_depth_and_momentum():
    problem = ShallowWater(resolution=32, num_steps=2)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 0)), solve=None))
    np.testing.assert_array_equal(samples[1].inputs["before"], samples[0].outputs["solution"])
    assert problem.layout.pack(samples)["targets"].shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 15}, "resolution = 15 is too small"),
        ({"num_steps": 0}, "num_steps = 0 is too small"),
        ({"interval": -0.1}, "interval = -0.1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ShallowWater(**options)
