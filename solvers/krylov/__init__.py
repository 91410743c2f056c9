"""Linear solvers: `LinearSolver`, and the strategies that it can follow."""

from penstock.solvers.krylov.auto import Auto
from penstock.solvers.krylov.cg import CG
from penstock.solvers.krylov.constant import Constant
from penstock.solvers.krylov.direct import Direct
from penstock.solvers.krylov.gcrodr import GCRODR
from penstock.solvers.krylov.krylov import Krylov
from penstock.solvers.krylov.lagged import Lagged
from penstock.solvers.krylov.linear_solver import LinearSolver

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
"""Names for `solver.strategy`; the options of the configuration are the constructor's keyword arguments."""
