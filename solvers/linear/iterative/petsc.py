"""PETSc's Krylov methods and preconditioners, by name."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penstock.solvers.linear.check import check_of
from penstock.solvers.linear.direct.matrix_copy import serves
from penstock.solvers.linear.kernels import library
from penstock.solvers.linear.preconditioners.by_name import (
    PRECONDITIONERS,
    needs_one_rank,
    require_known,
    set_preconditioner,
)
from penstock.solvers.linear.reasons import reason_of
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance, require_at_least, start_of
from penstock.solvers.problem import LinearSystem, Outcome, Unfit

if TYPE_CHECKING:
    from petsc4py import PETSc

# Prefix of our options in PETSc's global table.
PREFIX = "penstock_krylov_"
# Name of the attribute of a KSP that holds its `_Progress`.
PROGRESS = "penstock_progress"
# After 2000 iterations without 1 % of progress there will be none. In about 100 solves of the bench such pauses were 97
# iterations at most with GMRES(30), 245 with BiCGStab and 1396 with TFQMR, and most solves converged after them.
STALLED = 2000
# A solve goes on at most 3 times if its true residual missed rtol although the method's residual had met it.
MAX_CONTINUATIONS = 3


@dataclass(frozen=True)
class _Method:
    """The way PETSc's implementation of a method measures and counts."""

    products: int = 1
    """Products with A per iteration."""
    right: bool = False
    """Whether it is preconditioned from the right: then its residual is the true one."""
    true_norm: bool = True
    """Whether it stops on ||b - A x||; if not, on the preconditioned residual's norm."""


METHODS = {
    "cg": _Method(),
    "fcg": _Method(),
    "minres": _Method(true_norm=False),  # the true norm would cost a second product per iteration
    "gmres": _Method(right=True),
    "fgmres": _Method(right=True),
    "gcr": _Method(right=True),
    "bcgs": _Method(products=2, right=True),
    "ibcgs": _Method(products=2, right=True),
    "cgs": _Method(products=2, right=True),
    "tfqmr": _Method(products=2, right=True),
}

RESTARTED = {"gmres": "gmres", "fgmres": "gmres", "gcr": "gcr"}
"""Methods that restart, with their names in PETSc's option."""


class Krylov(Strategy):
    """One of PETSc's Krylov methods with one of its preconditioners.

    The preconditioner is set up again for every changed matrix. The method stops on the true residual wherever PETSc
    lets it (right preconditioning for the GMRES and BiCG families, the unpreconditioned norm for CG), so that one rtol
    means one accuracy. Where rounding or the norm left the true residual above rtol, it goes on from its x with a
    tighter tolerance, up to three times.

    Args:
        ksp: PETSc's method, one of "cg", "fcg", "minres", "gmres", "fgmres", "gcr", "bcgs", "ibcgs", "cgs" and "tfqmr";
            by default "cg" where A is SPD, else "gmres".
        pc: name of a preconditioner; by default "icc" where A is SPD, else "ilu", and "bjacobi" on several
            ranks.
        max_iterations: products with A, at least 1, after which a system is given up to the retry ladder.
        restart: iterations between restarts of "gmres", "fgmres" and "gcr", at least 1.
        options: further PETSc options, without dash or prefix: `{pc_factor_levels: 2}`. One that nothing reads is
            refused.
    """

    name = "krylov"

    def __init__(
        self,
        *,
        ksp: str | None = None,
        pc: str | None = None,
        max_iterations: int = 10_000,
        restart: int = 30,
        options: Mapping[str, str] | None = None,
    ):
        if ksp is not None:
            require_known("ksp", ksp, METHODS)
        if pc is not None:
            require_known("pc", pc, PRECONDITIONERS)
            self.needs_one_rank = needs_one_rank(pc)
        require_at_least("max_iterations", max_iterations, 1)
        require_at_least("restart", restart, 1)
        self.needs_spd = ksp in ("cg", "fcg") or pc == "icc"
        self.ksp = ksp
        self.pc = pc
        self.max_iterations = max_iterations
        self.restart = restart
        self.options = dict(options or {})
        self.reset()

    def reset(self) -> None:
        self._ksp: PETSc.KSP | None = None
        self._is_spd = False  # whether the KSP was made for SPD systems

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        start = time.thread_time()
        ksp, self._ksp = self._ksp, None  # while an exception may leave it half made
        # ICC of a nonsymmetric matrix may never end.
        is_new = not serves(ksp, system.A) or system.is_spd != self._is_spd
        if is_new:
            ksp, self._is_spd = new_ksp(self.ksp, system), system.is_spd
            ksp.setOptionsPrefix(PREFIX)
        if is_new or self.pc is not None:  # a grid may have changed
            set_preconditioner(ksp.getPC(), self.pc, system)
        with self._options_held(ksp), _kept_after_errors(ksp):
            if is_new:
                ksp.setFromOptions()
            ksp.setOperators(system.A)
            ksp.setUp()
            ksp.setUpOnBlocks()
            if is_new:
                self._require_used(ksp)
        self._ksp = ksp
        setup_seconds = time.thread_time() - start
        attempt = iterate(ksp, system, tolerance, max_iterations=self.max_iterations, restart=self.restart)
        return replace(attempt, setup_seconds=setup_seconds)

    @contextmanager
    def _options_held(self, ksp: PETSc.KSP) -> Iterator[None]:
        """Hold the options in PETSc's global table while the KSP is set up.

        The solvers inside a preconditioner read their options there. PETSc makes those solvers again, with MUMPS's
        settings, for each matrix object or pattern.
        """
        from petsc4py import PETSc

        table = PETSc.Options(PREFIX)
        if ksp.getType() in RESTARTED:
            table.setValue(f"ksp_{RESTARTED[ksp.getType()]}_restart", self.restart)
        for key, value in self.options.items():
            table.setValue(key, value)
        try:
            yield
        finally:
            for key in table.getAll():
                table.delValue(key)

    def _require_used(self, ksp: PETSc.KSP) -> None:
        """Raise Unfit for an option that nothing has read."""
        from petsc4py import PETSc

        for key in self.options:
            if not PETSc.Options().used(PREFIX + key):
                raise Unfit(f"options: PETSc's {ksp.getType()} with {ksp.getPC().getType()} has no {key!r}")


