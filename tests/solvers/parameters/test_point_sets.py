"""Point sets: evenness against independent points and by what is known of them, and redone points."""

import numpy as np
import pytest
from scipy.stats import qmc

from penstock.solvers.parameters.point_sets import EDGE, POINT_SETS, Halton, LatinHypercube, Sobol


def points(point_set, numbers):
    return np.array([point_set.point(number) for number in numbers])


@pytest.mark.parametrize(("name", "factor"), [("sobol", 10), ("halton", 5), ("latin_hypercube", 1.5)])
def test_points_are_more_even_than_independent_ones(name, factor):
    """By SciPy's centred discrepancy, of 256 points in three dimensions."""
    independent = [qmc.discrepancy(np.random.default_rng(i).random((256, 3))) for i in range(20)]
    for seed in range(3):
        discrepancy = qmc.discrepancy(points(POINT_SETS[name](3, seed, "training"), range(256)))
        assert discrepancy < np.median(independent) / factor


def test_each_box_of_a_sobol_net_has_a_point():
    """Sobol's first two coordinates are a (0, m, 2)-net: 2^m points, one per box of area 2^-m."""
    values = points(Sobol(2, 3, "training"), range(64))
    for across in (1, 2, 4, 8, 16, 32, 64):
        boxes = (values * [across, 64 // across]).astype(int)
        assert len(np.unique(boxes, axis=0)) == 64


def test_each_box_of_a_halton_sequence_has_a_point():
    """Its bases are 2 and 3, so 36 successive points are one per box of 4 x 9."""
    values = points(Halton(2, 3, "training"), range(36, 72))
    assert len(np.unique((values * [4, 9]).astype(int), axis=0)) == 36


def test_each_block_of_a_latin_hypercube_has_a_point_per_part_of_every_coordinate():
    design = LatinHypercube(5, 3, "training")
    for block in (0, 2):
        values = points(design, range(block * design.BLOCK, (block + 1) * design.BLOCK))
        parts = np.sort((values * design.BLOCK).astype(int), axis=0)
        np.testing.assert_array_equal(parts, np.arange(design.BLOCK)[:, None] * np.ones(5, int))


@pytest.mark.parametrize("name", POINT_SETS)
def test_any_worker_redoes_a_point_in_any_order(name):
    numbers = [0, 1, 2, 300, 299, 7, 7, 1000, 0, 555]
    first = points(POINT_SETS[name](4, 5, "training"), numbers)
    for at, number in enumerate(numbers):
        np.testing.assert_array_equal(POINT_SETS[name](4, 5, "training").point(number), first[at])
    for other in ((6, "training"), (5, "validation")):
        assert np.abs(POINT_SETS[name](4, *other).point(300) - first[3]).max() > 1e-3


@pytest.mark.parametrize("name", POINT_SETS)
def test_points_are_those_of_scipy(name):
    """The sequence in one piece, from SciPy's own loop over it."""
    design = POINT_SETS[name](3, 0, "training")
    engines = {"sobol": qmc.Sobol, "halton": qmc.Halton, "latin_hypercube": qmc.LatinHypercube}
    expected = engines[name](3, rng=design._generator(0)).random(256)
    np.testing.assert_allclose(points(design, range(256)), np.clip(expected, EDGE, 1 - EDGE), rtol=0, atol=0)
