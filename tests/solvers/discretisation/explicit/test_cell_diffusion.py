"""The exponential of the matrix, conservation, positivity."""

import numpy as np
import pytest
from scipy.linalg import expm

from penstock.solvers.discretisation.explicit.cell_diffusion import CellDiffusion


def second_difference(n, spacing, is_periodic):
    A = -2 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)
    if is_periodic:
        A[0, -1] += 1
        A[-1, 0] += 1
    else:
        A[0, 0] = A[-1, -1] = -1
    return A / spacing**2


@pytest.mark.parametrize("is_periodic", [True, False])
@pytest.mark.parametrize("shape", [(9,), (6, 5)])
def test_diffusion_is_the_exponential_of_the_matrix(shape, is_periodic):
    spacing, diffusivities = 0.3, (0.1, 0.7)
    u = np.random.default_rng(0).standard_normal((2, *shape))
    later = CellDiffusion(shape, spacing, diffusivities, is_periodic=is_periodic).flow(u, 0.4)
    for before, after, diffusivity in zip(u, later, diffusivities, strict=True):
        expected = before
        for axis, n in enumerate(shape):
            step = expm(0.4 * diffusivity * second_difference(n, spacing, is_periodic))
            expected = np.moveaxis(np.tensordot(step, expected, axes=(1, axis)), 0, axis)
        np.testing.assert_allclose(after, expected, atol=1e-13)


@pytest.mark.parametrize("is_periodic", [True, False])
def test_what_is_in_one_cell_spreads_to_positive_values_with_the_same_sum(is_periodic):
    diffusion = CellDiffusion((16,), 1.0, [1.0], is_periodic=is_periodic)
    u = np.zeros((1, 16))
    u[0, 3] = 1.0
    for time in (0.01, 1.0, 0.01, 100.0):
        later = diffusion.flow(u, time)
        assert later.min() > -1e-15 and later.sum() == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(later, 1 / 16, atol=0.02)
