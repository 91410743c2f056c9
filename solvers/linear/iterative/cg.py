"""Preconditioned conjugate gradients, deflated by a space learned from a family.

n local rows, M the preconditioner, r = b - A x, z = M⁻¹ r, p the directions, W [n, k] the space, E = Wᵀ A W [k, k].
Vectors are arrays over the local rows; the loop is compiled (kernels/cg.c).

Deflation. Adding W E⁻¹ Wᵀ r to x makes the error A-orthogonal to W, and p = z - W E⁻¹ (A W)ᵀ z keeps it so: CG then
sees the spectrum of M⁻¹ A without W's part (Y. Saad, M. Yeung, J. Erhel, F. Guyomarc'h, "A deflated version of the
conjugate gradient algorithm", SIAM J. Sci. Comput. 21 (2000) 1909-1926, Algorithm 3.5). Doing so to every p can double
the time of an iteration, and the nearer W comes to being invariant under M⁻¹ A, the less it changes p. So only the
first p is deflated here. Now and then the error's part in W is weighed: its squared energy norm is gᵀ E⁻¹ g with
g = Wᵀ r. Once that part delays convergence it is projected out, and CG starts again from there. Poisson on 265 x 265
points, ICC, k = 20, 1e-8: 141 iterations, against 116 with every p deflated and 273 with none; in time 0.73 and 0.90 of
the last. Every p is deflated only while the space is being learned, and in a system that needed 50 projections.

g would be zero in exact arithmetic if every p were deflated. Its rounding errors are relative to ||b|| and nothing in
the iteration reduces them: in single precision the method stalls or diverges once ||r|| is down to them, below
1e-6 ||b||. Double precision leaves room for 1e-12 as long as E and A W belong to the very W in use, and the weighing
removes what has accumulated. In the end the true residual is formed; where it misses rtol, CG starts again from it.

Learning. CG takes its whole run to find the slow modes, so its steps x_j - x_i over many iterations consist of little
else. Between k and 2 k such steps, evenly spaced over the run, and the old W span the candidates, from which the
new W takes the k vectors of smallest vᵀ Ā v / vᵀ D v: Ritz vectors of the mean operator Ā of the systems learned from,
with D its diagonal. To a next independent draw the mean is nearer than any one system, and neither of the two needs
M's inner product, which PETSc can't form. Darcy 12/3 with 100 x 100 cells, Jacobi, k = 20, 1e-8, every p deflated: 376
iterations without W, 162 after 3 systems, 158 with the 20 lowest modes of the mean of 40 other systems; with the first
40 Lanczos vectors of each run as candidates, instead of the steps, still 228 after 8 systems.

Energy error. ||x_i - x_j||² in the energy norm is the sum of the decreases d = α rᵀz from i to j - 1, so the sum of the
latest ones bounds ||e_l||² from below (Z. Strakoš, P. Tichý, ETNA 13 (2002) 56-80), and l (`delayed` in cg.c) advances
while that sum leaves out a quarter at most (G. Meurant, J. Papež, P. Tichý, "Accurate error estimation in CG", Numer.
Algorithms 88 (2021) 1337-1359). To stop on e_l would be late by the delay, up to 22 iterations for Darcy with
64 x 64 cells. So the present error is estimated, as S d / (1 - 1/4) with d the latest decrease and S the largest ratio
||e_i||² / d_i of the recent iterations i <= l, which the same sums give. In 750 stops (25 fields; no preconditioner,
Jacobi, ICC, GAMG, with and without W; 1e-1 to 1e-6) the error was at most 0.9 of what was asked, 1 to 9 iterations late
on average. It is no bound: modes that CG has not begun to reduce are unseen, and with matrices made to have them a
fifth of the stops were too early. A mode that is found late makes ||r|| grow, and where there is one there may be more,
or the same again: M in single precision brings it back 7 digits later. So once ||r|| has grown by a factor of 3, the
estimate is multiplied by 30.
With multigrid at contrast 1e4 (100 x 100 cells) ||r|| grows in 26 of 200 systems, and those were the ones stopped at an
error up to 140 times larger than others at the same estimate; for 12/3 and log-normal fields it never does.
"""

