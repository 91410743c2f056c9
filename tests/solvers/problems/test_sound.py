"""Modes of a room in closed form, energy, reflection at a wall, a pulse in the open against SciPy."""

import numpy as np
import pytest
from scipy.integrate import quad_vec
from scipy.special import j0

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.transient.sound import SPEED, Room, Sound


@pytest.fixture(scope="module")
def solve():
    return LinearSolver(Direct(), rtol=1e-10)


MIDDLE = {"source_x": 1.5, "source_y": 1.5}
PLACE = {"source_x": 1.1, "source_y": 1.7}


def advanced(room, pressure, rate, solve):
    step = room.advance(pressure, rate)
    with pytest.raises(StopIteration) as end:
        step.send(solve(next(step)))
    return end.value.value


def orders(errors):
    return np.log2(np.divide(errors[:-1], errors[1:]))


def test_a_mode_between_hard_walls_is_exact_but_for_the_step_and_the_fourth_order_of_its_frequency(solve):
    """cos(2πx/a) cos(πy/b) cos(ωt) with ω = c π √(4/a² + 1/b²), on a = 3 m and b = 1.5 m, for a period."""
    a, b, errors = 3.0, 1.5, []
    for n in (8, 16, 32):
        omega = SPEED * np.pi * np.hypot(2 / a, 1 / b)
        num_steps = n**2 // 4  # so that both errors fall by 16
        period = 2 * np.pi / omega
        room = Room((n, n // 2), spacing=a / n, impedances=(np.inf, np.inf), time_step=period / num_steps)
        x, y = np.arange(n + 1) / n, np.arange(n // 2 + 1) / (n // 2)
        mode = np.outer(np.cos(2 * np.pi * x), np.cos(np.pi * y)).ravel()
        pressure, rate = mode, np.zeros_like(mode)
        for _ in range(num_steps):
            pressure, rate = advanced(room, pressure, rate, solve)
        rate_error = rate @ mode / (mode @ mode) / omega  # the sine of the phase, of first order in its error
        np.testing.assert_allclose(pressure, pressure[0] * mode, atol=1e-7)
        errors.append(abs(rate_error))
    assert orders(errors) == pytest.approx(4.0, abs=0.2)


def test_steps_in_time_are_of_second_order(solve):
    """The mode cos(πx/L) of the problem's room, whose error in space is 1e-6."""
    errors = []
    for num_steps in (20, 40, 80):
        room = Room((32, 32), spacing=3 / 32, impedances=(np.inf, np.inf), time_step=6 / SPEED / num_steps)
        mode = np.repeat(np.cos(np.pi * np.arange(33) / 32), 33)
        pressure, rate = mode, np.zeros_like(mode)
        for _ in range(num_steps):  # one period
            pressure, rate = advanced(room, pressure, rate, solve)
        errors.append(abs(rate).max())
    assert orders(errors) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("impedance", [np.inf, 5.83])
def test_energy_stays_between_hard_walls_and_falls_between_others(solve, impedance):
    problem = Sound(resolution=30, impedance=impedance, num_substeps=4, interval=1e-3)
    pressure = next(problem.simulate(PLACE, solve)).inputs["source"].ravel()
    rate, energies = np.zeros_like(pressure), []
    for _ in range(100):
        energies.append(problem.room.energy(pressure, rate))
        pressure, rate = advanced(problem.room, pressure, rate, solve)
    if impedance == np.inf:
        assert energies == pytest.approx(100 * [energies[0]], rel=1e-8)
    else:
        assert (np.diff(energies) < 1e-9 * energies[0]).all() and energies[-1] < 0.6 * energies[0]


@pytest.mark.parametrize("impedance", [1.0, 5.83, 0.5])
def test_a_wall_returns_its_part_of_a_wave_in_a_duct(solve, impedance):
    """(ξ - 1) / (ξ + 1) of a pulse exp(-(x - ct)² / w²) that comes straight to x = 3 m."""
    n, length, width = 300, 3.0, 0.2
    spacing = length / n
    room = Room((n, 1), spacing=spacing, impedances=(impedance, np.inf), time_step=spacing / 2 / SPEED)
    x = np.repeat(np.arange(n + 1) * spacing, 2)
    pressure = np.exp(-((x - 1.5) ** 2) / width**2)
    rate = 2 * SPEED * (x - 1.5) / width**2 * pressure
    for _ in range(600):  # 3 m
        pressure, rate = advanced(room, pressure, rate, solve)
    expected = (impedance - 1) / (impedance + 1) * np.exp(-((x - 1.5) ** 2) / width**2)
    np.testing.assert_allclose(pressure, expected, atol=5e-3)


def test_a_pulse_in_the_open_against_its_fourier_integral(solve):
    """Before sound comes from the walls, p = w²/2 ∫ k J0(k r) cos(c k t) exp(-k² w² / 4) dk."""
    problem = Sound(num_steps=3)
    *_, sample = problem.simulate(MIDDLE, solve)
    assert sample.time == pytest.approx(3e-3)
    r = abs(problem.grid.axes()[0] - 1.5)
    w = problem.width
    expected, _ = quad_vec(
        lambda k: w**2 / 2 * k * j0(k * r) * np.cos(SPEED * k * sample.time) * np.exp(-(k**2) * w**2 / 4), 0, 12 / w
    )
    near = r < 1.2
    np.testing.assert_allclose(sample.outputs["pressure"][near, 24], expected[near], atol=5e-3)
    np.testing.assert_allclose(sample.outputs["pressure"][24, near], expected[near], atol=5e-3)


def test_samples_pack(solve):
    problem = Sound(resolution=30, num_steps=2, num_substeps=4)
    parameters = problem.draw(generator_of(0, "training", 0))
    samples = list(problem.simulate(parameters, solve))
    arrays = problem.layout.pack(samples)
    assert {name: array.shape for name, array in arrays.items()} == {
        "fields": (2, 1, 31, 31),
        "scalars": (2, 1),
        "targets": (2, 1, 31, 31),
    }
    i, j = np.unravel_index(samples[0].inputs["source"].argmax(), (31, 31))
    assert (i / 10, j / 10) == pytest.approx((parameters["source_x"], parameters["source_y"]), abs=0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 29},
        {"width": 0.6},
        {"impedance": 0.0},
        {"num_steps": 0},
        {"interval": 0.0},
        {"num_substeps": 3},
    ],
)
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        Sound(**options)
