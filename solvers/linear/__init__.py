"""Linear solvers: `LinearSolver`, and the strategies that it can follow."""

from penstock.solvers.linear.auto.auto import Auto
from penstock.solvers.linear.direct.constant import Constant
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.direct.lagged import Lagged
from penstock.solvers.linear.iterative.cg import CG
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.linear.linear_solver import LinearSolver

__all__ = ["STRATEGIES", "LinearSolver"]

STRATEGIES: dict[str, type] = {
    "auto": Auto,
    "direct": Direct,
    "constant": Constant,
    "lagged": Lagged,
    "cg": CG,
    "krylov": Krylov,
    "gcrodr": GCRODR,
}
"""Names for `solver.strategy`, with the class behind each.

The options of the configuration are the constructor's keyword arguments.
"""
