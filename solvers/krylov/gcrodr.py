"""GCRO-DR: GMRES with deflated restarts, whose deflation space lives on from system to system.

M. L. Parks, E. de Sturler, G. Mackey, D. D. Johnson, S. Maiti, "Recycling Krylov subspaces for sequences of linear
systems", SIAM J. Sci. Comput. 28 (2006) 1651-1674: the method GCRO-DR(m, k) of its appendix, in these steps.

    1  rebuild      for a new A: [C, R] = qr(A U), U = U R⁻¹
    2  project      x = x + U Cᵀ r, r = r - C Cᵀ r
    3  arnoldi      from v₁ = r / ||r|| with (I - C Cᵀ) A: V, H, B = Cᵀ A V
    4  correction   y = argmin ||Wᵀ r - G y||, x = x + S y
    5  harmonic_ritz_vectors    the k smallest θ of GᵀG z = θ Gᵀ Wᵀ S z, vectors z in the columns of P
    6  deflate      [Q, R] = qr(G P), C = W Q, U = S P R⁻¹; on with 2 until ||r|| is small enough

Letters as in the paper, but for S, its V̂:  n local rows, m dimension of the search space, k recycled vectors, j Arnoldi
steps of a cycle, M the preconditioner. Vectors are columns of Fortran-ordered arrays over the local rows, so that
orthogonalisation is BLAS-2 whatever PETSc's vectors are made of.

    basis.W [n, m + 1] = [C V]    orthonormal
    basis.S [n, m + 1] = [U Z]    Z = M⁻¹ V
    A S[:, :k+j] = W[:, :k+j+1] G,   G [k+j+1, k+j] = [I B; 0 H]

The paper has no preconditioner. Here M acts from the right (flexibly: Z is kept), so residuals are true ones, and U is
kept in solution space: A U = C makes no mention of M, and U survives a new one. The harmonic Ritz vectors wanted are
those of A M⁻¹, y = M S z. They would need M U, and PETSc applies only M⁻¹; an old M U carried along would be right for
the old M alone. Instead the space carries T = M⁻¹ C and asks for the defect to be orthogonal in a way that needs
nothing else:

    (W G)ᵀ M⁻¹ (A S z - θ M S z) = 0,   that is   Gᵀ (Wᵀ M⁻¹ W) G z = θ Gᵀ (Wᵀ S) z.

For M = I this is the paper's problem. For SPD M it is its harmonic Ritz projection of A M⁻¹ in the inner product of
M⁻¹, in which A M⁻¹ is symmetric when A is. T costs k applications of M⁻¹ for a new system and one a cycle, no product.
Against an M U carried along, 30 Darcy systems with ICC at 128 x 128 took 77 products each and not 86, with Jacobi at
64 x 64 178 and not 185 (reset before every system: 90 and 250).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from penstock.solvers.krylov.preconditioners import PRECONDITIONERS, require_known, set_preconditioner
from penstock.solvers.krylov.strategy import Attempt, Tolerance, require_at_least, start_of
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

DEPENDENT = 1e-12  # a column that orthogonalisation shrinks by this factor is dropped as dependent
STALLED_CYCLES = 5  # a residual that shrank by less than 1 % in so many cycles will not converge any more
STALLED_REDUCTION = 0.99


@dataclass(frozen=True)
class RecycleSpace:
    """What one cycle hands to the next, and one system to the next: A U = C, CᵀC = I, T = M⁻¹ C.

    Holds for the A and M it was made with; `rebuild` makes it hold for others. Each array is [n, k].
    """

    U: np.ndarray
    C: np.ndarray
    T: np.ndarray

    @property
    def k(self) -> int:
        return self.U.shape[1]

    @classmethod
    def empty(cls, num_rows: int) -> RecycleSpace:
        return cls(*(np.empty((num_rows, 0)) for _ in range(3)))


class GCRODR:
    """GCRO-DR(m, k) of Parks et al. (2006) with right preconditioning; any nonsingular A.

    `iterations` counts every product with A: the one of an initial guess, the k that rebuild C for a changed matrix,
    one an Arnoldi step, and the one for the true residual at the end of every cycle. Memory: 2 (m + 1) + 3 k vectors.

    m: largest dimension of the search space, recycled vectors included. Good values: 30 to 60.
    k: recycled vectors, below m; 0 gives GMRES(m). Good values: about m / 2.
    pc: name in `PRECONDITIONERS`; by default "icc" where A is SPD, else "ilu", and "bjacobi" on several ranks.
    max_iterations: products with A after which a system is given up.
    recycle: False empties the space before every system: deflated restarts alone, the control to compare with.
    """

    name = "gcrodr"

    def __init__(
        self, *, m: int = 40, k: int = 20, pc: str | None = None, max_iterations: int = 10_000, recycle: bool = True
    ):
        require_at_least("m", m, 1)
        require_at_least("k", k, 0)
        if k >= m:
            raise ValueError(f"k = {k} must be below m = {m}")
        if pc is not None:
            require_known("pc", pc, PRECONDITIONERS)
        require_at_least("max_iterations", max_iterations, 1)
        self.m = m
        self.k = k
        self.pc = pc
        self.max_iterations = max_iterations
        self.recycle = recycle
        self.recycles = False
        self.reset()

    def reset(self) -> None:
        self._pc: PETSc.PC | None = None
        self._basis: Basis | None = None
        self._space: RecycleSpace | None = None
        self._matrix: PETSc.Mat | None = None  # the one, and the state of its values, for which the space holds
        self._matrix_state = -1

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        self.recycles = False
        operator = Operator(system, self._preconditioner(system))
        num_rows = system.b.getLocalSize()
        if self._basis is None or self._basis.W.shape[0] != num_rows:
            self._basis = Basis(num_rows, self.m)
            self._space = None
        space = self._space if self.recycle else None
        self.recycles = space is not None
        is_same = self._matrix == system.A and self._matrix_state == system.A.stateGet()

        x_vec = start_of(system)
        x, b = x_vec.array_r.copy(), system.b.array_r
        target = tolerance.rtol * operator.norm(b)
        r = b.copy() if system.guess is None else operator.residual(b, x)
        history = [operator.norm(r)]
        self._space = None  # while an exception may leave it half made
        if space is None:
            space = RecycleSpace.empty(num_rows)
        elif not is_same:
            space = rebuild(operator, space, self._basis)
        outcome, space = self._cycles(operator, space, x, r, b, target, history)
        x_vec.array = x
        if self.recycle and self.k > 0:
            self._space, self._matrix, self._matrix_state = space, system.A, system.A.stateGet()
        return Attempt(x=x_vec, outcome=outcome, iterations=operator.num_products, history=history)

    def _cycles(
        self,
        operator: Operator,
        space: RecycleSpace,
        x: np.ndarray,
        r: np.ndarray,
        b: np.ndarray,
        target: float,
        history: list[float],
    ) -> tuple[Outcome, RecycleSpace]:
        """Cycles until ||r|| <= target (steps 2 to 6). Overwrites x and r = b - A x, appends to `history`."""
        norms = []  # of the true residual, at the ends of the cycles
        while True:
            project(operator, space, x, r)
            norms.append(operator.norm(r))
            if not np.isfinite(norms[-1]):
                return Outcome.NOT_FINITE, space
            if norms[-1] <= target:
                return Outcome.CONVERGED, space
            if operator.num_products >= self.max_iterations:
                return Outcome.ITERATION_LIMIT, space
            if len(norms) > STALLED_CYCLES and norms[-1] > STALLED_REDUCTION * norms[-1 - STALLED_CYCLES]:
                return Outcome.STAGNATION, space

            num_steps = min(self.m - space.k, self.max_iterations - operator.num_products)
            BH, is_invariant = arnoldi(operator, self._basis, space, r, norms[-1], num_steps, target, history)
            if not np.isfinite(BH).all():
                return Outcome.NOT_FINITE, space
            x += correction(self._basis, BH, space.k, norms[-1])
            r[:] = operator.residual(b, x)
            if self.k > 0:
                space = deflate(operator, self._basis, space, BH, self.k)
            # An invariant search space holds the solution, unless A is singular on it.
            if is_invariant and operator.norm(r) > max(target, 0.5 * norms[-1]):
                return Outcome.BREAKDOWN, space

    def _preconditioner(self, system: LinearSystem) -> PETSc.PC:
        from petsc4py import PETSc

        if self._pc is None:
            self._pc = PETSc.PC().create(system.A.comm)
            set_preconditioner(self._pc, self.pc, system)
        self._pc.setOperators(system.A)
        self._pc.setUp()  # does nothing where neither matrix nor values changed
        return self._pc


class Basis:
    """The two bases of a cycle; memory that is used again and again."""

    def __init__(self, num_rows: int, m: int):
        self.W = np.zeros((num_rows, m + 1), order="F")
        self.S = np.zeros((num_rows, m + 1), order="F")


class Operator:
    """A and M⁻¹ on local arrays, inner products over all ranks, and the count of products with A."""

    def __init__(self, system: LinearSystem, pc: PETSc.PC):
        self.num_products = 0
        self._A = system.A
        self._pc = pc
        self._nullspace = system.nullspace
        self._source, self._target = system.b.duplicate(), system.b.duplicate()
        self._comm = system.A.comm.tompi4py() if system.A.comm.size > 1 else None

    def product(self, source: np.ndarray, target: np.ndarray) -> None:
        """target = A source."""
        self.num_products += 1
        self._on_vectors(self._A.mult, source, target)

    def precondition(self, source: np.ndarray, target: np.ndarray) -> None:
        """target = M⁻¹ source."""
        self._on_vectors(self._precondition, source, target)

    def residual(self, b: np.ndarray, x: np.ndarray) -> np.ndarray:
        r = np.empty_like(b)
        self.product(x, r)
        np.subtract(b, r, out=r)
        return r

    def inner(self, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Xᵀ y for matrices or vectors."""
        return self.sum(X.T @ y)

    def sum(self, local: np.ndarray) -> np.ndarray:
        """The sum over all ranks."""
        if self._comm is None:
            return local
        local = np.asarray(local, order="C")
        total = np.empty_like(local)
        self._comm.Allreduce(local, total)
        return total

    def norm(self, y: np.ndarray) -> float:
        return float(np.sqrt(self.inner(y, y)))

    def _precondition(self, source: PETSc.Vec, target: PETSc.Vec) -> None:
        self._pc.apply(source, target)
        if self._nullspace is not None:
            self._nullspace.remove(target)

    def _on_vectors(self, function: Callable, source: np.ndarray, target: np.ndarray) -> None:
        self._source.placeArray(source)
        self._target.placeArray(target)
        function(self._source, self._target)
        self._source.resetArray()
        self._target.resetArray()


