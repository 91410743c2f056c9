"""Growth rates of small modes, the budget of energy, the order of the steps, what the warm-up drops."""

import numpy as np
import pytest
from scipy.integrate import simpson, solve_ivp

from penstock.solvers.discretisation.explicit.spectral import ExponentialTimeDifferencingRK4, QuadraticFlux
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.spectral.kuramoto_sivashinsky import KuramotoSivashinsky


@pytest.mark.parametrize("number", [1, 6, 7, 9, 12])
def test_small_modes_grow_or_decay_at_their_rates(number):
    """exp((k² - k⁴) t), fastest at k = 1/√2, that is between the modes 6 and 7, and decay beyond k = 1."""
    problem = KuramotoSivashinsky(resolution=64, num_steps=1, interval=4.0, warm_up=0)
    k, x = 2 * np.pi * number / 60, 60 * np.arange(64) / 64
    _, frame = problem.frames(1e-9 * np.cos(k * x))
    np.testing.assert_allclose(1e9 * frame, np.exp(4 * (k**2 - k**4)) * np.cos(k * x), atol=1e-6)


def test_energy_changes_by_what_long_waves_gain_and_short_waves_lose():
    """d/dt <u²>/2 = <(∂u/∂x)²> - <(∂²u/∂x²)²>: convection only moves energy from mode to mode."""
    problem = KuramotoSivashinsky(num_steps=80, interval=0.05, warm_up=0)
    torus = problem.torus
    start = KuramotoSivashinsky(num_steps=1, interval=10.0, warm_up=3)
    *_, initial = start.frames(start.draw(generator_of(0, "training", 0))["initial"])
    frames = np.array(list(problem.frames(initial)))
    slope, curvature = (
        np.array([torus.values(factor * torus.modes(frame)) for frame in frames])
        for factor in (torus.gradient[0], torus.squares)
    )
    gain = simpson((slope**2 - curvature**2).mean(axis=1), dx=0.05)
    energy = (frames**2).mean(axis=1) / 2
    assert abs(energy[-1] - energy[0]) > 1e-3
    assert energy[-1] - energy[0] == pytest.approx(gain, abs=1e-6)


def test_steps_are_of_order_four():
    """Against SciPy's DOP853 on the same modes."""
    problem = KuramotoSivashinsky(resolution=64)
    torus = problem.torus
    k = 2 * np.pi / 60 * np.arange(33)
    resolved = np.arange(33) < 64 / 3

    def change(time, modes):
        square = np.fft.rfft(np.fft.irfft(modes) ** 2)
        return (k**2 - k**4) * modes - 0.5j * k * resolved * square

    modes = torus.modes(2.0 * problem.draw(generator_of(0, "training", 0))["initial"])
    exact = solve_ivp(change, (0.0, 4.0), modes, method="DOP853", rtol=1e-10, atol=1e-10).y[:, -1]
    method = ExponentialTimeDifferencingRK4(torus.squares - torus.squares**2, QuadraticFlux(torus, 1.0))
    errors = [np.abs(torus.values(method.advance(modes, 0.0, 4.0, step) - exact)).max() for step in (0.2, 0.1, 0.05)]
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(4.0, abs=0.4)
    assert errors[-1] < 1e-4


def test_after_the_warm_up_gain_and_loss_of_energy_are_in_balance():
    """Averages over 100 units of time of the slope's and the curvature's mean squares."""
    problem = KuramotoSivashinsky(resolution=96, num_steps=100, interval=1.0, warm_up=50)
    torus = problem.torus
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 0)), None))
    modes = np.array([torus.modes(sample.outputs["solution"]) for sample in samples])
    slope, curvature = ((np.abs(factor * modes) ** 2).mean() for factor in (torus.gradient[0], torus.squares))
    assert curvature == pytest.approx(slope, rel=0.02)
    assert max(abs(sample.outputs["solution"].mean()) for sample in samples) < 1e-12


def test_samples_begin_after_the_warm_up():
    problem = KuramotoSivashinsky(resolution=64, num_steps=2, warm_up=3)
    parameters = problem.draw(generator_of(0, "training", 0))
    frames = list(problem.frames(parameters["initial"]))
    samples = list(problem.simulate(parameters, None))
    np.testing.assert_array_equal([sample.inputs["before"] for sample in samples], frames[3:5])
    np.testing.assert_array_equal([sample.outputs["solution"] for sample in samples], frames[4:])
    assert problem.layout.pack(samples)["fields"].shape == (2, 1, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 62}, "resolution = 62 must be an even number from 64 on"),
        ({"warm_up": -1}, "warm_up = -1 is a number of intervals"),
        ({"interval": 0.0}, "interval = 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        KuramotoSivashinsky(**options)
