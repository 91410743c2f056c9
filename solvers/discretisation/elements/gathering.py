"""Values that are distributed over MPI ranks, brought together on each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mpi4py import MPI


class Gathering:
    """The way from values on all ranks to one array, which every rank receives.

    A problem then goes on as on one rank: a sample holds whole fields, and so does the next time step.

    Args:
        comm: the ranks.
        dofs: degrees of freedom that this rank owns, int [N].
        places: where their values belong in the whole array, int [N]; each place belongs to one rank.
    """

    def __init__(self, comm: MPI.Comm, dofs: np.ndarray, places: np.ndarray):
        order = np.argsort(places)
        self._comm = comm
        self._dofs = dofs[order]
        everyones = comm.allgather(places[order])
        self._counts = [len(each) for each in everyones]
        self._order = np.argsort(np.concatenate(everyones))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The whole array, [P, ...].

        Args:
            values: those at all degrees of freedom that this rank owns, [number of dofs, ...].
        """
        own = values[self._dofs]
        if self._comm.size == 1:
            return own
        gathered = np.empty((len(self._order), *own.shape[1:]))
        width = gathered[0].size
        self._comm.Allgatherv(own, [gathered, [width * count for count in self._counts]])
        return gathered[self._order]
