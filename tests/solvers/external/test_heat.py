"""The examples against sine transforms."""

from pathlib import Path

import numpy as np
import pytest
from scipy.fft import dstn, idstn

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.external import External

SPEC = str(Path(__file__).parents[3] / "examples" / "external" / "heat.yaml")


@pytest.mark.parametrize("language", ["heat_in_c", "heat_in_fortran", "heat_on_ranks"])
def test_heat_is_that_of_sine_transforms(language, request):
    """Explicit Euler against the sine transform, which diagonalises the five-point Laplacian, to rounding.

    Two draws, so that a program is asked twice; an axis swapped by Fortran would show in both.
    """
    problem = External(command=request.getfixturevalue(language), spec=SPEC, timeout_s=60.0)
    along = 2 - 2 * np.cos(np.pi * np.arange(1, 32) / 32)
    for number in range(2):
        parameters = problem.draw(generator_of(0, "training", number))
        samples = list(problem.simulate(parameters, None))
        substeps = int(4 * parameters["diffusivity"] * 0.05 * 32**2) + 1
        factors = 1 - parameters["diffusivity"] * 0.05 / substeps * 32**2 * (along[:, None] + along)
        spectrum = dstn(parameters["initial"][1:-1, 1:-1], type=1)
        assert len(samples) == problem.num_steps == 10
        for step, sample in enumerate(samples):
            spectrum = spectrum * factors**substeps
            expected = np.pad(idstn(spectrum, type=1), 1)
            np.testing.assert_allclose(sample.outputs["temperature"], expected, atol=1e-13)
            assert (sample.step, sample.time) == (step, pytest.approx(0.05 * (step + 1)))
        arrays = problem.layout.pack(samples)
        assert arrays["fields"].shape == arrays["targets"].shape == (10, 1, 33, 33)
        np.testing.assert_array_equal(arrays["scalars"][:, 0], np.float32(parameters["diffusivity"]))
    problem.program.stop()


ANOTHER_SIZE = r"takes 1089 values, and the spec has 1024, of shape \[32 32\], of the parameter initial"


def test_a_program_in_c_that_takes_another_size_is_named(heat_in_c):
    spec = {
        "parameters": {"diffusivity": {"law": "uniform", "low": 0.01, "high": 0.1}},
        "outputs": {"temperature": {}},
    }
    problem = External(command=heat_in_c, spec=spec)
    with pytest.raises(ValueError, match=r"the spec has no parameter initial; known: diffusivity$"):
        list(problem.simulate({"diffusivity": 0.05}, None))
    spec["parameters"]["initial"] = {"law": "dirichlet_field", "resolution": 32, "num_modes": 8}
    problem = External(command=heat_in_c, spec=spec)
    with pytest.raises(ValueError, match=ANOTHER_SIZE):
        list(problem.simulate({"diffusivity": 0.05, "initial": np.zeros((32, 32))}, None))


def test_a_program_in_fortran_that_takes_another_size_is_named(heat_in_fortran):
    spec = {
        "parameters": {
            "diffusivity": {"law": "uniform", "low": 0.01, "high": 0.1},
            "initial": {"law": "dirichlet_field", "resolution": 32, "num_modes": 8},
        },
        "outputs": {"temperature": {}},
    }
    problem = External(command=heat_in_fortran, spec=spec)
    with pytest.raises(ValueError, match=ANOTHER_SIZE):
        list(problem.simulate({"diffusivity": 0.05, "initial": np.zeros((32, 32))}, None))
