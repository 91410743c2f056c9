"""The Cole-Hopf solution, a published slope, the speed of a shock, bounds that no step may break."""

from itertools import pairwise

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.finite_volume.burgers_shocks import BurgersShocks


def cole_hopf(x, diffusion, time):
    """u at x from sin(2πx) / 2 at first, by the integrals of Cole (1951) and Hopf (1950) with Gauss-Hermite nodes."""
    viscosity = diffusion / np.pi
    nodes, weights = np.polynomial.hermite.hermgauss(120)
    y = x[:, None] - np.sqrt(4 * viscosity * time) * nodes
    potential = np.cos(2 * np.pi * y) / (8 * np.pi * viscosity)  # -∫u / (2 ν) up to a constant
    kernel = weights * np.exp(potential - potential.max())
    return (kernel * np.sin(2 * np.pi * y) / 2).sum(axis=1) / kernel.sum(axis=1)


def ends(diffusion, resolution, time):
    """u from sin(2πx) / 2 after some time, at the centres x."""
    problem = BurgersShocks(resolution=resolution, diffusion=diffusion, num_steps=1, interval=time)
    (x,) = problem.grid.axes()
    *_, end = problem.frames(np.sin(2 * np.pi * x) / 2)
    return x, end


@pytest.mark.parametrize("diffusion", [0.02, 0.1, 1.0])
def test_smooth_solutions_are_those_of_cole_and_hopf_with_order_two(diffusion):
    errors = []
    for resolution in (64, 128, 256):
        x, end = ends(diffusion, resolution, 0.4)
        errors.append(np.abs(end - cole_hopf(x, diffusion, 0.4)).mean())
    assert np.log2(errors[0] / errors[-1]) / 2 == pytest.approx(2.0, abs=0.35)
    assert errors[-1] < 1e-4


def test_the_slope_of_the_published_shock():
    """152.00516 at t = 1.6037 / π from -sin πX on (-1, 1) with ν = 0.01 / π (Basdevant et al., 1986).

    With x = (X + 1) / 2 and u / 2 in place of u this is our equation with ν / 4, and slopes are the same.
    """
    _, end = ends(0.0025, 2048, 1.6037 / np.pi)
    assert (end[1023] - end[1024]) * 2048 == pytest.approx(152.00516, rel=0.005)


def test_a_shock_and_a_fan_move_as_they_must():
    """From 1 on [0.2, 0.4]: a shock at 0.4 + t/2, and a fan (x - 0.2) / t behind it (Rankine, Hugoniot)."""
    problem = BurgersShocks(resolution=400, diffusion=0.0, num_steps=1, interval=0.3)
    (x,) = problem.grid.axes()
    initial = np.where((x > 0.2) & (x < 0.4), 1.0, 0.0)
    *_, end = problem.frames(initial)
    exact = np.where(x < 0.55, np.clip((x - 0.2) / 0.3, 0, 1), 0.0)
    assert np.abs(end - exact).mean() < 2e-3
    assert end.sum() == pytest.approx(initial.sum(), rel=1e-12)
    assert x[end > 0.5].max() == pytest.approx(0.55, abs=1.5 / 400)


@pytest.mark.parametrize("diffusion", [0.001, 0.1, 4.0])
def test_no_step_makes_a_new_extreme_and_the_mean_stays(diffusion):
    problem = BurgersShocks(resolution=128, diffusion=diffusion, num_steps=4)
    for i in range(3):
        wave = problem.draw(generator_of(0, "training", i))["initial"]
        frames = list(problem.frames(wave(problem.grid.axes()[0])))
        variations = [np.abs(np.diff(frame, append=frame[:1])).sum() for frame in frames]
        assert all(after <= before + 1e-12 for before, after in pairwise(variations))
        for frame in frames:
            assert frames[0].min() - 1e-12 <= frame.min() and frame.max() <= frames[0].max() + 1e-12
            assert frame.mean() == pytest.approx(frames[0].mean(), abs=1e-13)


def test_samples_go_from_u_to_u():
    problem = BurgersShocks(resolution=32, num_steps=3, interval=0.05)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 0)), solve=None))
    assert [sample.step for sample in samples] == [0, 1, 2]
    np.testing.assert_array_equal(samples[1].inputs["before"], samples[0].outputs["solution"])
    assert problem.layout.pack(samples)["targets"].shape == (3, 1, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 7}, "resolution = 7 is too small"),
        ({"diffusion": -1.0}, "diffusion = -1.0 must be at least 0"),
        ({"num_steps": 0}, "num_steps = 0 is too small"),
        ({"interval": np.inf}, "interval = inf"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BurgersShocks(**options)


def test_a_wave_that_has_died_out_is_a_sample_too():
    """Its mean is 0.5, and what is left of it 2e-8, a third of a step of float32 there."""
    problem = BurgersShocks()
    frames = list(problem.simulate(problem.draw_numbered(0, "training", 8), None))
    assert np.ptp(frames[-1].outputs["solution"]) < 1e-7
    problem.layout.pack(frames)