from __future__ import annotations

import ctypes
import math
import time
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from penstock.solvers.linear.check import check_of
from penstock.solvers.linear.iterative.operator import Handle, Operator, SeenMatrix, preconditioner_for
from penstock.solvers.linear.kernels import library
from penstock.solvers.linear.preconditioners.by_name import PRECONDITIONERS, needs_one_rank, require_known
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance, require_at_least, start_of
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

# A space is learned from 5 systems; iterations hardly fall after the third.
NUM_LEARNED = 5
# Beyond 1.5 times the iterations of the first system after learning, the systems are taken to have changed.
DRIFTED = 1.5
# Candidates are dependent if their share in the Gram matrix is below this fraction of the largest.
DEPENDENT = 1e-12
# The true residual must fall by this factor from one start to the next; if it does not, rounding has the last word.
PROGRESS = 0.5

OUTCOMES = (
    Outcome.CONVERGED,
    Outcome.ITERATION_LIMIT,
    Outcome.BREAKDOWN,
    Outcome.STAGNATION,
    Outcome.NOT_FINITE,
)
"""The outcomes that `cg_iterate` returns, in the order of cg.c."""

INDEFINITE = "A is not positive definite: pᵀ A p <= 0"

CAUSES = (
    "",
    "the residual has grown as it can't where A and the preconditioner are symmetric positive definite",
    "the preconditioner is not positive definite: rᵀ M⁻¹ r <= 0",
    INDEFINITE,
)
"""The causes of a breakdown, in the order of cg.c."""


