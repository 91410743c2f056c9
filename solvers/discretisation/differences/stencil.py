"""One PETSc matrix for a stencil on a regular grid, overwritten in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from penstock.solvers import mpi

if TYPE_CHECKING:
    from petsc4py import PETSc


class StencilMatrix:
    """A matrix that couples grid points at the same few offsets from each other.

    Rows and columns are the grid's points in C order. Neighbours outside the grid have no entry. New values for 40,000
    rows of 5 points take 1 ms.

    Args:
        shape: points along each axis.
        offsets: distance of the coupled points along each axis, in points; (0, ..., 0) among them.
        absent: bool [offsets, *shape], the entries that shall not be part of the pattern.
        block_size: unknowns of a point, where the last axis counts them.
        is_spd: whether all matrices are symmetric positive definite.
    """

    def __init__(
        self,
        shape: Sequence[int],
        offsets: Sequence[Sequence[int]],
        *,
        absent: np.ndarray | None = None,
        block_size: int = 1,
        is_spd: bool = False,
    ):
        mpi.start()
        from petsc4py import PETSc

        num_points = int(np.prod(shape))
        index = np.indices(shape)
        neighbours = index[None] + np.reshape(offsets, (len(offsets), len(shape)) + (1,) * len(shape))
        bounds = np.reshape(shape, (-1,) + (1,) * len(shape))
        present = np.all((neighbours >= 0) & (neighbours < bounds), axis=1)
        if absent is not None:
            present &= ~absent
        rows = np.broadcast_to(np.arange(num_points).reshape(shape), present.shape)[present]
        columns = np.ravel_multi_index(tuple(np.moveaxis(neighbours, 1, 0)[:, present]), shape)
        order = np.lexsort((columns, rows))
        self._places = np.flatnonzero(present)[order]
        self._columns = columns[order].astype(PETSc.IntType)
        self._row_starts = np.searchsorted(rows[order], np.arange(num_points + 1)).astype(PETSc.IntType)
        csr = (self._row_starts, self._columns, np.zeros(self._places.size))
        self.mat = PETSc.Mat().createAIJ((num_points, num_points), csr=csr, bsize=block_size, comm=PETSc.COMM_SELF)
        self.mat.setOption(PETSc.Mat.Option.SPD, is_spd)

    def overwrite(self, values: np.ndarray) -> PETSc.Mat:
        """Set all entries.

        Args:
            values: [offsets, *shape], each entry indexed by the point of its row.

        Returns:
            The matrix, always the same object.
        """
        # Values written behind PETSc's back, in arrays shared with it, leave the inverted diagonal of pbjacobi stale.
        self.mat.setValuesCSR(self._row_starts, self._columns, values.ravel()[self._places])
        self.mat.assemble()
        return self.mat
