"""Series of eigenfunctions, the period, the law of the ends."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.spectral.wave_1d import Wave1D


def series(x, time, start, left_end, right_end):
    """The solution by eigenfunctions of the interval, 0 standing for Dirichlet and 1 for Neumann."""
    numbers = np.arange(90) + (0.5 if left_end != right_end else 0.0)
    k = np.pi * numbers[:, None] / 16
    shape = np.cos if left_end else np.sin
    y = np.linspace(-8, 8, 4001)
    modes = shape(k * (y + 8))
    pulse = np.exp(-((y - start) ** 2))
    squares = np.maximum(np.trapezoid(modes**2, y, axis=1), 1e-30)
    at_first = np.trapezoid(pulse * modes, y, axis=1) / squares
    speeds = np.trapezoid(-4 * (y - start) * pulse * modes, y, axis=1) / squares
    phases = 2 * k[:, 0] * time
    amplitudes = at_first * np.cos(phases) + speeds * time * np.sinc(phases / np.pi)
    return amplitudes @ shape(k * (x + 8))


@pytest.mark.parametrize(("left_end", "right_end"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_frames_are_those_of_a_series_of_eigenfunctions(left_end, right_end):
    problem = Wave1D(resolution=65, num_steps=4, interval=3.7, history=1)
    x = np.linspace(-8, 8, 65)
    for number, frame in enumerate(problem.frames(1.3, left_end=left_end, right_end=right_end)):
        np.testing.assert_allclose(frame, series(x, 3.7 * number, 1.3, left_end, right_end), atol=1e-10)


@pytest.mark.parametrize(("left_end", "right_end", "sign"), [(0, 0, 1), (1, 1, 1), (0, 1, -1), (1, 0, -1)])
def test_a_pulse_is_back_after_sixteen_units_upside_down_where_the_ends_differ(left_end, right_end, sign):
    """It has then travelled twice the interval, with one reflection of each kind."""
    problem = Wave1D(num_steps=1, interval=16.0, history=1)
    first, later = problem.frames(-2.0, left_end=left_end, right_end=right_end)
    np.testing.assert_allclose(later, sign * first, atol=1e-12)


def test_mixed_ends_are_drawn_each_on_its_own():
    problem = Wave1D()
    draws = [problem.draw(generator_of(0, "training", i)) for i in range(400)]
    kinds = [(draw["left_end"], draw["right_end"]) for draw in draws]
    assert [kinds.count(kind) for kind in ((0, 0), (0, 1), (1, 0), (1, 1))] == pytest.approx([100] * 4, abs=35)


@pytest.mark.parametrize(("ends", "value"), [("dirichlet", 0.0), ("neumann", 1.0)])
def test_equal_ends_are_those_of_the_option(ends, value):
    problem = Wave1D(ends=ends, num_steps=3, history=1)
    parameters = problem.draw(generator_of(0, "training", 0))
    solutions = [sample.outputs["solution"] for sample in problem.simulate(parameters, None)]
    expected = list(problem.frames(parameters["start"], left_end=value, right_end=value))[1:]
    np.testing.assert_array_equal(solutions, expected)
    assert [spec.name for spec in problem.inputs] == ["before"]


def test_samples_pack_with_the_ends_that_were_drawn():
    problem = Wave1D(resolution=32, num_steps=5, history=3)
    parameters = problem.draw(generator_of(0, "training", 0))
    arrays = problem.layout.pack(list(problem.simulate(parameters, None)))
    assert arrays["fields"].shape == (5, 3, 32) and arrays["targets"].shape == (5, 1, 32)
    np.testing.assert_array_equal(arrays["scalars"], [[parameters["left_end"], parameters["right_end"]]] * 5)
    np.testing.assert_array_equal(arrays["fields"][1:, -1], arrays["targets"][:-1, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 8}, "resolution = 8 is too small"),
        ({"ends": "robin"}, "ends = 'robin' is not known: dirichlet or neumann or mixed"),
        ({"history": 0}, "history = 0 is too small"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Wave1D(**options)
