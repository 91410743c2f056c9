"""Samples shift by the way of an interval."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.finite_volume.advection import Advection


def test_what_moves_a_whole_number_of_cells_is_the_same_array_shifted():
    """β Δt = 0.25 is 16 of 64 cells."""
    problem = Advection(resolution=64, speed=0.5, num_steps=3, interval=0.5)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 0)), solve=None))
    for sample in samples:
        np.testing.assert_allclose(sample.outputs["solution"], np.roll(sample.inputs["before"], 16), atol=1e-12)
    np.testing.assert_array_equal(samples[1].inputs["before"], samples[0].outputs["solution"])
    assert [sample.time for sample in samples] == [0.5, 1.0, 1.5]
    problem.layout.pack(samples)


def test_values_obey_the_equation():
    """∂u/∂t = -β ∂u/∂x by central differences, for draws without kinks."""
    problem = Advection(resolution=2000, speed=-0.7, num_steps=2, interval=1e-3)
    draws = (problem.draw(generator_of(0, "training", i)) for i in range(50))
    wave = next(draw for draw in draws if not draw["initial"].is_absolute)
    before, middle = (sample.inputs["before"] for sample in problem.simulate(wave, solve=None))
    *_, last = problem.simulate(wave, solve=None)
    in_time = (last.outputs["solution"] - before) / 2e-3
    in_space = (np.roll(middle, -1) - np.roll(middle, 1)) * 1000
    np.testing.assert_allclose(in_time, 0.7 * in_space, atol=0.02 * np.abs(in_space).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 7}, "resolution = 7 is too small"),
        ({"speed": np.nan}, "speed = nan must be finite"),
        ({"num_steps": 0}, "num_steps = 0 is too small"),
        ({"interval": 0.0}, "interval = 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Advection(**options)
