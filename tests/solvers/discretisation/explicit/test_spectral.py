"""Derivatives, aliases, and the order of the steps, against solutions in closed form."""

import numpy as np
import pytest

from penstock.solvers.discretisation.explicit.spectral import (
    ExponentialTimeDifferencingRK4,
    IntegratingFactorRK4,
    QuadraticFlux,
    Torus,
    trajectory,
)


def test_derivatives_of_what_is_resolved_are_exact():
    torus = Torus(16, 2, extent=3.0)
    x, y = np.meshgrid(*2 * [3.0 * np.arange(16) / 16], indexing="ij")
    unit = 2 * np.pi / 3.0
    modes = torus.modes(np.sin(2 * unit * x) * np.cos(5 * unit * y))
    along_x, along_y = (torus.values(factor * modes) for factor in torus.gradient)
    np.testing.assert_allclose(along_x, 2 * unit * np.cos(2 * unit * x) * np.cos(5 * unit * y), atol=1e-12)
    np.testing.assert_allclose(along_y, -5 * unit * np.sin(2 * unit * x) * np.sin(5 * unit * y), atol=1e-12)
    laplacian = torus.values(-torus.squares * modes)
    np.testing.assert_allclose(laplacian, -29 * unit**2 * torus.values(modes), atol=1e-11)


def test_a_sawtooth_has_no_derivative():
    torus = Torus(8)
    assert np.abs(torus.gradient[0] * torus.modes((-1.0) ** np.arange(8))).max() == 0


def test_products_of_resolved_modes_are_not_aliased():
    """Of cos(5·2πx)² on 16 points the mode 10 comes back as mode 6, and is no resolved one."""
    torus = Torus(16)
    square = torus.modes(np.cos(2 * np.pi * 5 * np.arange(16) / 16) ** 2)
    resolved = torus.is_resolved * square
    assert resolved[0] == pytest.approx(8) and np.abs(resolved[1:]).max() < 1e-12 < np.abs(square[6])


@pytest.mark.parametrize("rk4", [IntegratingFactorRK4, ExponentialTimeDifferencingRK4])
def test_the_linear_part_is_exact_and_the_rest_of_order_four(rk4):
    """û' = λ û + cos t with λ = -30 stiff, whose solution has a closed form."""
    rate = np.array([-30.0])
    method = rk4(rate, lambda modes, time: np.zeros(1))
    np.testing.assert_allclose(method.advance(np.ones(1), 0.0, 0.7, 0.7), np.exp(-21.0), rtol=1e-12)

    method = rk4(rate, lambda modes, time: np.full(1, np.cos(time)))

    def exact(time):
        steady = (np.sin(time) + 30 * np.cos(time)) / 901
        return steady + (1 - 30 / 901) * np.exp(-30 * time)

    steps = (0.02, 0.01, 0.005)
    errors = [abs(method.advance(np.ones(1), 0.0, 1.0, step)[0] - exact(1.0)) for step in steps]
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(4.0, abs=0.2)


def test_an_interval_is_done_again_when_the_state_grows_and_a_blow_up_is_said():
    """u' = u² from u = 1 is 1 / (1 - t): steps must shrink before t = 1, and none is short enough after it."""
    torus = Torus(2)

    def square(modes, time):
        return torus.modes(torus.values(modes) ** 2)

    def largest_step(modes):
        return 0.05 / np.abs(torus.values(modes)).max()

    method = IntegratingFactorRK4(np.zeros(2), square)
    options = {"num_frames": 2, "largest_step": largest_step}
    *_, end = trajectory(torus, method, np.ones(2), interval=0.95, **options)
    np.testing.assert_allclose(end, 20.0, rtol=1e-3)
    for bound in (largest_step, lambda modes: min(0.05, largest_step(modes))):  # min drops what is no number
        options = {"num_frames": 2, "largest_step": bound}
        with np.errstate(all="ignore"), pytest.raises(ArithmeticError, match="beyond all bounds between t = 1 and 1"):
            list(trajectory(torus, method, np.ones(2), interval=1.5, **options))


def test_a_travelling_wave_of_burgers_keeps_its_mean_and_its_step_is_that_of_its_speed():
    torus = Torus(64)
    flux = QuadraticFlux(torus, 2.0)
    modes = torus.modes(3.0 + np.sin(2 * np.pi * np.arange(64) / 64))
    assert flux(modes, 0.0)[0] == 0
    assert flux.largest_step(modes) == pytest.approx(0.5 / 64 / 8.0)
