"""Boxes of simplices: their number, their volume, and that they fit together."""

from math import factorial, prod

import numpy as np
import pytest

from penstock.arrays.simplices import checked_cells, measures
from penstock.solvers.discretisation.elements.triangulation import box


@pytest.mark.parametrize("num_cells", [(4,), (3, 5), (2, 3, 4)])
def test_a_box_is_cut_into_equal_simplices_that_share_their_facets(num_cells):
    """A facet inside belongs to two simplices; there are d! per cell, and (d - 1)! facets per face on the boundary."""
    points, cells = checked_cells(*box(num_cells))
    d = len(num_cells)
    assert len(cells) == factorial(d) * prod(num_cells)
    np.testing.assert_allclose(measures(points, cells), 1 / len(cells), rtol=1e-12)
    np.testing.assert_array_equal(points.reshape(*np.add(num_cells, 1), d)[(-1,) * d], np.ones(d))
    facets = np.concatenate([np.delete(np.sort(cells, axis=1), corner, axis=1) for corner in range(d + 1)])
    _, counts = np.unique(facets, axis=0, return_counts=True)
    assert counts.max() == 2
    assert (counts == 1).sum() == factorial(d - 1) * 2 * sum(prod(num_cells) // n for n in num_cells)
