"""Many right-hand sides for one matrix."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from penstock.solvers.krylov.direct import Direct
from penstock.solvers.krylov.matrix_copy import MatrixCopy
from penstock.solvers.krylov.strategy import Attempt, Tolerance, residual_of
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

MAX_RANK = 64
SKETCH_SIZE = 512  # 8 numbers a direction keep the length of every vector in the span to about a third


class Constant:
    """One factor for a matrix whose values stay, and one product for right-hand sides of low rank.

    The matrix is known by its values, so a problem may assemble it anew for every system. From its second system on,
    a basis B [n, r] of the right-hand sides is kept, and X = A⁻¹ B: then b = B c gives x = X c, which for r = 30 and
    n = 7e4 takes 0.5 ms where a back-solve takes 1.7 (PETSc) or 8.4 (MUMPS). A b that is further from the span than
    half of rtol adds a column. Once there are 64, or so many that the product would cost as much as the back-solve, the
    right-hand sides are taken to have no low rank for good, and each costs a back-solve. A matrix with other values
    drops factor and basis; while it keeps changing this is `Direct`.

    Memory: the matrix, its factor, and 2 r vectors.
    """

    name = "constant"
    gains_from_order = False

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.recycles = False
        self._direct: Direct | None = None
        self._matrix: MatrixCopy | None = None
        self._span: Span | None = None
        self._is_low_rank = True

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        if self._matrix is None:
            self._direct, self._matrix = Direct(), MatrixCopy(system.A)
            is_known = False
        else:
            is_known = self._matrix.equals(system.A)
            if not is_known:
                self._matrix.overwrite(system.A)
                self._span = None
        system = replace(system, A=self._matrix.matrix)
        x = self._solution_in_span(system, tolerance) if is_known and self._is_low_rank else None
        if x is not None:
            self.recycles = True
            return Attempt(x=x, outcome=Outcome.CONVERGED)
        attempt = self._direct.solve(system, tolerance)
        self.recycles = self._direct.recycles
        return attempt

    def _solution_in_span(self, system: LinearSystem, tolerance: Tolerance) -> PETSc.Vec | None:
        """X c, where b = B c holds or a new column makes it hold; else None, for this b and all later ones."""
        if self._span is None:
            # A back-solve reads 24 bytes for every entry of a triangle, the product 8 r a row.
            self._span = Span(system.b, max_rank=int(min(MAX_RANK, 2 * self._direct.fill)))
        span = self._span
        max_error = 0.5 * tolerance.rtol * system.b.norm()
        x = span.solution(system.b, max_error)
        if x is None and span.rank < span.max_rank:
            direction = replace(system, b=span.new_direction(system.b))
            attempt = self._direct.solve(direction, tolerance)
            if attempt.outcome is Outcome.CONVERGED:
                span.append(direction.b, attempt.x, residual_of(direction, attempt.x).norm())
                x = span.solution(system.b, max_error)
        if x is None:
            self._span, self._is_low_rank = None, False
        return x


class Span:
    """Right-hand sides B [n, r] and their solutions X [n, r], with A X = B up to residuals of known size.

    Lengths and angles are those of sketches s(b) = Θ b, where Θ [512, n] gives every entry a random sign and adds up
    every 512th: S = s(B) has orthonormal columns, c = Sᵀ s(b), and ||s(b) - S c|| tells how far b is from the span
    (randomised Gram-Schmidt, Balabanov and Grigori, SIAM J. Sci. Comput. 44 (2022) A1450, algorithm 2). So to know c
    takes 0.06 ms at n = 7e4; B itself is read for a new column alone.
    """

    def __init__(self, b: PETSc.Vec, *, max_rank: int):
        num_rows = b.getLocalSize()
        self.max_rank = max_rank
        self.rank = 0
        self._B = np.empty((num_rows, max_rank), order="F")
        self._X = np.empty((num_rows, max_rank), order="F")
        self._S = np.empty((SKETCH_SIZE, max_rank), order="F")
        self._residual = 0.0  # Frobenius norm of B - A X
        self._comm = b.comm.tompi4py()
        self._signs = np.random.default_rng(self._comm.rank).choice([-1.0, 1.0], size=num_rows)
        self._signed = np.zeros(-(-num_rows // SKETCH_SIZE) * SKETCH_SIZE)

    def solution(self, b: PETSc.Vec, max_error: float) -> PETSc.Vec | None:
        """x with ||b - A x|| <= max_error, or None where the span has none."""
        c, distance = self._coefficients(b.array_r)
        if not distance + self._residual * np.linalg.norm(c) <= max_error:
            return None
        x = b.duplicate()
        x.array = self._X[:, : self.rank] @ c
        return x

    def new_direction(self, b: PETSc.Vec) -> PETSc.Vec:
        """The part of b outside the span, of unit length."""
        q = b.copy()
        values = q.array
        for _ in range(2):  # the second time for what rounding left of the first
            c, distance = self._coefficients(values)
            values -= self._B[:, : self.rank] @ c
            values /= distance or 1.0  # 0 where b is in the span, but X too inaccurate to use it
        return q

    def append(self, direction: PETSc.Vec, x: PETSc.Vec, residual_norm: float) -> None:
        """A new column: the `direction` just given, with A x = direction up to a residual of this norm."""
        self._B[:, self.rank] = direction.array_r
        self._X[:, self.rank] = x.array_r
        self._S[:, self.rank] = self._sketch(direction.array_r)
        self._residual = np.hypot(self._residual, residual_norm)
        self.rank += 1

    def _coefficients(self, values: np.ndarray) -> tuple[np.ndarray, float]:
        """c, and the distance of `values` from B c."""
        sketch = self._sketch(values)
        S = self._S[:, : self.rank]
        c = S.T @ sketch
        return c, float(np.linalg.norm(sketch - S @ c))

    def _sketch(self, values: np.ndarray) -> np.ndarray:
        np.multiply(values, self._signs, out=self._signed[: values.size])
        local = self._signed.reshape(-1, SKETCH_SIZE).sum(axis=0)
        return local if self._comm.size == 1 else self._comm.allreduce(local)
