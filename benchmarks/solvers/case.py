"""What a case of the solvers' bench is."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from penstock.solvers.problem import LinearSystem


class Case(Protocol):
    """A family of systems, one for every i = 0, 1, 2, ... Cheap to construct; meshes and matrices come on first use."""

    name: str
    """Short. A name that ends in `num_unknowns` is one size of several, and shares a plot with the others."""
    title: str
    """One line of prose."""
    num_unknowns: int
    is_sequence: bool
    """The systems follow from one another (time steps, Newton steps), so they are solved in order and never sorted."""

    def system(self, i: int) -> LinearSystem:
        """System i, assembled in place into the case's one matrix and vector; a function of i and of nothing else."""
        ...

    def features(self, i: int) -> np.ndarray:
        """[F] what to sort by."""
        ...
