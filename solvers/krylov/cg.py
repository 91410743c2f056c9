"""CG: preconditioned conjugate gradients, deflated by a space that is learned from the first systems of a family.

n local rows, M the preconditioner, r = b - A x, z = M⁻¹ r, p the directions, W [n, k] the space, E = Wᵀ A W [k, k].
Vectors are arrays over the local rows; the loop is compiled (kernels/cg.c).

Deflation. Adding W E⁻¹ Wᵀ r to x makes the error A-orthogonal to W, and p = z - W E⁻¹ (A W)ᵀ z keeps it so: CG then
sees the spectrum of M⁻¹ A without W's part (Y. Saad, M. Yeung, J. Erhel, F. Guyomarc'h, "A deflated version of the
conjugate gradient algorithm", SIAM J. Sci. Comput. 21 (2000) 1909-1926, Algorithm 3.5). Doing so to every p can double
the time of an iteration, and the nearer W comes to being invariant under M⁻¹ A, the less it changes p. So only the
first p is deflated here. Now and then the error's part in W is weighed, whose squared energy norm is gᵀ E⁻¹ g with
g = Wᵀ r; once it holds up convergence it is projected out, and CG starts anew from there. Poisson on 265 x 265 points,
ICC, k = 20, 1e-8: 141 iterations, against 116 with every p deflated and 273 with none; in time 0.73 and 0.90 of the
last. Every p is deflated only while the space is being learned, and in a system that needed 50 projections.

g would be zero in exact arithmetic if every p were deflated. Its rounding errors are relative to ||b|| and nothing in
the iteration reduces them: in single precision the method stalls or diverges once ||r|| is down to them, below
1e-6 ||b||. Double precision leaves room for 1e-12 as long as E and A W belong to the very W in use, and the weighing
takes off what has gathered. In the end the true residual is formed; where it misses rtol, CG starts anew from it.

Learning. The slow modes are what CG takes its whole run to find, so its steps x_j - x_i over many iterations consist of
little else. Between k and 2 k such steps, evenly spaced over the run, and the old W span the candidates, from which the
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
on average. It is no bound: modes that CG has not begun to reduce are unseen, and of matrices made to have them a fifth
were stopped too early.
"""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from penstock.solvers.krylov.kernels import library
from penstock.solvers.krylov.preconditioners import PRECONDITIONERS, require_known, set_preconditioner
from penstock.solvers.krylov.strategy import Attempt, Tolerance, require_at_least, residual_of, start_of
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

NUM_LEARNED = 5  # systems that a space is learned from; iterations hardly fall after the third
DRIFTED = 1.5  # times the iterations of the first system after learning: the systems are others now
DEPENDENT = 1e-12  # candidates whose share in the Gram matrix is smaller, against the largest, are dependent
PROGRESS = 0.5  # of the true residual, from one start to the next: less is rounding

OUTCOMES = (
    Outcome.CONVERGED,
    Outcome.ITERATION_LIMIT,
    Outcome.BREAKDOWN,
    Outcome.STAGNATION,
    Outcome.NOT_FINITE,
)
"""In the order of cg.c."""


