"""A problem with faults on request; a run that is disturbed has a copy of this file."""

import os
import socket
import sys
import time
from pathlib import Path

import numpy as np

from penstock.solvers.problems.steady.darcy import Darcy

REST_S = 0.4
LEAK_BYTES = 600_000_000
WHY = "raised on request"
AT_WORK = "at-work-"  # and the name of a machine: a file that is touched when a simulation begins there
DIE, HANG, LEAK, RAISE, REST = "die", "hang", "leak", "raise", "rest"


class Disturbed(Darcy):
    """Darcy flow that goes wrong where a file asks for it, once per file.

    Args:
        resolution: see Darcy.
        orders: folder of the files. While one named `rest` is there, each simulation first rests.
    """

    def __init__(self, *, resolution: int, orders: str):
        super().__init__(resolution=resolution)
        self._orders = Path(orders)
        self._kept: list[np.ndarray] = []
        if "petsc4py" in sys.modules and self._takes(DIE):  # only a worker has it
            os._exit(7)

    def simulate(self, parameters, solve):
        (self._orders / f"{AT_WORK}{socket.gethostname()}").touch()
        if (self._orders / REST).exists():
            time.sleep(REST_S)
        if self._takes(HANG):
            time.sleep(3600.0)
        if self._takes(LEAK):
            self._kept.append(np.ones(LEAK_BYTES // 8))
        if self._takes(RAISE):
            raise ArithmeticError(WHY)
        yield from super().simulate(parameters, solve)

    def _takes(self, order: str) -> bool:
        try:
            (self._orders / order).unlink()  # of several workers one can
        except FileNotFoundError:
            return False
        return True
