"""The strategies that `auto` has chosen in a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

from penstock.messages import MAX_FAMILIES, Decision, SolveRecord, keep_last
from penstock.orchestrator.store.run_folder import RunFolder

logger = logging.getLogger(__name__)

# Families about which lines are printed; a problem that names its families by the draw has any number of them.
MAX_PRINTED = 6
BY_KIND = "name a family by the kind of its systems, and not by the draw"


class Choices:
    """One decision per family, kept in strategies.json for a resumed run.

    Like the solvers, it keeps the families decided about last, MAX_FAMILIES of them.

    Args:
        folder: the run folder.
    """

    FILE = "strategies.json"

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._by_family = {family: Decision(**values) for family, values in folder.read(self.FILE).items()}

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions that are kept."""
        return tuple(self._by_family.values())

    def take(self, decisions: Iterable[Decision]) -> list[Decision]:
        """Keep decisions that are newer than those known.

        Args:
            decisions: decisions of workers.

        Returns:
            The newer ones.
        """
        new = []
        for decision in decisions:
            known = self._by_family.get(decision.family)
            if known is None or decision.number > known.number:
                keep_last(self._by_family, decision.family, decision)
                new.append(decision)
        if new:
            self._folder.write(self.FILE, {family: asdict(decision) for family, decision in self._by_family.items()})
        for decision in new:
            logger.info("%s: %s", decision.family, decision.reason)
            self._folder.event("strategy chosen", family=decision.family, strategy=decision.strategy)
        return new


class Families:
    """Lines for users about their families of systems: choices and remarks.

    A remark is made once per family.

    Args:
        note: called with each event, its name and its values by keyword.
    """

    def __init__(self, note: Callable[..., None]):
        self._note = note
        self._met: set[str] = set()
        self._reported: set[str] = set()
        self._printed: set[str] = set()
        self._has_ended = False

    def chosen(self, decisions: Iterable[Decision]) -> Iterator[str]:
        """A line for each decision, as long as there are few families.

        Args:
            decisions: the decisions.

        Yields:
            The lines.
        """
        for decision in decisions:
            yield from self._lines(decision.family, decision.reason)

    def news(self, solves: Iterable[SolveRecord]) -> Iterator[str]:
        """Remarks on new solves.

        Args:
            solves: the solves.

        Yields:
            A line about the first system of each of the first families that were solved with a remark, such as that it
            took more than one strategy, and one about too many families. A system that was not solved fails its
            simulation: see `Failures`.
        """
        for solve in solves:
            if len(self._met) <= MAX_FAMILIES and solve.family not in self._met:
                self._met.add(solve.family)
                if len(self._met) > MAX_FAMILIES:
                    yield f"more than {MAX_FAMILIES} families of systems: only the last ones are remembered; {BY_KIND}"
            is_remark = solve.converged and solve.reason
            if is_remark and len(self._reported) < MAX_FAMILIES and solve.family not in self._reported:
                self._reported.add(solve.family)
                self._note("solved again", family=solve.family, reason=solve.reason)
                yield from self._lines(solve.family, solve.reason)

    def _lines(self, family: str, said: str) -> Iterator[str]:
        if family in self._printed or len(self._printed) < MAX_PRINTED:
            self._printed.add(family)
            yield f"{family}: {said}"
        elif not self._has_ended:
            self._has_ended = True
            yield f"more than {MAX_PRINTED} families of systems: no more lines are printed of them; {BY_KIND}"