class CG:
    """Conjugate gradients, plain (k = 0) or deflated by a learned space, for symmetric positive definite A and M.

    Semidefinite A work where the system has its nullspace and b is consistent. An A or M found not to be positive
    definite is a BREAKDOWN. `iterations` counts every product with A: those of a guess, of A W for a changed matrix, of
    the iterations, of true residuals and of learning (2 k to 3 k for each of the first 5 systems). Memory:
    4 + 4 k vectors, and a matrix while k > 0.

    k: dimension of the space. Good values: 10 to 20 where 50 iterations or more are needed without it, else 0. A
       changed matrix costs k products and 2 k² n operations, an unchanged one nothing.
    pc: name in `PRECONDITIONERS`; by default "icc", and "bjacobi" on several ranks.
    max_iterations: after which a system is given up.
    recycle: False forgets the space before every system, which leaves plain CG: the control to compare with.
    """

    name = "cg"

    def __init__(self, *, k: int = 0, pc: str | None = None, max_iterations: int = 10_000, recycle: bool = True):
        require_at_least("k", k, 0)
        if pc is not None:
            require_known("pc", pc, PRECONDITIONERS)
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
        self._mean: PETSc.Mat | None = None  # of the matrices learned from
        self._num_learned = 0
        self._usual_iterations: int | None = None

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        from petsc4py import PETSc

        num_rows = system.b.getLocalSize()
        if self._memory is not None and self._memory.x.size != num_rows:
            self.reset()
        if self._memory is None or self._memory.norms.size <= self.max_iterations:  # `auto` cuts a trial, then goes on
            self._memory = _Memory(num_rows, self.k if self.recycle else 0, self.max_iterations)
        memory, ranks = self._memory, _Ranks(system)
        products = 0 if self._space is None else self._space.hold_for(system, ranks)
        if self._space is not None and self._space.inverse_E is None:  # A is not positive definite on W
            self._space = None
        self.recycles = self._space is not None

        x = start_of(system)
        memory.x[:] = x.array_r
        memory.r[:] = system.b.array_r
        state = memory.state(system, self._preconditioner(system), self._space, ranks)
        state.limit = self.max_iterations
        state.norm_b = system.b.norm()
        state.energy = -1.0 if tolerance.energy is None else tolerance.energy
        state.target_norm = state.norm_b * tolerance.rtol if tolerance.energy is None else 0.0
        state.deflates_directions = self._num_learned < NUM_LEARNED
        if system.guess is not None:
            memory.r[:] = residual_of(system, x).array_r
            products += 1
            # ||A⁻¹b||² = ||A⁻¹b - x||² + xᵀ(b + r); the decreases add up to the first term.
            state.squared_solution = ranks.sum(memory.x @ (system.b.array_r + memory.r))

        norm = math.inf
        while True:
            outcome = OUTCOMES[library().cg_iterate(ctypes.byref(state))]
            if state.error:
                raise PETSc.Error(state.error)
            x.array = memory.x
            if outcome is not Outcome.CONVERGED or tolerance.energy is not None:
                break
            memory.r[:] = residual_of(system, x).array_r
            products += 1
            norm, previous = math.sqrt(ranks.sum(memory.r @ memory.r)), norm
            if norm <= state.target_norm:
                break
            if not norm <= PROGRESS * previous:
                outcome = Outcome.STAGNATION
                break

        if memory.k > 0 and state.iterations > 0 and outcome is Outcome.CONVERGED:
            products += self._learn(system, state, ranks)
        return Attempt(
            x=x,
            outcome=outcome,
            iterations=products + state.iterations,
            residual_norm=norm if math.isfinite(norm) else None,
            energy_error=state.energy_error if math.isfinite(state.energy_error) else None,
            history=memory.norms[: state.iterations + 1].tolist(),
        )

    def _learn(self, system: LinearSystem, state: _State, ranks: _Ranks) -> int:
        """Better the space by what this solve found, if the systems are new or others than before. Returns the number
        of products it took."""
        from petsc4py import PETSc

        if self._num_learned == NUM_LEARNED:
            if self._usual_iterations is None:
                self._usual_iterations = state.iterations
            if state.iterations <= DRIFTED * self._usual_iterations:
                return 0
            self._num_learned = 0
        self._num_learned += 1
        self._usual_iterations = None
        weight = 1 / self._num_learned
        if weight == 1:
            self._mean = system.A.copy()
        else:
            self._mean.scale(1 - weight)
            self._mean.axpy(weight, system.A, PETSc.Mat.Structure.UNKNOWN_NONZERO_PATTERN)

        # Candidates are rows here, of unit length in D's norm.
        iterates = self._memory.iterates[: state.num_iterates]
        candidates = np.empty((state.k + len(iterates), self._memory.x.size))
        if state.k > 0:
            candidates[: state.k] = self._space.W.T
        np.subtract(iterates[1:], iterates[:-1], out=candidates[state.k : -1])
        np.subtract(self._memory.x, iterates[-1], out=candidates[-1])
        diagonal = self._mean.getDiagonal().array_r
        squares = ranks.sum(np.einsum("cn,n,cn->c", candidates, diagonal, candidates))
        is_kept = (squares > 0) & (squares < np.inf)
        if not is_kept.any():
            return 0
        candidates = candidates[is_kept] / np.sqrt(squares[is_kept, None])
        images = np.empty_like(candidates)
        multiply(self._mean, system.b, candidates, images)
        ritz = ritz_vectors(ranks.sum(candidates @ images.T), ranks.sum(candidates @ (candidates * diagonal).T), self.k)
        self._space = _Space((ritz.T @ candidates).T)
        return len(candidates)

    def _preconditioner(self, system: LinearSystem) -> PETSc.PC:
        from petsc4py import PETSc

        if self._pc is None:
            self._pc = PETSc.PC().create(system.A.comm)
        set_preconditioner(self._pc, self.pc, system)
        self._pc.setOperators(system.A)
        self._pc.setUp()  # does nothing where neither matrix nor values changed
        return self._pc


