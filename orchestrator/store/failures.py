"""What a run says of its failed simulations while it goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.store.run_folder import RunFolder

GROWTH = 10  # a line is due when this many times as many have failed as at the last one


class Failures:
    """Lines and events about failed simulations: the first one, and ten times as many.

    A line for each would flood the console of a run of many thousands.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._told: Counter[str] = Counter()  # failed simulations at the last line, by design

    def news(self, *ledgers: Ledger) -> Iterator[str]:
        """Lines that are due.

        Args:
            ledgers: the ledgers, each of another design.

        Yields:
            A line about the last simulation that failed, for each ledger where one is due.
        """
        for ledger in ledgers:
            design, failed = ledger.design.name, ledger.failed
            if len(failed) < max(1, GROWTH * self._told[design]):
                continue
            self._told[design] = len(failed)
            simulation, reason = next(reversed(failed.items()))
            self._folder.event(
                "simulation failed", design=design, simulation=simulation, reason=reason, failed=len(failed)
            )
            one = f"simulation {simulation} failed"
            several = f"{len(failed)} simulations failed, the last one is {simulation}"
            place = "" if design == "training" else f"{design}: "
            said = one if len(failed) == 1 else several
            yield f"{place}{said}: {reason}; ledger.json has the reasons of all that fail"
