"""What a command asks of a run that is going, through its folder."""

from __future__ import annotations

from penstock.errors import PenstockError
from penstock.orchestrator.config.solver import Steered
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.store.run_folder import RunFolder

FILE = "scale.json"


def ask_for_workers(folder: RunFolder, num: int) -> None:
    """Ask for another number of solver workers; the driver looks once per second.

    Args:
        folder: the run folder.
        num: the number.

    Raises:
        PenstockError: the run is not going, or its number can't be changed by hand.
    """
    solving, name = Solving.of(folder.config()), folder.path.name
    if not folder.is_running():
        raise PenstockError(f"{name} is not running: give solver.workers={num} where it is started or resumed")
    if solving.order.must_repeat:
        raise PenstockError(f"{name} is deterministic: each worker has its lane, and their number is fixed")
    if isinstance(solving.config.solver.workers, Steered):
        raise PenstockError(f"{name} chooses the number itself (solver.workers: {{min, max}}): resume it with a number")
    folder.write(FILE, {"solvers": num})


def asked_for_workers(folder: RunFolder) -> int | None:
    """The number that was asked for since the last call.

    Args:
        folder: the run folder.

    Returns:
        The number; None if nothing was asked.

    Raises:
        PenstockError: the request is damaged.
    """
    if (request := folder.take(FILE)) is None:
        return None
    num = request.get("solvers") if isinstance(request, dict) else None
    if type(num) is not int or num < 1:
        raise PenstockError(f"{folder.path / FILE} asked for {num!r} workers: use `penstock scale`")
    return num