def multiply(A: PETSc.Mat, like: PETSc.Vec, rows: np.ndarray, products: np.ndarray) -> None:
    """products[i] = A rows[i]; vectors are laid out as `like`."""
    source, target = like.duplicate(), like.duplicate()
    for row, product in zip(rows, products, strict=True):
        source.placeArray(row)
        target.placeArray(product)
        A.mult(source, target)
        source.resetArray()
        target.resetArray()


def ritz_vectors(G: np.ndarray, F: np.ndarray, k: int) -> np.ndarray:
    """[candidates, k] the eigenvectors of G y = θ F y with smallest θ, on the part of space where F is regular."""
    scales, rotation = scipy.linalg.eigh(F)
    is_kept = scales > DEPENDENT * scales[-1]
    basis = rotation[:, is_kept] / np.sqrt(scales[is_kept])
    return basis @ scipy.linalg.eigh(basis.T @ G @ basis)[1][:, :k]


class _Space:
    """W, and what deflation needs for the one matrix that it holds for."""

    def __init__(self, W: np.ndarray):
        self.W = W
        self.AW = np.empty_like(W)
        self.inverse_E: np.ndarray | None = None
        """None where E is not positive definite, nor A then."""
        self._matrix: PETSc.Mat | None = None
        self._matrix_state = -1

    def hold_for(self, system: LinearSystem, ranks: _Ranks) -> int:
        """Returns the number of products it took."""
        if self._matrix == system.A and self._matrix_state == system.A.stateGet():
            return 0
        multiply(system.A, system.b, self.W.T, self.AW.T)
        try:
            factor = scipy.linalg.cho_factor(ranks.sum(self.W.T @ self.AW))
            self.inverse_E = np.asfortranarray(scipy.linalg.cho_solve(factor, np.eye(self.W.shape[1])))
        except (np.linalg.LinAlgError, ValueError):  # not positive definite, or not finite
            self.inverse_E = None
        self._matrix, self._matrix_state = system.A, system.A.stateGet()
        return self.W.shape[1]


class _Ranks:
    """Sums over all ranks of a system."""

    def __init__(self, system: LinearSystem):
        self._comm = system.A.comm.tompi4py() if system.A.comm.size > 1 else None
        self.callback = _SUM() if self._comm is None else _SUM(self._sum_in_place)

    def sum(self, local):
        """Of a number or an array."""
        return local if self._comm is None else self._comm.allreduce(local)

    def _sum_in_place(self, values, count: int) -> None:
        from mpi4py import MPI

        self._comm.Allreduce(MPI.IN_PLACE, np.ctypeslib.as_array(values, (count,)))


_SUM = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_double), ctypes.c_int)

_HANDLES = ("A", "M", "nullspace", "source", "target")
_SPACE = ("W", "AW", "inverse_E")
_MEMORY = ("c", "g", "x", "r", "p", "q", "iterates", "decreases", "norms")
_NUMBERS = ("norm_b", "target_norm", "energy", "squared_solution", "energy_error")
_COUNTS = ("num_rows", "k", "deflates_directions", "num_projections", "iterations", "limit")
_COUNTS += ("num_iterates", "max_iterates", "stride", "delayed", "error")


class _State(ctypes.Structure):
    """`State` of cg.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _HANDLES),
        ("sum", _SUM),
        *((name, ctypes.c_void_p) for name in (*_SPACE, *_MEMORY)),
        *((name, ctypes.c_double) for name in _NUMBERS),
        *((name, ctypes.c_int) for name in _COUNTS),
    )


class _Memory:
    """What the loop works in, used again for every system."""

    def __init__(self, num_rows: int, k: int, max_iterations: int):
        self.k = k
        self.c, self.g = np.empty((2, k))
        self.x, self.r, self.p, self.q = np.empty((4, num_rows))
        self.iterates = np.empty((2 * k, num_rows))
        self.decreases, self.norms = np.empty((2, max_iterations + 1))
        self._addresses = {name: getattr(self, name).ctypes.data for name in _MEMORY}

    def state(self, system: LinearSystem, pc: PETSc.PC, space: _Space | None, ranks: _Ranks) -> _State:
        self._vectors = system.b.duplicate(), system.b.duplicate()  # of this solve: kept alive by the next one's
        state = _State(
            A=system.A.handle,
            M=pc.handle,
            nullspace=None if system.nullspace is None else system.nullspace.handle,
            source=self._vectors[0].handle,
            target=self._vectors[1].handle,
            sum=ranks.callback,
            num_rows=self.x.size,
            max_iterates=len(self.iterates),
            stride=1,
            **self._addresses,
        )
        if space is not None:
            state.k = space.W.shape[1]
            state.W, state.AW, state.inverse_E = (getattr(space, name).ctypes.data for name in _SPACE)
        return state
