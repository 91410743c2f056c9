"""Candidates: the strategies that make sense for a family, by its structure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from penstock.solvers.linear.auto.calibration import can_factor
from penstock.solvers.linear.direct.constant import Constant
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.direct.lagged import Lagged
from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.iterative.cg import CG
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.linear.strategy import Strategy
from penstock.solvers.problem import LinearSystem


@dataclass(frozen=True)
class Candidate:
    """A strategy that makes sense for a family, with what is known of its cost."""

    label: str
    """Name of the candidate, for decisions and the log."""
    make: Callable[[], Strategy]
    """Function that makes a fresh strategy."""
    least: float = 0.0
    """Least time of a solve ever seen, in products with A.

    Set-up that later solves keep is left out.
    """
    iteration: float = 2.0
    """Least time of an iteration, in products with A."""
    warm_up: int = 1
    """Number of systems before its solves are worth timing.

    In these it does set-up that later solves keep, or learns a space.
    """
    num_timed: int = 3
    """Number of systems that it is timed on after the warm-up.

    It may drop out from the third last of them on.
    """
    upkeep: float = 1.0
    """Mean time of a solve in the long run, in medians of those timed.

    It is above 1 for a strategy that repeats its set-up from time to time.
    """


CONSTANT = Candidate("constant", Constant)


def candidates(system: LinearSystem) -> list[Candidate]:
    """The strategies that make sense for a system like this, the likeliest first."""
    num_unknowns = system.A.getSize()[0]
    is_parallel = system.A.comm.size > 1
    if not tells_entries(system.A):
        return _of_products(system)
    direct, iterative = [], []
    if can_factor(system):
        least = math.sqrt(num_unknowns)  # nested dissection in 2D: 110 products at 1e4 unknowns, 255 at 6.5e4
        if not is_parallel and system.nullspace is None:  # PETSc's factorisations support neither ranks nor nullspaces
            direct.append(Candidate("direct (petsc)", lambda: Direct(solver="petsc"), least))
        direct.append(Candidate("direct (mumps)", lambda: Direct(solver="mumps"), least))
    incomplete = "bjacobi" if is_parallel else "icc" if system.is_spd else "ilu"
    if not system.is_spd:
        # Each Arnoldi step of GCRO-DR(40, 20) also works through 30 vectors on average, four times.
        step = 2 + 80 * num_unknowns / max(system.A.getInfo()["nz_used"], 1)
        iterative = [
            Candidate("lagged", Lagged, 20, 5, warm_up=3, num_timed=5, upkeep=1.2),  # a factorisation in 10 to 20
            Candidate("gmres + gamg", lambda: Krylov(ksp="gmres", pc="gamg"), 100, 6),
            Candidate(f"gcrodr + {incomplete}", lambda: GCRODR(pc=incomplete), 40 * step, step, warm_up=3),
        ]
        return direct + iterative
    if system.grid is not None and not is_parallel:
        iterative.append(Candidate("cg + multigrid", lambda: CG(pc="multigrid"), 10))
    iterative.append(Candidate("cg + gamg", lambda: CG(pc="gamg"), 100))
    if system.grid is None or is_parallel:
        iterative += [
            Candidate(f"cg + {incomplete}", lambda: CG(pc=incomplete), 50),
            Candidate(f"cg + {incomplete}, recycling", lambda: CG(pc=incomplete, k=20), 100, warm_up=6),
        ]
    is_direct_likelier = num_unknowns < (1000 if system.grid is not None else 50_000)
    return direct + iterative if is_direct_likelier else iterative + direct


def _of_products(system: LinearSystem) -> list[Candidate]:
    """The candidates for a matrix that only multiplies.

    It may give its diagonal; if not, Jacobi drops out.
    """
    if system.is_spd:
        return [Candidate(f"cg + {pc}", partial(CG, pc=pc)) for pc in ("none", "jacobi")]
    gcrodr = [Candidate(f"gcrodr + {pc}", partial(GCRODR, pc=pc), warm_up=3) for pc in ("none", "jacobi")]
    return [*gcrodr, Candidate("gmres + none", partial(Krylov, ksp="gmres", pc="none"))]
