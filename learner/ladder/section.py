"""A section of a bench's page: what was measured, and its targets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.learner.ladder.timing import Spread
from penstock.report import markdown


@dataclass(frozen=True, kw_only=True)
class Target:
    """A measured figure and its target.

    With neither `least` nor `most` the figure is only reported: it has no target on this device.
    """

    what: str
    """Name of the figure."""
    measured: Spread
    """What was measured; its median counts."""
    least: float | None = None
    """Value that the figure should reach."""
    most: float | None = None
    """Value that the figure should not exceed."""

    def row(self) -> list[str]:
        """Return the figure's row in the summary, without the section's title."""
        goal, is_met = "-", "-"
        if self.least is not None:
            goal, is_met = f"at least {self.least:g}", _yes(self.measured.median >= self.least)
        elif self.most is not None:
            goal, is_met = f"at most {self.most:g}", _yes(self.measured.median <= self.most)
        return [self.what, str(self.measured), goal, is_met]


@dataclass(frozen=True)
class Section:
    """A section of a bench's page."""

    title: str
    text: str
    targets: tuple[Target, ...] = ()


def summary(sections: Iterable[Section]) -> str:
    """Return a table of the targets of all sections."""
    rows = [[section.title, *target.row()] for section in sections for target in section.targets]
    return markdown(rows, ["section", "what", "measured", "target", "met"])


def _yes(is_met: bool) -> str:
    return "yes" if is_met else "no"
