"""GCRO-DR: GMRES with deflated restarts and a space kept from system to system.

M. L. Parks, E. de Sturler, G. Mackey, D. D. Johnson, S. Maiti, "Recycling Krylov subspaces for sequences of linear
systems", SIAM J. Sci. Comput. 28 (2006) 1651-1674: the method GCRO-DR(m, k) of its appendix, in these steps.

    1  rebuild      for a new A: C = K U, made orthonormal
    2  project      x = x + U Cᵀ r, r = r - C Cᵀ r
    3  arnoldi      from v₁ = r / ||r|| with (I - C Cᵀ) K: V, H, B = Cᵀ K V
    4  correction   y = argmin ||Wᵀ r - G y||, x = x + S y
    5  harmonic_ritz_vectors    the k smallest harmonic Ritz values θ, their vectors z in the columns of P
    6  deflate      [Q, R] = qr(G P), C = W Q, U = S P R⁻¹; on with 3 until ||r|| is small enough

Letters as in the paper, except S, its V̂:  n local rows, m dimension of the search space, k recycled vectors, j Arnoldi
steps of a cycle, M the preconditioner. Vectors are columns of Fortran-ordered arrays over the local rows.

    W [n, k+j+1] = [C V]    orthonormal
    S [n, k+j]   = [U Z]
    K S = W[:, :k+j+1] G,   G [k+j+1, k+j] = [I B; 0 H]

The paper has no preconditioner. Here it acts from one of these sides; U is kept in solution space on all of them, so
that it survives a new preconditioner.

    side      K        r               Z        harmonic Ritz problem
    left      M⁻¹ A    M⁻¹ (b - A x)   V        Gᵀ G z = θ Gᵀ (Wᵀ S) z
    right     A        b - A x         M⁻¹ V    Gᵀ (Wᵀ M⁻¹ W) G z = θ Gᵀ (Wᵀ S) z
    flexible  A        b - A x         M⁻¹ V    Gᵀ G z = θ Gᵀ (Wᵀ S) z

Left is the paper's method for M⁻¹ A x = M⁻¹ b, as SKR runs it, but goes on until the true residual is small enough.

From the right the vectors wanted are those of A M⁻¹, y = M S z. They would need M U, and PETSc applies only M⁻¹; an old
M U carried along would be right for the old M alone. Instead the space carries T = M⁻¹ C and asks for the defect to be
orthogonal in a way that needs nothing else, (W G)ᵀ M⁻¹ (A S z - θ M S z) = 0, with M⁻¹ W = [T Z]. For SPD M this is the
harmonic Ritz projection of A M⁻¹ in the inner product of M⁻¹, in which A M⁻¹ is symmetric when A is. T costs k
applications of M⁻¹ for a new system and one per cycle, no product.

Flexible takes the harmonic Ritz vectors of A itself in the span of S. Neither they nor the search space ask M to stay
the same from one application to the next. Z is kept on the right, too: M⁻¹ (V y) instead would save its memory and
cost k applications of M⁻¹ per cycle; on the left, for the reason that arnoldi.c gives at its Gram-Schmidt.

Arnoldi steps per system, 30 draws of Darcy 12/3 at 100 x 100, sorted (reset before every system), to 1e-8: with ICC
left 37 (71), right 41 (68), flexible 48 (68); with Jacobi 274 (396), 249 (386), 257 (386).
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from penstock.solvers.linear.iterative.operator import Operator, SeenMatrix, preconditioner_for
from penstock.solvers.linear.kernels import library
from penstock.solvers.linear.preconditioners.by_name import PRECONDITIONERS, needs_one_rank, require_known
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance, require_at_least, start_of
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

SIDES = ("left", "right", "flexible")
# A Gram matrix's eigenvalues below this fraction of the largest are rounding.
DEPENDENT = 1e-13
# A residual that shrank by less than 1 % in 5 cycles will not converge any more.
STALLED_CYCLES = 5
STALLED_REDUCTION = 0.99
REASONS = {
    Outcome.BREAKDOWN: "A or the preconditioner is singular on the search space",
    Outcome.STAGNATION: f"the residual fell by less than 1 % in {STALLED_CYCLES} cycles",
}


class GCRODR(Strategy):
    """GCRO-DR(m, k) of Parks et al. (2006), for any nonsingular A.

    `iterations` counts every product with A: the one of an initial guess, the k that rebuild C for a changed matrix,
    one per Arnoldi step, and those for the residual at the ends of the cycles. `history` holds the norms ||r|| of the
    method's residual, the preconditioned one on the left: one for the start and one per Arnoldi step.

    Memory: 2 (m + 1) + k vectors, and k more on the right.

    Args:
        m: largest dimension of the search space, at least 1, recycled vectors included. Good values: 30 to 60.
        k: recycled vectors, below m; 0 gives GMRES(m). Good values: about m / 2.
        pc: name of a preconditioner; by default "icc" where A is SPD, else "ilu", and "bjacobi" on several
            ranks.
        side: where the preconditioner acts. "left", "right", or "flexible", for one that changes from application to
            application.
        max_iterations: products with A, at least 1, after which a system is given up to the retry ladder.
        recycle: False empties the space before every system: deflated restarts alone, the control to compare with.
    """

    name = "gcrodr"
    stops_on_true_residual = True
    """Whether preconditioning from the left, too, stops on the true residual.

    False stops at ||M⁻¹ (b - A x)|| <= rtol ||M⁻¹ b|| as SKR does (the benches count its steps): true residuals are
    then looser than asked for, and `LinearSolver` accepts none of them.
    """

    def __init__(
        self,
        *,
        m: int = 40,
        k: int = 20,
        pc: str | None = None,
        side: str = "right",
        max_iterations: int = 10_000,
        recycle: bool = True,
    ):
        require_at_least("m", m, 1)
        require_at_least("k", k, 0)
        if k >= m:
            raise ValueError(f"k = {k} must be below m = {m}")
        if pc is not None:
            require_known("pc", pc, PRECONDITIONERS)
            self.needs_one_rank = needs_one_rank(pc)
        require_known("side", side, SIDES)
        require_at_least("max_iterations", max_iterations, 1)
        self.m = m
        self.k = k
        self.pc = pc
        self.side = side
        self.max_iterations = max_iterations
        self.recycle = recycle
        self.recycles = False
        self.gains_from_order = recycle and k > 0
        self.reset()

    def reset(self) -> None:
        self._pc: PETSc.PC | None = None
        self._space: Space | None = None

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        start = time.thread_time()
        self._pc = preconditioner_for(system, self.pc, self._pc)
        with Operator(system, self._pc, is_left=self.side == "left") as operator:
            return self._solve(operator, system, tolerance, start)

    def _solve(self, operator: Operator, system: LinearSystem, tolerance: Tolerance, start: float) -> Attempt:
        if self._space is None or self._space.num_rows != operator.num_rows:
            self._space = Space(operator.num_rows, self.m, self.k, self.side)
        space, self._space = self._space, None  # while an exception may leave it half made
        if not self.recycle:
            space.k = 0
        self.recycles = space.k > 0
        if self.recycles and not space.matrix.is_current(system.A):
            rebuild(operator, space)
        setup_seconds = time.thread_time() - start

        x_vec = start_of(system)
        x, b = x_vec.array_r.copy(), operator.right_hand_side()
        r = b.copy() if system.guess is None else operator.residual(x)
        target = tolerance.rtol * operator.norm(b)
        history = [operator.norm(r)]
        if space.k > 0:
            project(operator, space, x, r)
        goal = tolerance.rtol * system.b.norm() if self.side == "left" and self.stops_on_true_residual else None
        limit = min(self.max_iterations, tolerance.max_iterations)
        outcome = self._cycles(operator, space, x, r, target, goal, limit, history)
        x_vec.array = x
        space.matrix.note(system.A)
        self._space = space
        return Attempt(
            x=x_vec,
            outcome=outcome,
            reason=REASONS.get(outcome, ""),
            iterations=operator.num_products,
            history=history,
            setup_seconds=setup_seconds,
        )

    def _cycles(
        self,
        operator: Operator,
        space: Space,
        x: np.ndarray,
        r: np.ndarray,
        target: float,
        goal: float | None,
        limit: int,
        history: list[float],
    ) -> Outcome:
        """Run cycles (steps 3 to 6) until ||r|| <= target.

        Where there is a goal, ||b - A x|| <= goal must hold, too. Overwrites x and r, appends to `history`.
        """
        norms = [operator.norm(r)]  # ||r|| at the ends of the cycles
        while True:
            if not np.isfinite(norms[-1]):
                return Outcome.NOT_FINITE
            if norms[-1] <= target:
                true_norm = 0.0 if goal is None else operator.norm(operator.true_residual(x))
                if goal is None or true_norm <= goal:
                    return Outcome.CONVERGED
                target *= 0.5 * goal / true_norm
            if operator.num_products >= limit:
                return Outcome.ITERATION_LIMIT
            if len(norms) > STALLED_CYCLES and norms[-1] > STALLED_REDUCTION * norms[-1 - STALLED_CYCLES]:
                return Outcome.STAGNATION

            num_steps = min(self.m - space.k, limit - operator.num_products)
            R, is_invariant = arnoldi(operator, space, r, norms[-1], num_steps, target, history)
            if not np.isfinite(R).all():
                space.k = 0
                return Outcome.NOT_FINITE
            if R.shape[1] == 1:
                return Outcome.BREAKDOWN
            correction(space, R, norms[-1], x)
            r[:] = operator.residual(x)
            norms.append(operator.norm(r))
            is_solved = norms[-1] <= target
            if self.k > 0 and (self.recycle or not is_solved):
                deflate(operator, space, R, self.k)
            # An invariant search space holds the solution, unless A is singular on it.
            if is_invariant and not is_solved and norms[-1] > 0.5 * norms[-2]:
                return Outcome.BREAKDOWN


class Space:
    """The recycle space, and the bases of the search space that grows from it.

    The memory is used again for every system. K U = C, CᵀC = I and T = M⁻¹ C hold for the A and M it was made with;
    `rebuild` makes them hold for others. T alone is inexact, because z = M⁻¹ v is made from a v that is orthogonalised
    once more after that.
    """

    def __init__(self, num_rows: int, m: int, max_k: int, side: str):
        self.num_rows = num_rows
        self.side = side
        self.k = 0
        """Number of recycled vectors that it holds now."""
        self.matrix = SeenMatrix()
        """The matrix A of the last solve."""
        self.W = np.zeros((num_rows, m + 1), order="F")
        self._U = np.zeros((num_rows, max_k), order="F")
        self._T = np.zeros((num_rows, max_k if side == "right" else 0), order="F")
        self.Z = np.zeros((num_rows, m + 1), order="F")

    @property
    def U(self) -> np.ndarray:
        return self._U[:, : self.k]

    @property
    def C(self) -> np.ndarray:
        return self.W[:, : self.k]

    @property
    def T(self) -> np.ndarray:
        return self._T[:, : self.k]

    def recombine(self, Q: np.ndarray, F: np.ndarray) -> None:
        """Set C = [C V] Q, U = [U Z] F and T = [T Z] Q in place.

        Q and F have one column per new vector.
        """
        Q, F = np.asfortranarray(Q), np.asfortranarray(F)
        T = address(self._T) if self.side == "right" else None
        sizes = (self.num_rows, len(Q), len(F), self.k, Q.shape[1])
        work = np.empty(library().gcrodr_recombine_size(Q.shape[1]))
        arrays = (address(self.W), address(self._U), address(self.Z), T, address(Q), address(F), address(work))
        library().gcrodr_recombine(*sizes, *arrays)
        self.k = Q.shape[1]


def address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def rebuild(operator: Operator, space: Space) -> None:
    """Rebuild the space for the operator's A and M (step 1), by k products.

    C = K U is made orthonormal, and dependent columns are dropped. It is made so by the eigenvectors of the Gram
    matrix, CᵀC = Y Λ Yᵀ, C = C Y Λ^-1/2, and so a second time (Stathopoulos and Wu 2002, "A block orthogonalization
    procedure with constant synchronization requirements", SIAM J. Sci. Comput. 23, SVQB): that takes products of blocks
    alone, and dependent columns show as eigenvalues near zero.
    """
    for column in range(space.k):
        operator.multiply(space.U[:, column], space.C[:, column])
    for _ in range(2):
        gram = operator.inner(space.C, space.C)
        lengths = np.sqrt(np.diag(gram))
        scale = np.divide(1.0, lengths, out=np.zeros(space.k), where=lengths > 0)
        gram = scale[:, None] * gram * scale
        if not np.isfinite(gram).all():
            space.k = 0
            return
        eigenvalues, vectors = np.linalg.eigh(gram)
        kept = eigenvalues > DEPENDENT * eigenvalues.max(initial=0.0)
        F = scale[:, None] * vectors[:, kept] / np.sqrt(eigenvalues[kept])
        space.recombine(F, F)
    for column in range(space.T.shape[1]):
        operator.precondition(space.C[:, column], space.T[:, column])


def project(operator: Operator, space: Space, x: np.ndarray, r: np.ndarray) -> None:
    """Make r orthogonal to C by a correction in U (step 2), in place."""
    c = operator.inner(space.C, r)
    x += space.U @ c
    r -= space.C @ c


def arnoldi(
    operator: Operator,
    space: Space,
    r: np.ndarray,
    norm_r: float,
    num_steps: int,
    target: float,
    history: list[float],
) -> tuple[np.ndarray, bool]:
    """Make Arnoldi steps from r (step 3) until the least residual is at most `target`.

    Fills V and Z; see arnoldi.c.

    Returns:
        R = Wᵀ [r / ||r||, K Z], an array `[k+j+1, 1+j]`, and whether the search space became invariant. The first
        column of R is e_k+1, except for the part of r in C that rounding left.
    """
    from petsc4py import PETSc

    k = space.k
    np.divide(r, norm_r, out=space.W[:, k])
    R = np.zeros((k + num_steps + 1, num_steps + 1), order="F")
    norms, work = np.empty(num_steps), np.empty(2 * len(R) + num_steps + 1)
    is_invariant = ctypes.c_int()
    steps = library().gcrodr_arnoldi(
        ctypes.byref(operator.handle),
        k,
        num_steps,
        ctypes.c_double(norm_r),
        ctypes.c_double(target),
        address(space.W),
        address(space.Z),
        address(space.Z[:, -1]),  # needed on the left alone, where it is free
        address(R),
        len(R),
        address(norms),
        address(work),
        ctypes.byref(is_invariant),
    )
    if steps < 0:
        raise PETSc.Error(-steps)
    operator.num_products += steps
    history += norms[:steps].tolist()
    return R[: k + steps + 1, : steps + 1], bool(is_invariant)


def correction(space: Space, R: np.ndarray, norm_r: float, x: np.ndarray) -> None:
    """Add to x the dx in the span of [U Z] that minimises ||r - K dx|| (step 4).

    With dx = U y₁ + Z y₂ and r = W ρ the residual is C (ρ₁ - y₁ - B y₂) + V (ρ₂ - H y₂).
    """
    k = space.k
    rho, B, H = norm_r * R[:, 0], R[:k, 1:], R[k:, 1:]
    y = scipy.linalg.lstsq(H, rho[k:], lapack_driver="gelsy", check_finite=False)[0]
    x += space.Z[:, : y.size] @ y
    if k > 0:
        x += space.U @ (rho[:k] - B @ y)


def deflate(operator: Operator, space: Space, R: np.ndarray, k: int) -> None:
    """Reduce the search space of a cycle to k harmonic Ritz vectors (step 6).

    They are those of smallest |θ|. This is done after every cycle, as published, though it is a third of a cycle's time
    with k = 20. On case A of the bench, ILU from the right, deflating after every other cycle took 222 steps per system
    instead of 146, and deflating once per system, at its end, left 3 of 12 systems unsolved.

    D scales U's columns to unit norm, which balances the eigenproblem: G = [D B; 0 H], S = [U D, Z].

    The products overflow where A's rows differ by a hundred orders of magnitude or so. The space is then empty, and the
    next cycle is one of GMRES. Every rank decides alike, from the same numbers.
    """
    old_k, num_steps = space.k, R.shape[1] - 1
    size = old_k + num_steps
    W, Z = space.W[:, : size + 1], space.Z[:, : num_steps + 1]
    D = np.ones(size)
    D[:old_k] = 1 / np.sqrt(operator.sum(np.einsum("kn,kn->k", space.U.T, space.U.T)))
    G = np.zeros((size + 1, size))
    G[:old_k, :old_k] = np.diag(D[:old_k])
    G[:, old_k:] = R[:, 1:]

    WU = operator.inner(W, space.U)
    if space.side == "right":
        if R[-1, -1] != 0:
            operator.precondition(W[:, -1], Z[:, -1])
        else:
            Z[:, -1] = 0.0
    WZ = np.eye(size + 1)[:, old_k:] if space.side == "left" else operator.inner(W, Z)
    # M⁻¹ W = [T Z]
    WMW = np.hstack([operator.inner(W, space.T), WZ]) if space.side == "right" else np.eye(size + 1)
    P = harmonic_ritz_vectors(G, WMW, np.hstack([WU, WZ[:, :num_steps]]) * D, k)
    GP = G @ P
    if P.shape[1] == 0 or not np.isfinite(GP).all():
        space.k = 0
        return

    Q, upper, pivots = scipy.linalg.qr(GP, mode="economic", pivoting=True)
    rank = int(np.sum(np.abs(np.diag(upper)) > DEPENDENT * abs(upper[0, 0])))
    F = scipy.linalg.solve_triangular(upper[:rank, :rank], (D[:, None] * P[:, pivots[:rank]]).T, trans="T").T
    space.recombine(Q[:, :rank], F)


def harmonic_ritz_vectors(G: np.ndarray, WMW: np.ndarray, WS: np.ndarray, k: int) -> np.ndarray:
    """A real basis of the harmonic Ritz vectors with the k smallest |θ| (step 5).

    It has shape [size, k], and spans eigenvectors of Gᵀ (WᵀM⁻¹W) G z = θ Gᵀ (WᵀS) z. The problem is solved for 1/θ,
    where the left-hand matrix is the regular one. A complex pair enters by real and imaginary
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