class CG(Strategy):
    """Conjugate gradients, plain or deflated by a learned space.

    A and the preconditioner M must be symmetric positive definite. Semidefinite A work where the system has its
    nullspace and b is consistent. An A or M found not to be positive definite is a BREAKDOWN. `iterations` counts every
    product with A: those of a guess, of A W for a changed matrix, of the iterations, of true residuals and of learning
    (2 k to 3 k for each of the first 5 systems). Memory: 4 + 4 k vectors, 4 + 7 k while it learns, and a matrix while
    k > 0.

    Args:
        k: dimension of the deflation space learned from the first systems; 0 gives plain CG. Good values: 10 to 20
            where 50 iterations or more are needed without it, else 0. A changed matrix costs k products and 2 k² n
            operations, an unchanged one nothing.
        pc: name of a preconditioner; by default "icc", and "bjacobi" on several ranks.
        max_iterations: iterations, at least 1, after which a system is given up to the retry ladder.
        recycle: False forgets the space before every system, which leaves plain CG: the control to compare with.
    """

    name = "cg"
    needs_spd = True

    def __init__(self, *, k: int = 0, pc: str | None = None, max_iterations: int = 10_000, recycle: bool = True):
        require_at_least("k", k, 0)
        if pc is not None:
            require_known("pc", pc, PRECONDITIONERS)
            self.needs_one_rank = needs_one_rank(pc)
        require_at_least("max_iterations", max_iterations, 1)
        self.k = k
        self.pc = pc
        self.max_iterations = max_iterations
        self.recycle = recycle
        self.recycles = False
        self.reset()

    def reset(self) -> None:
        self._pc: PETSc.PC | None = None
        self._memory: _Memory | None = None
        self._space: _Space | None = None
        self._mean: PETSc.Mat | None = None  # mean of the matrices learned from
        self._num_learned = 0
        self._usual_iterations: int | None = None

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        start = time.thread_time()
        num_rows = system.b.getLocalSize()
        if self._memory is not None and self._memory.x.size != num_rows:
            self.reset()
        if self._memory is None:
            self._memory = _Memory(num_rows, self.k if self.recycle else 0, self.max_iterations)
        self._pc = preconditioner_for(system, self.pc, self._pc)
        with Operator(system, self._pc) as operator:
            return self._solve(operator, system, tolerance, start)

    def _solve(self, operator: Operator, system: LinearSystem, tolerance: Tolerance, start: float) -> Attempt:
        if self._space is not None:
            self._space.hold_for(system.A, operator)
            if self._space.inverse_E is None:  # A is not positive definite on W
                self._space = None
        self.recycles = self._space is not None
        setup_seconds = time.thread_time() - start

        memory, x = self._memory, start_of(system)
        memory.x[:] = x.array_r
        memory.r[:] = system.b.array_r
        state = memory.state(operator, self._space)
        state.limit = min(self.max_iterations, tolerance.max_iterations)
        state.norm_b = system.b.norm()
        state.energy = -1.0 if tolerance.energy is None else tolerance.energy
        state.target_norm = state.norm_b * tolerance.rtol if tolerance.energy is None else 0.0
        state.deflates_directions = self._num_learned < NUM_LEARNED
        if system.guess is not None:
            memory.r[:] = operator.residual(memory.x)
            # ||A⁻¹b||² = ||A⁻¹b - x||² + xᵀ(b + r); the decreases add up to the first term.
            state.squared_solution = float(operator.inner(memory.x, system.b.array_r + memory.r))

        check, previous = None, math.inf
        while (outcome := iterate(state)) is Outcome.CONVERGED and tolerance.energy is None:
            x.array = memory.x
            check = check_of(system, x)
            operator.num_products += 1
            if check.residual_norm <= state.target_norm:
                break
            if not check.residual_norm <= PROGRESS * previous:
                outcome = Outcome.STAGNATION
                break
            memory.r[:] = operator.residual(memory.x)
            previous = check.residual_norm
        else:
            x.array = memory.x

        if memory.k > 0 and state.iterations > 0 and outcome is Outcome.CONVERGED:
            self._learn(system.A, state, operator)
        return Attempt(
            x=x,
            outcome=outcome,
            reason=CAUSES[state.cause],
            iterations=operator.num_products + state.iterations,
            check=check,
            energy_error=state.energy_error if math.isfinite(state.energy_error) else None,
            history=memory.norms[: state.iterations + 1].tolist(),
            setup_seconds=setup_seconds,
        )

    def _learn(self, A: PETSc.Mat, state: _State, operator: Operator) -> None:
        """Improve the space by this solve, if the systems are new or have changed."""
        if self._num_learned == NUM_LEARNED:
            if self._usual_iterations is None:
                self._usual_iterations = state.iterations
            if state.iterations <= DRIFTED * self._usual_iterations:
                return
            self._num_learned = 0
        self._num_learned += 1
        self._usual_iterations = None
        weight = 1 / self._num_learned
        if weight == 1:
            self._mean = A.copy()
        else:
            self._mean.scale(1 - weight)
            self._mean.axpy(weight, A, A.Structure.UNKNOWN_NONZERO_PATTERN)

        # Candidates are rows here, of unit length in D's norm.
        iterates = self._memory.iterates[: state.num_iterates]
        candidates = np.empty((state.k + len(iterates), operator.num_rows))
        if state.k > 0:
            candidates[: state.k] = self._space.W.T
        np.subtract(iterates[1:], iterates[:-1], out=candidates[state.k : -1])
        np.subtract(self._memory.x, iterates[-1], out=candidates[-1])
        diagonal = self._mean.getDiagonal().array_r
        squares = operator.sum(np.einsum("cn,n,cn->c", candidates, diagonal, candidates))
        kept = np.flatnonzero((squares > 0) & (squares < np.inf))
        if kept.size == 0:
            return
        for row, candidate in enumerate(kept):
            np.divide(candidates[candidate], math.sqrt(squares[candidate]), out=candidates[row])
        candidates = candidates[: kept.size]
        self._space = None  # it is among the candidates; this frees its memory
        ritz = ritz_vectors(*gram_matrices(candidates, self._mean, diagonal, self.k, operator), self.k)
        self._space = _Space((ritz.T @ candidates).T)


def iterate(state: _State) -> Outcome:
    from petsc4py import PETSc

    outcome = OUTCOMES[library().cg_iterate(ctypes.byref(state))]
    if state.error:
        raise PETSc.Error(state.error)
    return outcome


