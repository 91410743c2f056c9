"""One soliton and two in closed form, the order of the steps, what is conserved, damping."""

import numpy as np
import pytest

from penstock.solvers.discretisation.explicit.spectral import ExponentialTimeDifferencingRK4, QuadraticFlux
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.spectral.korteweg_de_vries import KortewegDeVries


def points(problem):
    return 50.0 * np.arange(problem.resolution) / problem.resolution - 25.0


def soliton(x, time, speed):
    """u = c/2 sech²(√c/2 (x - c t)) (Korteweg and de Vries, 1895)."""
    return speed / 2 / np.cosh(np.sqrt(speed) / 2 * (x - speed * time)) ** 2


def two_solitons(x, time):
    """The solution from 6 sech² x (Hirota 1971; Drazin and Johnson 1989, section 1.4)."""
    over = 12 * (3 + 4 * np.cosh(2 * x - 8 * time) + np.cosh(4 * x - 64 * time))
    return over / (3 * np.cosh(x - 28 * time) + np.cosh(3 * x - 36 * time)) ** 2


def test_a_soliton_keeps_its_shape_and_speed():
    problem = KortewegDeVries(num_steps=2, interval=1.0)
    x = points(problem)
    for time, frame in enumerate(problem.frames(soliton(x, 0.0, 4.0))):
        np.testing.assert_allclose(frame, soliton(x, time, 4.0), atol=3e-5)


def test_two_solitons_pass_through_each_other():
    """From t = -0.3, the taller behind, to 0.3, where it is ahead; at 0 both are one peak of height 6."""
    problem = KortewegDeVries(resolution=512, num_steps=2, interval=0.3)
    x = points(problem)
    for time, frame in zip((-0.3, 0.0, 0.3), problem.frames(two_solitons(x, -0.3)), strict=True):
        np.testing.assert_allclose(frame, two_solitons(x, time), atol=5e-3)


def test_steps_are_of_order_four():
    problem = KortewegDeVries(resolution=384)
    torus, x = problem.torus, points(problem)
    method = ExponentialTimeDifferencingRK4(-(torus.gradient[0] ** 3), QuadraticFlux(torus, 6.0))
    modes = torus.modes(soliton(x, 0.0, 4.0))
    errors = [
        np.abs(torus.values(method.advance(modes, 0.0, 1.0, step)) - soliton(x, 1.0, 4.0)).max()
        for step in (0.01, 0.005, 0.0025)
    ]
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(4.0, abs=0.5)


def test_mass_momentum_and_energy_stay_what_they_are():
    """The first three of the equation's invariants (Miura, Gardner and Kruskal, 1968)."""
    problem = KortewegDeVries(num_steps=20)
    torus = problem.torus

    def invariants(u):
        slope = torus.values(torus.gradient[0] * torus.modes(u))
        return [u.mean(), (u**2).mean(), (2 * u**3 - slope**2).mean()]

    first, *_, last = problem.frames(problem.draw(generator_of(0, "training", 0))["initial"])
    assert np.abs(last - first).max() > 0.1
    np.testing.assert_allclose(invariants(last), invariants(first), atol=1e-6)


def test_small_waves_disperse_and_are_damped():
    """cos kx becomes exp(-μ k⁴ t) cos(kx + k³ t) where it is small."""
    problem = KortewegDeVries(resolution=64, hyperviscosity=0.125, num_steps=1, interval=2.0)
    k, x = 2 * np.pi * 7 / 50, points(problem)
    _, frame = problem.frames(1e-9 * np.cos(k * x))
    np.testing.assert_allclose(1e9 * frame, np.exp(-0.125 * k**4 * 2) * np.cos(k * x + 2 * k**3), atol=1e-7)


def test_samples_pack():
    problem = KortewegDeVries(resolution=64, num_steps=3)
    arrays = problem.layout.pack(list(problem.simulate(problem.draw(generator_of(0, "training", 0)), None)))
    assert arrays["fields"].shape == arrays["targets"].shape == (3, 1, 64)
    np.testing.assert_array_equal(arrays["fields"][1:], arrays["targets"][:-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 62}, "resolution = 62 must be an even number from 64 on"),
        ({"hyperviscosity": -0.1}, "hyperviscosity = -0.1 must be 0 or above"),
        ({"num_steps": 0}, "num_steps = 0 is too small"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        KortewegDeVries(**options)
