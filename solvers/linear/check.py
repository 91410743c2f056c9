"""The check whether an x solves A x = b, which scaling can't fool.

A small ||b - A x|| / ||b|| says nothing where the rows differ in scale: with Dirichlet values set by a penalty of 1e30,
||b|| consists of the boundary rows alone, and x may be anything inside. And where cancellation makes ||b|| far smaller
than ||A|| ||x||, as in a slender beam, no x in double precision has a small one: 5e-5 is the best for a cantilever of
300 : 1. The componentwise backward error is reliable in both cases (W. Oettli, W. Prager, Numer. Math. 6 (1964)
405-409):

    ω = max |b - A x|_i / (|A||x| + |b|)_i,

the least relative change of the entries of A and b that makes x exact: it is the same however rows and columns are
scaled. Wrong solutions of systems with penalties, which the residual alone accepted, had ω = 2e-6 to 2e-1; that
cantilever's had 3e-16.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.kernels import library
from penstock.solvers.problem import LinearSystem

if TYPE_CHECKING:
    from petsc4py import PETSc

# An ω that can't be improved: it is 3e-15 at most after direct solves, except near resonances.
ROUNDING = 1e-14


class _Norms(ctypes.Structure):
    """The struct `Norms` of residual.c."""

    _fields_ = (("b", ctypes.c_double), ("residual", ctypes.c_double), ("backward_error", ctypes.c_double))


@dataclass(eq=False)  # frozen takes 2 us longer
class Check:
    """The residual and backward error of one x, by a product with the system's A."""

    system: LinearSystem
    x: PETSc.Vec
    norm_b: float
    """||b||."""
    residual_norm: float
    """||b - A x||."""
    strict_backward_error: float
    """The backward error ω; 0 where A has no entries to read (MATSHELL).

    The norm ||b - A x|| alone must do then.
    """
    _state: int

    @property
    def relative_residual(self) -> float:
        """The relative residual ||b - A x|| / ||b||."""
        return self.residual_norm / self.norm_b if self.norm_b > 0 else math.nan

    @cached_property
    def backward_error(self) -> float:
        """The backward error ω with a floor, for rows of very small terms.

        The floor is ρ ||A_i|| ||x|| in row i, where ρ is the least diagonal entry over the largest row sum. Far from a
        local source, x and its row's terms decay to nothing, no iterative method gets them right relative to
        themselves, and nobody wants it: ω is 1 after any step of the heat equation. So there a row is held against the
        largest x (as in Arioli, Demmel, Duff, SIAM J. Matrix Anal. Appl. 10 (1989) 165-190), unless bad scaling may be
        why the terms are small: with a penalty of 1e9, ρ is 1e-9 or less, and it is 0 without a diagonal.
        """
        if not self.strict_backward_error > ROUNDING:
            return self.strict_backward_error
        return _norms_of(self.system, self.x, has_floor=True).backward_error

    def is_of(self, system: LinearSystem, x: PETSc.Vec) -> bool:
        """Whether it was made with this A and this x, unchanged since."""
        return self.system.A == system.A and self.x is x and self._state == x.stateGet()


@dataclass(frozen=True)
class Bound:
    """The bounds that an x must keep to be accepted."""

    relative_residual: float
    """Largest ||b - A x|| / ||b||."""
    backward_error: float
    """Largest ω."""

    def is_kept_by(self, check: Check) -> bool:
        """Whether both bounds are kept; False for numbers that are not finite."""
        if not (math.isfinite(check.relative_residual) and check.relative_residual <= self.relative_residual):
            return False
        return check.strict_backward_error <= self.backward_error or check.backward_error <= self.backward_error

    def missed_by(self, check: Check) -> list[str]:
        """The bounds that are exceeded, and by how much."""
        figures = (
            ("relative residual", check.relative_residual, self.relative_residual),
            ("backward error", check.backward_error, self.backward_error),
        )
        return [
            f"{name} {value:.1e}, {value / largest:.2g} times the bound {largest:.1e}"
            for name, value, largest in figures
            if math.isfinite(value) and value > largest
        ]


