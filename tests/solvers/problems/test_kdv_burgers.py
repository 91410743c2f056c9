"""Characteristics, a shock, Cole-Hopf, a soliton and a forced wave in closed form; the order of the steps."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.spectral.kdv_burgers import KdVBurgers
from tests.support.cole_hopf import cole_hopf

UNIT = 2 * np.pi / 16  # the smallest wave number
E1 = {"convection": 1.0, "viscosity": 0.0, "dispersion": 0.0}


def end(initial, time, resolution, forcing=None, **coefficients):
    """u(time) from functions of x, and of x and t."""
    problem = KdVBurgers(resolution=resolution, num_steps=1, interval=time)
    x = 16 * np.arange(resolution) / resolution
    forcing = forcing or (lambda x, t: 0 * x)
    *_, last = problem.frames(initial(x), lambda t: problem.torus.modes(forcing(x, t)), **coefficients)
    return x, last


def orders(errors):
    return np.log2(np.divide(errors[:-1], errors[1:]))


def test_before_a_shock_u_is_carried_along_its_characteristics():
    """E1: u(t, x) = u(0, ξ) with x = ξ + u(0, ξ) t, as long as these lines do not cross."""

    def initial(x):
        return 0.3 + 0.8 * np.sin(UNIT * x)

    errors = []
    for n in (32, 64, 128):
        x, last = end(initial, 1.5, n, **E1)
        foot = x.copy()
        for _ in range(50):  # Newton
            foot -= (foot + 1.5 * initial(foot) - x) / (1 + 1.5 * 0.8 * UNIT * np.cos(UNIT * foot))
        errors.append(np.abs(last - initial(foot)).max())
    assert orders(errors).min() > 4 and errors[-1] < 1e-5


def test_a_shock_moves_at_its_speed_and_is_sharp():
    """1 + sin κx steepens to a shock at x = 8 + t, whose sides are still carried along characteristics."""
    n, time = 128, 8.0
    x, last = end(lambda x: 1 + np.sin(UNIT * x), time, n, **E1)
    y = (x - time) % 16  # in the frame of the shock, where u - 1 is odd about 8
    distance = np.minimum(y, 16 - y)
    low, high = np.zeros(n), np.full(n, np.arccos(-1 / (UNIT * time)) / UNIT)
    for _ in range(60):  # bisection for the foot of the characteristic
        middle = (low + high) / 2
        is_low = middle + np.sin(UNIT * middle) * time < distance
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    exact = 1 + np.sign(8 - y) * np.sin(UNIT * low)
    away = np.abs(y - 8) > 3.5 * 16 / n
    assert np.abs(last - exact)[away].max() < 1e-3
    assert np.abs(last - exact).mean() < 16 / n
    assert last.mean() == pytest.approx(1.0, abs=1e-12)
    assert last.max() < exact.max() + 1e-3 and last.min() > exact.min() - 1e-3


def test_with_diffusion_u_is_that_of_cole_and_hopf():
    """E2 without forcing."""

    def initial(x):
        return np.sin(UNIT * x) + 0.3 * np.cos(2 * UNIT * x)

    errors = []
    for n in (64, 128, 256):
        x, last = end(initial, 1.5, n, convection=1.0, viscosity=0.15, dispersion=0.0)
        errors.append(np.abs(last - cole_hopf(initial(x), 0.15, 1.5, extent=16.0)).max())
    assert orders(errors).min() > 4 and errors[-1] < 1e-5


def test_with_dispersion_a_soliton_keeps_its_shape_and_speed():
    """E3 with α = 6, β = 0, γ = 1: u = c/2 sech²(√c/2 (x - c t))."""
    errors = []
    for n in (64, 128, 256):
        x, last = end(lambda x: 2 / np.cosh(x - 6) ** 2, 0.5, n, convection=6.0, viscosity=0.0, dispersion=1.0)
        errors.append(np.abs(last - 2 / np.cosh(x - 8) ** 2).max())
    assert orders(errors).min() > 4 and errors[-1] < 1e-3


def test_a_forced_wave_is_the_one_that_its_forcing_is_made_for():
    """u = 0.7 sin(κx - 1.3 t) with all three coefficients and the forcing that the equation then has."""
    alpha, beta, gamma = 2.0, 0.3, 0.5

    def wave(x, t):
        return 0.7 * np.sin(UNIT * x - 1.3 * t)

    def forcing(x, t):
        slope = 0.7 * np.cos(UNIT * x - 1.3 * t)
        linear = (-1.3 - gamma * UNIT**3) * slope + beta * UNIT**2 * wave(x, t)
        return linear + alpha * UNIT * wave(x, t) * slope

    errors = []
    for n in (16, 32, 64):
        coefficients = {"convection": alpha, "viscosity": beta, "dispersion": gamma}
        x, last = end(lambda x: wave(x, 0.0), 2.0, n, forcing, **coefficients)
        errors.append(np.abs(last - wave(x, 2.0)).max())
    assert orders(errors).min() > 4 and errors[-1] < 1e-4


def test_forced_steps_are_of_order_four():
    """E3 with α = 0, a linear equation for each wave: from û(0) to (û(0) - p) exp(λ t) + p exp(iω t).

    p = δ̂ / (iω - λ), λ = -β k² + iγ k³. Without convection a step is as long as the interval.
    """
    amplitudes, frequencies, numbers, phases = waves = KdVBurgers().draw(generator_of(0, "training", 1))["waves"]
    k, initial = UNIT * numbers, amplitudes * np.exp(1j * phases)
    rates = -0.4 * k**2 + 1j * k**3
    particular = initial / (1j * frequencies - rates)
    end = (initial - particular) * np.exp(4 * rates) + particular * np.exp(4j * frequencies)
    errors = []
    for num_steps in (1, 2, 4):
        problem = KdVBurgers(case="E3", resolution=16, num_steps=num_steps, interval=4 / num_steps)
        drawn = {"waves": waves, "convection": 0.0, "viscosity": 0.4, "dispersion": 1.0}
        *_, last = (sample.outputs["solution"] for sample in problem.simulate(drawn, None))
        errors.append(np.abs(last - (end * np.exp(1j * np.arange(16)[:, None] * k)).imag.sum(axis=1)).max())
    assert orders(errors) == pytest.approx(4.0, abs=0.6)


@pytest.mark.parametrize(
    ("case", "scalars"), [("E1", ()), ("E2", ("viscosity",)), ("E3", ("convection", "viscosity", "dispersion"))]
)
def test_samples_have_the_forcing_of_their_interval_and_the_coefficients_drawn(case, scalars):
    problem = KdVBurgers(case=case, resolution=32, num_steps=3, interval=0.2)
    parameters = problem.draw(generator_of(0, "training", 0))
    amplitudes, frequencies, numbers, phases = parameters["waves"]
    x = np.arange(32)[:, None] / 32
    samples = list(problem.simulate(parameters, None))
    for i, sample in enumerate(samples):
        for time, forcing in zip((0.2 * i, 0.2 * i + 0.1, 0.2 * i + 0.2), sample.inputs["forcing"], strict=True):
            expected = (amplitudes * np.sin(frequencies * time + 2 * np.pi * numbers * x + phases)).sum(axis=1)
            np.testing.assert_allclose(forcing, expected, atol=1e-13)
    np.testing.assert_allclose(samples[0].inputs["before"], samples[0].inputs["forcing"][0], atol=1e-14)
    arrays = problem.layout.pack(samples)
    assert arrays["fields"].shape == (3, 4, 32)
    if scalars:
        np.testing.assert_allclose(arrays["scalars"], [[parameters[name] for name in scalars]] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"case": "E4"}, "case = 'E4' is not known: E1 or E2 or E3"),
        ({"resolution": 14}, "resolution = 14 must be an even number from 16 on"),
        ({"num_steps": 0}, "num_steps = 0 is too small"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        KdVBurgers(**options)
