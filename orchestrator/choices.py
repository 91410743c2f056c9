"""The strategies that `auto` has chosen in a run."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict

from penstock.orchestrator.run_folder import RunFolder
from penstock.sample import Decision

logger = logging.getLogger(__name__)


class Choices:
    """One decision a family, kept in strategies.json, so that a resumed run tries nothing out again."""

    FILE = "strategies.json"

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._by_family = {family: Decision(**values) for family, values in folder.read(self.FILE).items()}

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(self._by_family.values())

    def take(self, decisions: Iterable[Decision]) -> list[Decision]:
        """Keep what is newer than what is known; returns that."""
        new = []
        for decision in decisions:
            known = self._by_family.get(decision.family)
            if known is None or decision.number > known.number:
                self._by_family[decision.family] = decision
                new.append(decision)
        if new:
            self._folder.write(self.FILE, {family: asdict(decision) for family, decision in self._by_family.items()})
        for decision in new:
            logger.info("%s: %s", decision.family, decision.reason)
            self._folder.event("strategy chosen", family=decision.family, strategy=decision.strategy)
        return new
