"""The strategy for many right-hand sides with one matrix."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg.lapack

from penstock.solvers.linear.direct.block_factor import BlockFactor, can_block
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.direct.matrix_copy import MatrixCopy
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

# The most right-hand sides that are kept.
MAX_RANK = 64
# With fewer entries in the factor, a back-solve takes no longer than to find coordinates in the span, 0.25 ms: they tie
# at 4096 unknowns with 68,000 entries, and the span takes 0.6 of the time at 10,000 with 200,000.
MIN_ENTRIES = 50_000
# A span opens this many times later than the last matrix went whose span did not pay.
PATIENCE = 2
# A distance from the span below this fraction of ||b|| is rounding.
ROUNDING = 1e-12
# A right-hand side depends on the others if they leave less than this fraction of its sketch's length.
DEPENDENT = 1e-12
# 8 numbers per direction keep the length of every vector in the span to about a third.
SKETCH_SIZE = 512


class Constant(Strategy):
    """One factor for a constant matrix, one product for right-hand sides of low rank.

    The matrix is recognised by its values, so a problem may assemble it again for every system. From its second system
    on, right-hand sides B [n, r] and their solutions X = A⁻¹ B are kept: then b = B c gives x = X c, which for r = 30
    and n = 7e4 takes 0.5 ms where a back-solve takes 1.7 (PETSc) or 8.4 (MUMPS). A b that is not in the span is solved,
    and joins it. Once there are 64, or enough that the product would cost as much as the back-solve, the right-hand
    sides of this matrix are taken to have no low rank, and each costs a back-solve. A matrix with other values drops
    factor and span; while it keeps changing this is `Direct`. It stays so for small matrices, whose back-solve costs
    less than the product's preparation, and where matrices go before their spans have paid: a span that had solved
    fewer systems than it had joined lets those of later matrices wait until a matrix has served twice as many.

    Where A is SPD, right-hand sides without low rank that come several at a time are solved in blocks of eight
    (`BlockFactor`), which takes less than half the time of each.

    Memory: the matrix, its factor, and r vectors; with blocks two more factors.
    """

    name = "constant"
    needs_entries = True
    meets_accuracy = True

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.recycles = False
        self.num_matrices = 0
        self._direct: Direct | None = None
        self._matrix: MatrixCopy | None = None
        self._span: Span | None = None
        self._is_low_rank = True
        self._num_uses = self._num_saved = 0  # systems with this matrix, and those that the span has solved
        self._patience = 1  # systems with a matrix before its span opens
        self._block: BlockFactor | None = None
        self._blocks_serve = True

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        start = time.thread_time()
        if self._matrix is None:
            self._direct, self._matrix = Direct(), MatrixCopy(system.A)
            is_known = False
        else:
            is_known = self._matrix.equals(system.A)
            if not is_known:
                self._matrix.overwrite(system.A)
                self._forget_right_hand_sides()
        self.num_matrices += not is_known
        self._num_uses += 1
        comparing_seconds = time.thread_time() - start
        if self._is_low_rank and self._num_uses > self._patience:
            attempt = self._solve_in_span(system, tolerance)
        else:
            attempt = self._solve_directly(system, tolerance)
        attempt.setup_seconds += comparing_seconds
        return attempt

    def kept(self, system: LinearSystem, tolerance: Tolerance) -> LinearSystem | None:
        if self._matrix is None or self._is_low_rank or not self._blocks_serve or not self._matrix.equals(system.A):
            return None
        if not (can_block(system) and self._direct.is_settled(tolerance)):
            return None
        if self._block is None:
            try:
                self._block = BlockFactor(self._matrix.matrix)
            except np.linalg.LinAlgError:
                self._blocks_serve = False
                return None
        return replace(system, A=self._matrix.matrix, b=system.b.copy(), guess=None)

    def solve_block(self, systems: Sequence[LinearSystem], tolerance: Tolerance) -> list[Attempt | None]:
        checks = self._block.solve(systems)
        are_good = [check is not None and tolerance.bound.is_kept_by(check) for check in checks]
        if any(check is not None and not is_good for check, is_good in zip(checks, are_good, strict=True)):
            self._block, self._blocks_serve = None, False  # they may need refinement
        self._direct.note_solved(sum(are_good))
        self.recycles = True
        return [
            Attempt(x=check.x, outcome=Outcome.CONVERGED, check=check) if is_good else None
            for check, is_good in zip(checks, are_good, strict=True)
        ]

    def _forget_right_hand_sides(self) -> None:
        if self._num_uses > self._patience:
            num_solved_directly = self._num_uses - self._patience - self._num_saved
            self._patience = 1 if self._num_saved > num_solved_directly else PATIENCE * self._num_uses
        self._num_uses = self._num_saved = 0
        self._span, self._is_low_rank = None, True
        self._block, self._blocks_serve = None, True

    def _solve_directly(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        attempt = self._direct.solve(system, tolerance, copied=self._matrix.matrix)
        self.recycles = self._direct.recycles
        return attempt

    def _solve_in_span(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        if self._span is None:
            if self._direct.fill * system.A.getSize()[0] < MIN_ENTRIES:
                self._is_low_rank = False
                return self._solve_directly(system, tolerance)
            # A back-solve reads 24 bytes for every entry of a triangle, the product 8 r bytes per row.
            self._span = Span(system.b, max_rank=int(min(MAX_RANK, 2 * self._direct.fill)))
        # A large part of the error may be small in b: where the error counts, b must be in the span up to rounding.
        max_distance = ROUNDING if tolerance.accuracy is not None else 0.25 * tolerance.rtol
        x = self._span.solution(system.b, max_distance, 0.25 * tolerance.rtol)
        if x is not None:
            attempt = Attempt(x=x, outcome=Outcome.CONVERGED).checked(system)
            if attempt.meets(tolerance):  # a part of b outside the span may be small next to its largest entries
                self.recycles = True
                self._num_saved += 1
                return attempt
        attempt = self._solve_directly(system, tolerance)
        if self._span.is_full:
            self._span, self._is_low_rank = None, False
        elif attempt.outcome is Outcome.CONVERGED:
            self._span.append(attempt.x, attempt.check.residual_norm)
        return attempt


class Span:
    """The solutions X [n, r] of right-hand sides B [n, r], which are not kept.

    Lengths and angles are those of sketches s(b) = Θ b, where Θ [512, n] gives every entry a random sign and adds up
    every 512th: s(B) = S R with orthonormal S, c = R⁻¹ Sᵀ s(b), and ||s(b) - S Sᵀ s(b)|| is the distance of b from the
    span (randomised Gram-Schmidt, Balabanov and Grigori, SIAM J. Sci. Comput. 44 (2022) A1450, algorithm 2). So to find
    c takes 0.06 ms at n = 7e4, and a b outside the span costs little more than its solution.
    """

    def __init__(self, b: PETSc.Vec, *, max_rank: int):
        num_rows = b.getLocalSize()
        self.max_rank = max_rank
        self.rank = 0
        self._X = np.empty((num_rows, max_rank), order="F")
        self._S = np.empty((SKETCH_SIZE, max_rank), order="F")
        self._R = np.zeros((max_rank, max_rank))
        self._residuals = np.zeros(max_rank)  # ||b - A x|| of each column
        self._comm = b.comm.tompi4py()
        self._signs = np.random.default_rng(self._comm.rank).choice([-1.0, 1.0], size=num_rows)
        self._signed = np.zeros(-(-num_rows // SKETCH_SIZE) * SKETCH_SIZE)
        self._num_dependent = 0
        self._last: tuple[np.ndarray, ...] = ()  # the sketch of the last b, and its parts in and outside the span

    @property
    def is_full(self) -> bool:
        """Whether it takes no more solutions."""
        return self.rank + self._num_dependent >= self.max_rank

    def solution(self, b: PETSc.Vec, max_distance: float, max_error: float) -> PETSc.Vec | None:
        """The x for the part of b in the span, or None where that is not good enough.

        None if the part of b outside is longer than max_distance ||b||, or if the residuals of X make ||b - A x||
        larger than (max_distance + max_error) ||b||.
        """
        s = self._sketch(b.array_r)
        self._last = s, *self._split(s)
        if self.rank == 0:
            return None
        _, coordinates, outside = self._last
        # SciPy's solve_triangular takes 0.1 ms to look at its arguments.
        c, _ = scipy.linalg.lapack.dtrtrs(self._R[: self.rank, : self.rank], coordinates)
        # Nearly dependent columns make c large, and the residuals of X with it.
        norm_b, error = b.norm(), np.abs(c) @ self._residuals[: self.rank]
        if not (np.linalg.norm(outside) <= max_distance * norm_b and error <= max_error * norm_b):
            return None
        x = b.duplicate()
        x.array = self._X[:, : self.rank] @ c
        return x

    def append(self, x: PETSc.Vec, residual_norm: float) -> None:
        """Add the x of the b that `solution` was asked for last.

        A b that depends on the others is left out.

        Args:
            x: with ||b - A x|| = residual_norm.
            residual_norm: that length.
        """
        s, coordinates, outside = self._last
        length = np.linalg.norm(outside)
        if not length > DEPENDENT * np.linalg.norm(s):
            self._num_dependent += 1
            return
        self._X[:, self.rank] = x.array_r
        self._S[:, self.rank] = outside / length
        self._R[: self.rank, self.rank] = coordinates
        self._R[self.rank, self.rank] = length
        self._residuals[self.rank] = residual_norm
        self.rank += 1

    def _split(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The product Sᵀ s, and the part of s outside the span.

        The projection is made twice, because rounding leaves a part the first time.
        """
        S = self._S[:, : self.rank]
        first = S.T @ s
        outside = s - S @ first
        second = S.T @ outside
        return first + second, outside - S @ second

    def _sketch(self, values: np.ndarray) -> np.ndarray:
        np.multiply(values, self._signs, out=self._signed[: values.size])
        local = self._signed.reshape(-1, SKETCH_SIZE).sum(axis=0)
        return local if self._comm.size == 1 else self._comm.allreduce(local)