def gram_matrices(
    rows: np.ndarray, matrix: PETSc.Mat, diagonal: np.ndarray, block_size: int, operator: Operator
) -> tuple[np.ndarray, np.ndarray]:
    """The inner products of the rows in the matrix and in the diagonal.

    They are formed in blocks of rows, to save memory.
    """
    by_matrix, by_diagonal = np.empty((2, len(rows), len(rows)))
    images = np.empty((block_size, operator.num_rows))
    for start in range(0, len(rows), block_size):
        columns = slice(start, start + block_size)
        image = images[: len(rows[columns])]
        for source, target in zip(rows[columns], image, strict=True):
            operator.multiply_by(matrix, source, target)
        by_matrix[:, columns] = rows @ image.T
        np.multiply(rows[columns], diagonal, out=image)
        by_diagonal[:, columns] = rows @ image.T
    return operator.sum(by_matrix), operator.sum(by_diagonal)


def ritz_vectors(G: np.ndarray, F: np.ndarray, k: int) -> np.ndarray:
    """The eigenvectors of G y = θ F y with smallest θ, [candidates, k].

    They lie in the part of space where F is regular.
    """
    scales, rotation = scipy.linalg.eigh(F)
    is_kept = scales > DEPENDENT * scales[-1]
    basis = rotation[:, is_kept] / np.sqrt(scales[is_kept])
    return basis @ scipy.linalg.eigh(basis.T @ G @ basis)[1][:, :k]


class _Space:
    """The space W, with the products that deflation needs for one matrix."""

    def __init__(self, W: np.ndarray):
        self.W = W
        self.AW = np.empty_like(W)
        self.inverse_E: np.ndarray | None = None
        """The inverse of E; None where E, and so A, is not positive definite."""
        self._matrix = SeenMatrix()

    def hold_for(self, A: PETSc.Mat, operator: Operator) -> None:
        if self._matrix.is_current(A):
            return
        for w, product in zip(self.W.T, self.AW.T, strict=True):
            operator.multiply(w, product)
        try:
            factor = scipy.linalg.cho_factor(operator.inner(self.W, self.AW))
            self.inverse_E = np.asfortranarray(scipy.linalg.cho_solve(factor, np.eye(self.W.shape[1])))
        except (np.linalg.LinAlgError, ValueError):  # not positive definite, or not finite
            self.inverse_E = None
        self._matrix.note(A)


_SPACE = ("W", "AW", "inverse_E")
_MEMORY = ("c", "g", "x", "r", "p", "q", "iterates", "decreases", "norms")
_NUMBERS = ("norm_b", "target_norm", "energy", "squared_solution", "energy_error", "caution")
_COUNTS = ("k", "deflates_directions", "num_projections", "iterations", "limit")
_COUNTS += ("num_iterates", "max_iterates", "stride", "delayed", "error", "cause")


class _State(ctypes.Structure):
    """The struct `State` of cg.c."""

    _fields_ = (
        ("operator", ctypes.POINTER(Handle)),
        *((name, ctypes.c_void_p) for name in (*_SPACE, *_MEMORY)),
        *((name, ctypes.c_double) for name in _NUMBERS),
        *((name, ctypes.c_int) for name in _COUNTS),
    )


class _Memory:
    """The working memory of the loop, used again for every system."""

    def __init__(self, num_rows: int, k: int, max_iterations: int):
        self.k = k
        self.c, self.g = np.empty((2, k))
        self.x, self.r, self.p, self.q = np.empty((4, num_rows))
        self.iterates = np.empty((2 * k, num_rows))
        self.decreases, self.norms = np.empty((2, max_iterations + 1))
        self._addresses = {name: getattr(self, name).ctypes.data for name in _MEMORY}

    def state(self, operator: Operator, space: _Space | None) -> _State:
        state = _State(
            operator=ctypes.pointer(operator.handle),
            max_iterates=len(self.iterates),
            stride=1,
            caution=1.0,
            **self._addresses,
        )
        if space is not None:
            state.k = space.W.shape[1]
            state.W, state.AW, state.inverse_E = (getattr(space, name).ctypes.data for name in _SPACE)
        return state