def rebuild(operator: Operator, space: RecycleSpace, basis: Basis) -> RecycleSpace:
    """The space for the operator's A and M: [C, R] = qr(A U), U = U R⁻¹, T = M⁻¹ C (step 1), without dependent
    columns. k products with A."""
    W, S = basis.W, basis.S
    R = np.zeros((space.k, space.k))
    kept: list[int] = []
    for column in range(space.k):
        rank = len(kept)
        w = W[:, rank]
        operator.product(space.U[:, column], w)
        R[:rank, column], length = orthogonalise(operator, W[:, :rank], w)
        if length > DEPENDENT * np.hypot(np.linalg.norm(R[:rank, column]), length):
            w /= length
            R[rank, column] = length
            kept.append(column)
    rank = len(kept)
    C = W[:, :rank].copy(order="F")
    for column in range(rank):
        operator.precondition(C[:, column], S[:, column])
    inverse_R = scipy.linalg.solve_triangular(R[:rank, kept], np.eye(rank))
    return RecycleSpace(U=combine(space.U[:, kept], inverse_R), C=C, T=S[:, :rank].copy(order="F"))


def project(operator: Operator, space: RecycleSpace, x: np.ndarray, r: np.ndarray) -> None:
    """Make r orthogonal to C by a correction in U (step 2), in place."""
    if space.k > 0:
        c = operator.inner(space.C, r)
        x += space.U @ c
        r -= space.C @ c