def check_of(system: LinearSystem, x: PETSc.Vec) -> Check:
    """The check of an x.

    It takes one pass over a sequential AIJ matrix, and no vector to hold the residual.
    """
    norms = _norms_of(system, x, has_floor=False)
    return Check(system, x, norms.b, norms.residual, norms.backward_error, x.stateGet())


def residual_of(system: LinearSystem, x: PETSc.Vec) -> PETSc.Vec:
    """The residual b - A x."""
    residual = system.b.duplicate()
    system.A.mult(x, residual)
    residual.aypx(-1.0, system.b)
    return residual


def extended_residual_of(system: LinearSystem, x: PETSc.Vec) -> PETSc.Vec:
    """The residual b - A x, summed with 64 bits instead of 53 where possible.

    The processor must have them, and A must be sequential AIJ. Iterative refinement with such residuals reduces the
    error to 1e-19 times A's condition; with ordinary residuals the error stays that of the factorisation (N. Higham,
    Accuracy and Stability of Numerical Algorithms, 2002, section 12.1).
    """
    kernels = kernels_for(system.A)
    if kernels is None:
        return residual_of(system, x)
    residual = system.b.duplicate()
    _call(kernels.residual_extended, system, x, residual.handle)
    return residual


def _norms_of(system: LinearSystem, x: PETSc.Vec, *, has_floor: bool) -> _Norms:
    kernels = kernels_for(system.A)
    if kernels is None:
        return _norms_by_products(system, x, has_floor=has_floor)
    norms = _Norms()
    _call(kernels.residual_check, system, x, has_floor, norms)
    return norms


def _call(kernel: Callable[..., int], system: LinearSystem, x: PETSc.Vec, *rest) -> None:
    error = kernel(system.A.handle, system.b.handle, x.handle, x.getLocalSize(), *rest)
    if error:
        from petsc4py import PETSc

        raise PETSc.Error(error)


def kernels_for(A: PETSc.Mat) -> ctypes.PyDLL | None:
    """The kernels that read A's arrays; None where they can't."""
    return _kernels_for_aij() if A.getType() == "seqaij" else None


@cache
def _kernels_for_aij() -> ctypes.PyDLL | None:
    """The kernels, with argument types set; None where PETSc's indices have 64 bits."""
    from petsc4py import PETSc

    if np.dtype(PETSc.IntType).itemsize != ctypes.sizeof(ctypes.c_int):
        return None
    kernels = library()
    system = (*(ctypes.c_void_p,) * 3, ctypes.c_int)
    kernels.residual_check.argtypes = (*system, ctypes.c_int, ctypes.POINTER(_Norms))
    kernels.residual_extended.argtypes = (*system, ctypes.c_void_p)
    kernels.nullspace_has_constants.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_double)
    return kernels


def _norms_by_products(system: LinearSystem, x: PETSc.Vec, *, has_floor: bool) -> _Norms:
    """The norms for a matrix that the kernel can't read.

    It has several ranks, indices of 64 bits, or no entries.
    """
    A, b = system.A, system.b
    residual = residual_of(system, x)
    norms = _Norms(b=b.norm(), residual=residual.norm())
    if not tells_entries(A):
        return norms
    absolute = _absolute(A)
    size, magnitudes = b.duplicate(), x.copy()
    magnitudes.abs()
    absolute.mult(magnitudes, size)
    sizes = size.array_r + np.abs(b.array_r)
    if has_floor:
        sums, ones = b.duplicate(), x.duplicate()
        ones.set(1.0)
        absolute.mult(ones, sums)
        least, largest = absolute.getDiagonal().min()[1], sums.max()[1]
        sizes += magnitudes.max()[1] * (least / largest if largest > 0 else 0.0) * sums.array_r
    ratios = np.divide(np.abs(residual.array_r), sizes, out=np.zeros_like(sizes), where=sizes > 0)
    size.array = ratios
    norms.backward_error = size.max()[1]
    return norms


def _absolute(A: PETSc.Mat) -> PETSc.Mat:
    """The matrix |A| of absolute values."""
    from petsc4py import PETSc

    starts, columns, values = A.getValuesCSR()
    return PETSc.Mat().createAIJ(A.getSizes(), csr=(starts, columns, np.abs(values)), comm=A.comm)
