"""A part of the page: what was measured, and what it should have come to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.learner.ladder.timing import Spread
from penstock.report import markdown


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure that should reach a least value, or stay below a most one; its median counts.

    Without either it is told, and nothing is asked of it on this device.
    """

    what: str
    measured: Spread
    least: float | None = None
    most: float | None = None

    def row(self) -> list[str]:
        goal, is_met = "-", "-"
        if self.least is not None:
            goal, is_met = f"at least {self.least:g}", _yes(self.measured.median >= self.least)
        elif self.most is not None:
            goal, is_met = f"at most {self.most:g}", _yes(self.measured.median <= self.most)
        return [self.what, str(self.measured), goal, is_met]


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    targets: tuple[Target, ...] = ()


def summary(sections: Iterable[Section]) -> str:
    """The targets of all sections."""
    rows = [[section.title, *target.row()] for section in sections for target in section.targets]
    return markdown(rows, ["section", "what", "measured", "target", "met"])


def _yes(is_met: bool) -> str:
    return "yes" if is_met else "no"