def new_ksp(name: str | None, system: LinearSystem) -> PETSc.KSP:
    """A method of `METHODS` that stops on the true residual where it can.

    The default is CG where A is SPD, else GMRES.
    """
    from petsc4py import PETSc

    ksp = PETSc.KSP().create(system.A.comm)
    ksp.setType(name or ("cg" if system.is_spd else "gmres"))
    method = METHODS[ksp.getType()]
    ksp.setPCSide(PETSc.PC.Side.RIGHT if method.right else PETSc.PC.Side.LEFT)
    norms = PETSc.KSP.NormType
    ksp.setNormType(norms.UNPRECONDITIONED if method.true_norm else norms.PRECONDITIONED)
    progress = _Progress(window=STALLED)
    if error := library().progress_watch(ctypes.c_void_p(ksp.handle), ctypes.byref(progress)):
        raise PETSc.Error(error)
    ksp.setAttr(PROGRESS, progress)  # so it lives as long as the KSP
    return ksp


class _Progress(ctypes.Structure):
    """The struct `Progress` of progress.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("test", "context")),
        ("least", ctypes.c_double),
        *((name, ctypes.c_int) for name in ("since", "window", "has_stalled")),
    )


def iterate(
    ksp: PETSc.KSP, system: LinearSystem, tolerance: Tolerance, *, max_iterations: int, restart: int = 30
) -> Attempt:
    """Solve by a `ksp` that has its operators.

    Where the method's norm is small enough and the true residual is not, it goes on with a tighter tolerance, up to
    three times.

    Args:
        ksp: the method.
        system: the system.
        tolerance: when to stop.
        max_iterations: products with A after which the system is given up.
        restart: restart of "gmres" and "fgmres", for the count of products.
    """
    method = METHODS[ksp.getType()]
    target = tolerance.rtol * system.b.norm()
    x = start_of(system)
    b = system.b.copy()  # an error leaves it locked for ever, and the problem needs its vector
    ksp.setInitialGuessNonzero(system.guess is not None)
    products = 0
    rtol = tolerance.rtol
    most = min(max_iterations, tolerance.max_iterations)
    for continuation in range(MAX_CONTINUATIONS + 1):
        ksp.setTolerances(rtol=rtol, atol=0.0, max_it=max(1, most - products))
        products += continuation > 0 or system.guess is not None  # the first residual
        with _kept_after_errors(ksp):
            ksp.solve(b, x)
        iterations = ksp.getIterationNumber()
        products += method.products * iterations
        if RESTARTED.get(ksp.getType()) == "gmres":  # it forms its residual again at every restart
            products += max(0, iterations - 1) // restart
        outcome, reason = _outcome(ksp.getConvergedReason()), reason_of(ksp)
        if ksp.getAttr(PROGRESS).has_stalled:
            outcome, reason = Outcome.STAGNATION, f"the residual fell by less than 1 % in {STALLED} iterations"
        check = check_of(system, x)
        products += 1
        if outcome is not Outcome.CONVERGED or check.residual_norm <= target:
            break
        outcome = Outcome.STAGNATION
        rtol *= 0.5 * target / check.residual_norm
        ksp.setInitialGuessNonzero(True)
    return Attempt(x=x, outcome=outcome, reason=reason, iterations=products, check=check)


@contextmanager
def _kept_after_errors(ksp: PETSc.KSP) -> Iterator[None]:
    """Keep the KSP for ever after an error in it.

    Multigrid in which an error occurs keeps vectors of the method, and PETSc 3.25 crashes when both are destroyed.
    """
    from petsc4py import PETSc

    try:
        yield
    except PETSc.Error:
        ksp.incRef()
        raise


def _outcome(reason: int) -> Outcome:
    from petsc4py import PETSc

    reasons = PETSc.KSP.ConvergedReason
    if reason > 0:
        return Outcome.CONVERGED
    if reason == reasons.DIVERGED_MAX_IT:
        return Outcome.ITERATION_LIMIT
    if reason == reasons.DIVERGED_NANORINF:
        return Outcome.NOT_FINITE
    return Outcome.BREAKDOWN
