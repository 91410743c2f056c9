"""The Cole-Hopf solution, the law at first."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.spectral.burgers import Burgers
from tests.support.cole_hopf import cole_hopf


@pytest.mark.parametrize(("resolution", "viscosity", "tolerance"), [(512, 0.1, 1e-9), (1024, 0.01, 1e-6)])
def test_trajectories_are_those_of_cole_and_hopf(resolution, viscosity, tolerance):
    problem = Burgers(resolution=resolution, viscosity=viscosity, num_steps=2, interval=0.5)
    initial = problem.draw(generator_of(0, "training", 0))["initial"]
    for time, frame in zip((0.0, 0.5, 1.0), problem.frames(initial), strict=True):
        np.testing.assert_allclose(frame, cole_hopf(initial, viscosity, time), atol=tolerance)


def test_the_law_at_first_is_that_of_the_paper_and_almost_nothing_is_left_at_its_viscosity():
    """The sum over k != 0 of 625 (4π²k² + 25)^-2 is 0.594²; of 7⁴ (4π²k² + 49)^-2.5 it is 0.274²."""
    for law, expected in (("paper", 0.594), ("code", 0.274)):
        assert np.sqrt(Burgers(law=law).space.distributions["initial"].variance) == pytest.approx(expected, abs=2e-3)
    problem = Burgers(resolution=128)
    samples = [sample for i in range(40) for sample in problem.simulate(problem.draw(generator_of(0, "x", i)), None)]
    assert np.std([sample.outputs["solution"] for sample in samples]) == pytest.approx(0.0095, rel=0.3)