def arnoldi(
    operator: Operator,
    basis: Basis,
    space: RecycleSpace,
    r: np.ndarray,
    norm_r: float,
    num_steps: int,
    target: float,
    history: list[float],
) -> tuple[np.ndarray, bool]:
    """Arnoldi steps with (I - C Cᵀ) A M⁻¹ from r (step 3), until the least residual is at most `target`.

    Fills the basis with [C V] and [U Z]. Returns [B; H] [k+j+1, j] and whether the search space became invariant.

    The estimate: let q be the unit vector with qᵀ H = 0. The least residual over the search space is
    (norm_r q₁) V q, so its norm is norm_r |q₁|; q for one more column of H follows from q by one rotation.
    """
    W, S, k = basis.W, basis.S, space.k
    W[:, :k], S[:, :k] = space.C, space.U
    W[:, k] = r / norm_r
    BH = np.zeros((k + num_steps + 1, num_steps))
    q = np.zeros(num_steps + 1)
    q[0] = 1.0
    for j in range(num_steps):
        v, z, w = W[:, k + j], S[:, k + j], W[:, k + j + 1]
        operator.precondition(v, z)
        operator.product(z, w)
        coefficients, length = orthogonalise(operator, W[:, : k + j + 1], w)
        BH[: k + j + 1, j] = coefficients
        is_invariant = not length > DEPENDENT * np.hypot(np.linalg.norm(coefficients), length)
        if is_invariant:
            w[:] = 0.0
        else:
            w /= length
            BH[k + j + 1, j] = length
        overlap = q[: j + 1] @ coefficients[k:]
        rotation = np.hypot(overlap, BH[k + j + 1, j])
        if rotation > 0:
            q[: j + 1] *= -BH[k + j + 1, j] / rotation
            q[j + 1] = overlap / rotation
        history.append(float(norm_r * abs(q[0])))
        if is_invariant or history[-1] <= target:
            break
    return BH[: k + j + 2, : j + 1], is_invariant


