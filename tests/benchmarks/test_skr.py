"""The matrices of SKR against their construction."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from benchmarks.solvers.skr import PeriodicField, SKRDarcy
from penstock.solvers.parameters.space import generator_of
from tests.support.systems import laplacian, to_scipy


def drawn(problem: SKRDarcy, i: int) -> np.ndarray:
    return problem.draw(generator_of(0, f"A {problem.resolution + 2}", i))["coefficient"]


def test_the_mended_matrix_is_the_laplacian_times_the_coefficient():
    problem, n = SKRDarcy(resolution=7, mended=True), 7
    for i in (0, 3):
        coefficient = drawn(problem, i)
        system = problem.system(coefficient)
        a = problem.features({"coefficient": coefficient}).reshape(n + 2, n)[1:-1].ravel()
        np.testing.assert_allclose(
            to_scipy(system.A).toarray(), laplacian(n, n).toarray() @ np.diag(a), rtol=1e-12, atol=1e-14
        )
        np.testing.assert_allclose(system.b.array_r, 1 / (n - 1) ** 2)


def test_the_published_matrix_has_late_northern_coefficients():
    n = 7
    problems = [SKRDarcy(resolution=n, mended=mended) for mended in (False, True)]
    published, mended = (to_scipy(problem.system(drawn(problem, 2)).A).toarray() for problem in problems)
    north = (np.arange(n, n * n), np.arange(n * (n - 1)))
    np.testing.assert_array_equal(np.argwhere(published != mended), np.column_stack(north))
    # Two points late: where the mended diagonal has the coefficient of point j, the published one has that of j - 2.
    np.testing.assert_array_equal(published[north][2:], mended[north][:-2])


def test_the_published_matrix_is_indefinite_at_full_size():
    problem = SKRDarcy(resolution=98)
    A = to_scipy(problem.system(drawn(problem, 0)).A)
    smallest = scipy.sparse.linalg.eigs(A, k=2, sigma=0, return_eigenvectors=False)
    assert smallest.real.min() < 0
    problem = SKRDarcy(resolution=98, mended=True)
    mended = to_scipy(problem.system(drawn(problem, 0)).A)
    assert scipy.sparse.linalg.eigs(mended, k=1, sigma=0, return_eigenvectors=False).real.min() > 0


def test_the_field_has_the_spectrum_of_its_formula():
    n, draws = 16, 2000
    field, generator = PeriodicField(n), np.random.default_rng(0)
    power = np.mean([np.abs(np.fft.fft2(field.draw(generator)) / n**2) ** 2 for _ in range(draws)], axis=0)
    assert power[0, 0] == pytest.approx(0, abs=1e-30)
    for k in ((0, 1), (1, 0), (2, 3), (5, 1)):
        root = np.sqrt(2) * 7**1.5 * (4 * np.pi**2 * (k[0] ** 2 + k[1] ** 2) + 49) ** -1.25
        assert power[k] == pytest.approx(root**2 / 2, rel=0.1)  # half, because it is the real part of a complex field
