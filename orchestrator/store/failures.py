"""What is said of simulations that failed or were retried, then and at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from penstock.errors import shortened
from penstock.messages import Restart
from penstock.solvers.problem import RETRIED
from penstock.status import kind_of

GROWTH = 10  # a line is due when this many times as many have failed as at the last one


def failures(num_failed: int, num_delivered: int, reasons: Sequence[Mapping[str, Any]]) -> str:
    """How many simulations failed, and why most of them did.

    Args:
        num_failed: number of those that failed.
        num_delivered: number of the others.
        reasons: as `Ended.failed_reasons` gives them.

    Returns:
        A line.
    """
    frequent = reasons[0]
    share = "all" if frequent["count"] == num_failed else frequent["count"]
    return (
        f"{num_failed} of {num_failed + num_delivered} simulations failed, {share} of them like simulation "
        f"{frequent['simulation']}: {shortened(frequent['reason'])}"
    )


class Failures:
    """Lines and events about failures and restarts: the first, the tenth and so on.

    A line for each would flood the console of a run of many thousands.

    Args:
        note: called with each event, its name and its values by keyword.
        rest: where to learn more, which the first line says; "" for nowhere.
    """

    def __init__(self, note: Callable[..., None], rest: str):
        self._note = note
        self._rest = f"; {rest}" if rest else ""
        self._due: dict[str, int] = {}  # by design, the failed simulation that the next line is about, counted from 1
        self._first: dict[str, str] = {}  # reason of the first one, by design
        self._num_restarts = 0
        self._restart_due = 1

    def news(self, **failed: Mapping[int, str]) -> Iterator[str]:
        """Lines that are due.

        Args:
            **failed: by design, the reason of every simulation that has failed, in the order in which they did.

        Yields:
            Lines; where several are due, those of the first failure and, if its reason is another, of the last due one.
        """
        for design, reasons in failed.items():
            place = "" if design == "training" else f"{design}: "
            numbers = self._now_due(design, len(reasons))
            for number in numbers:
                simulation, reason = next(islice(reasons.items(), number - 1, None))
                self._note("simulation failed", design=design, simulation=simulation, reason=reason, failed=number)
                first = self._first.setdefault(design, reason)
                if number == 1:
                    yield f"{place}simulation {simulation} failed: {reason}{self._rest}"
                    continue
                is_alike = kind_of(reason) == kind_of(first)
                if is_alike and numbers[0] == 1:  # the line before says it all
                    continue
                why = "as the first one" if is_alike else reason
                yield f"{place}{number} simulations failed, the last of them is {simulation}: {why}"

    def restarted(self, restarts: Iterable[Restart]) -> Iterator[str]:
        """Lines that are due about external programs that were started again.

        Args:
            restarts: those since the last call.

        Yields:
            Lines.
        """
        for restart in restarts:
            self._num_restarts += 1
            if self._num_restarts < self._restart_due:
                continue
            self._restart_due *= GROWTH
            design, simulation, reason = restart.design, restart.simulation, restart.reason
            details = {"design": design, "simulation": simulation, "reason": reason}
            self._note("program restarted", **details, restarts=self._num_restarts)
            place = "" if design == "training" else f"{design}: "
            number = "" if self._num_restarts == 1 else f" ({self._num_restarts} times so far)"
            yield f"{place}simulation {simulation}: {reason}; {RETRIED}{number}"

    def _now_due(self, design: str, num_failed: int) -> list[int]:
        due = self._due.get(design, 1)
        numbers = []
        while due <= num_failed:
            numbers.append(due)
            due *= GROWTH
        self._due[design] = due
        return numbers if len(numbers) < 3 else [numbers[0], numbers[-1]]