def orthogonalise(operator: Operator, Q: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, float]:
    """w minus its part in the orthonormal columns of Q, in place; the coefficients of that part, and ||w|| after.

    Classical Gram-Schmidt, twice: orthogonal to rounding (Giraud et al. 2005), and BLAS-2.
    """
    coefficients = operator.inner(Q, w)
    w -= Q @ coefficients
    again = operator.inner(Q, w)
    w -= Q @ again
    return coefficients + again, operator.norm(w)


def correction(basis: Basis, BH: np.ndarray, k: int, norm_r: float) -> np.ndarray:
    """The dx in span [U Z] that makes ||r - A dx|| least (step 4).

    With dx = U y₁ + Z y₂ and r orthogonal to C the residual is C (-y₁ - B y₂) + V (norm_r e₁ - H y₂).
    """
    B, H = BH[:k], BH[k:]
    right_hand_side = np.zeros(H.shape[0])
    right_hand_side[0] = norm_r
    y = np.linalg.lstsq(H, right_hand_side)[0]
    return basis.S[:, : k + y.size] @ np.concatenate([-B @ y, y])


def deflate(operator: Operator, basis: Basis, space: RecycleSpace, BH: np.ndarray, k: int) -> RecycleSpace:
    """The space of k harmonic Ritz vectors of smallest |θ| in the cycle's search space (step 6).

    D scales U's columns to unit norm, which balances the eigenproblem: G = [D B; 0 H], S = [U D, Z].

    The products overflow where A's rows differ by a hundred orders of magnitude or so. The space is then empty, and the
    next cycle is one of GMRES. All that decides it is the same on every rank.
    """
    size = BH.shape[1] + space.k
    W, S = basis.W[:, : size + 1], basis.S[:, : size + 1]
    if BH[-1, -1] != 0:
        operator.precondition(W[:, -1], S[:, -1])
    else:
        S[:, -1] = 0.0

    # M⁻¹ W = [T Z], with the last column of S now in Z.
    D = np.ones(size)
    D[: space.k] = 1 / np.sqrt(operator.sum(np.einsum("nk,nk->k", space.U, space.U)))
    G = np.zeros((size + 1, size))
    G[: space.k, : space.k] = np.diag(D[: space.k])
    G[:, space.k :] = BH
    WS = operator.inner(W, S)
    WMW = np.hstack([operator.inner(W, space.T), WS[:, space.k :]])
    P = harmonic_ritz_vectors(G, WMW, WS[:, :-1] * D, k)
    GP = G @ P
    if P.shape[1] == 0 or not np.isfinite(GP).all():
        return RecycleSpace.empty(W.shape[0])

    # [Q, R] = qr(G P), C = W Q, U = S D P R⁻¹
    Q, R, pivots = scipy.linalg.qr(GP, mode="economic", pivoting=True)
    rank = int(np.sum(np.abs(np.diag(R)) > DEPENDENT * abs(R[0, 0])))
    Q = Q[:, :rank]
    F = scipy.linalg.solve_triangular(R[:rank, :rank], (D[:, None] * P[:, pivots[:rank]]).T, trans="T").T
    return RecycleSpace(
        U=combine(S[:, :-1], F),
        C=combine(W, Q),
        T=combine(space.T, Q[: space.k]) + combine(S[:, space.k :], Q[space.k :]),
    )


def combine(X: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """X @ coefficients, in Fortran order without the copy that would cost as much as the product."""
    return (coefficients.T @ X.T).T


def harmonic_ritz_vectors(G: np.ndarray, WMW: np.ndarray, WS: np.ndarray, k: int) -> np.ndarray:
    """[size, k] real basis of the eigenvectors of GᵀWᵀM⁻¹W G z = θ GᵀWᵀS z with k smallest |θ| (step 5).

    Solved for 1/θ, for which the left-hand matrix is the regular one. A complex pair enters by real and imaginary
    part, both or neither; where pairs alone are left to fill an odd k, there are k - 1 columns. Matrices that are not
    finite have no eigenvectors: there are no columns then.
    """
    left, right = G.T @ WS, G.T @ WMW @ G
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return np.empty((G.shape[1], 0))
    inverse_theta, vectors = scipy.linalg.eig(left, right)
    columns: list[np.ndarray] = []
    magnitudes = np.where(np.isfinite(inverse_theta), np.abs(inverse_theta), 0.0)
    for index in np.argsort(-magnitudes, kind="stable"):
        z, is_complex = vectors[:, index], inverse_theta[index].imag != 0
        if inverse_theta[index].imag < 0:
            continue  # its conjugate gives the same two columns
        if len(columns) + 1 + is_complex > k:
            continue  # a pair that does not fit; the next real one does
        columns += [z.real, z.imag] if is_complex else [z.real]
        if len(columns) == k:
            break
    return np.array(columns).reshape(len(columns), G.shape[1]).T
