"""SciPy's adaptive methods, spectral and with central differences; steady states; the law at first."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.spectral import gray_scott
from penstock.solvers.problems.spectral.gray_scott import GrayScott
from tests.support.systems import to_scipy


def spectral(c):
    """Δc on (-1, 1)² by Fourier series."""
    k = np.pi * len(c) * np.fft.fftfreq(len(c))
    return np.fft.ifft2(-(k[:, None] ** 2 + k**2) * np.fft.fft2(c)).real


def central(c):
    """Δc on (-1, 1)² by central differences."""
    around = sum(np.roll(c, shift, axis) for shift in (1, -1) for axis in (0, 1))
    return (around - 4 * c) * (len(c) / 2) ** 2


def by_scipy(laplacian, initial, end, *, feed=0.03, kill=0.062, factor=1):
    """a and b at the end."""

    def rate(time, flat):
        a, b = flat.reshape(initial.shape)
        in_a = factor * 2e-5 * laplacian(a) - a * b**2 + feed * (1 - a)
        return np.stack([in_a, factor * 1e-5 * laplacian(b) + a * b**2 - (feed + kill) * b]).ravel()

    solution = solve_ivp(rate, (0, end), initial.ravel(), method="DOP853", rtol=1e-8, atol=1e-8)
    return solution.y[:, -1].reshape(initial.shape)


def waves(n):
    """A smooth state on n x n points."""
    x = np.pi * (2 * np.arange(n) / n - 1)
    shape = np.cos(2 * x)[:, None] * np.sin(3 * x) + np.cos(x)
    return np.stack([0.6 + 0.1 * shape, 0.3 + 0.1 * shape])


@pytest.mark.parametrize(("diffusion", "laplacian"), [("fft", spectral), ("systems", central)])
def test_trajectories_are_those_of_scipy(diffusion, laplacian, scipy_solve):
    problem = GrayScott(resolution=32, num_steps=2, interval=5.0, diffusion=diffusion)
    initial = problem.draw(generator_of(0, "training", 0))["initial"]
    *_, end = problem.frames(initial, scipy_solve)
    np.testing.assert_allclose(end, by_scipy(laplacian, initial, 10.0), atol=2e-3)


@pytest.mark.parametrize(("diffusion", "laplacian"), [("fft", spectral), ("systems", central)])
def test_steps_are_of_order_two(diffusion, laplacian, scipy_solve, monkeypatch):
    """With a hundred times the diffusion, whose part of the error is else too small to be seen."""
    monkeypatch.setattr(gray_scott, "DIFFUSIVITIES", (2e-3, 1e-3))
    initial, errors = waves(16), []
    exact = by_scipy(laplacian, initial, 4.0, factor=100)
    for step in (0.5, 0.25, 0.125):
        monkeypatch.setattr(gray_scott, "LARGEST_STEP", step)
        problem = GrayScott(resolution=16, num_steps=1, interval=4.0, diffusion=diffusion)
        *_, end = problem.frames(initial, scipy_solve)
        errors.append(np.abs(end - exact).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.4)


def test_both_ways_to_diffuse_come_together_with_order_two(scipy_solve):
    differences = []
    for n in (16, 32, 64):
        ends = [
            list(GrayScott(resolution=n, num_steps=1, interval=1.0, diffusion=way).frames(waves(n), scipy_solve))[-1]
            for way in ("fft", "systems")
        ]
        differences.append(np.abs(ends[0] - ends[1]).max())
    assert np.log2(differences[1] / differences[2]) == pytest.approx(2.0, abs=0.3)
    assert differences[2] < 1e-5


@pytest.mark.parametrize("diffusion", ["fft", "systems"])
def test_the_trivial_state_is_steady_and_uniform_states_obey_their_equation(diffusion, scipy_solve):
    problem = GrayScott(resolution=8, pattern="maze", num_steps=1, diffusion=diffusion)
    trivial = np.stack([np.ones((8, 8)), np.zeros((8, 8))])
    *_, end = problem.frames(trivial, scipy_solve)
    np.testing.assert_allclose(end, trivial, atol=1e-14)
    uniform = np.stack([np.full((8, 8), 0.5), np.full((8, 8), 0.25)])
    *_, end = problem.frames(uniform, scipy_solve)
    np.testing.assert_allclose(end, by_scipy(np.zeros_like, uniform, 10.0, feed=0.029, kill=0.057), atol=1e-5)


def test_systems_are_symmetric_positive_definite_and_of_two_families(scipy_solve):
    systems = []

    def solve(system):
        systems.append(system)
        return scipy_solve(system)

    problem = GrayScott(resolution=8, num_steps=1, interval=2.0, diffusion="systems")
    list(problem.frames(waves(8), solve))
    assert [system.family for system in systems] == 4 * ["gray_scott_a", "gray_scott_b"]
    for system in systems:
        A = to_scipy(system.A).toarray()
        assert system.is_spd and np.abs(A - A.T).max() == 0
        np.testing.assert_allclose(A.sum(axis=1), 1, atol=1e-13)
        assert np.linalg.eigvalsh(A).min() > 1 - 1e-13


def test_at_first_both_span_0_to_1():
    for i in range(5):
        a, b = GrayScott(resolution=32).draw(generator_of(0, "training", i))["initial"]
        for c in (a, b):
            assert (c.min(), c.max()) == pytest.approx((0, 1), abs=1e-12)
        assert a.mean() > 0.5 > b.mean()


def test_samples_have_both_substances(scipy_solve):
    problem = GrayScott(resolution=16, num_steps=2, interval=2.0)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 0)), scipy_solve))
    np.testing.assert_array_equal(samples[1].inputs["before"], samples[0].outputs["solution"])
    assert problem.layout.pack(samples)["targets"].shape == (2, 2, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 9}, "resolution = 9 must be an even number"),
        ({"pattern": "stars"}, "pattern = 'stars' is not known"),
        ({"diffusion": "dct"}, "diffusion = 'dct' is not known: fft or systems"),
        ({"num_steps": 0}, "num_steps = 0 is too small"),
        ({"interval": 0.0}, "interval = 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GrayScott(**options)
