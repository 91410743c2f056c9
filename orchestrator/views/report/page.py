"""The page as a whole: its sections, and the document around them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

from penstock import __version__
from penstock.orchestrator.history.standing import UNREADABLE
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.report import cases, cost, course, overview
from penstock.orchestrator.views.report.html import STYLE, paragraph
from penstock.orchestrator.views.report.past import Past


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    key: str
    """The id of its `<section>`."""
    title: str
    html: str
    """What is in it below its title."""


SECTIONS: Mapping[str, tuple[str, Callable[[Past], str]]] = {
    "overview": ("Overview", overview.overview),
    "losses": ("Losses and errors", course.losses),
    "throughput": ("Throughput and waits", course.throughput),
    "buffer": ("Buffer", course.buffer),
    "solving": ("Strategies and solves", course.solving),
    "parameters": ("Error against parameters", cases.parameters),
    "rollout": ("Rollouts", course.rollout),
    "cases": ("Best, median and worst case", cases.cases),
    "cost": ("Cost and break-even", cost.cost),
    "configuration": ("Configuration, versions, machine", overview.configuration),
    "events": ("Events", overview.events),
}
"""The sections of a run's page in order: by key, title and what writes them."""


def sections_of(folder: RunFolder, keys: Collection[str] = tuple(SECTIONS)) -> list[Section]:
    """Sections about a run as it stands.

    Args:
        folder: its folder.
        keys: which of SECTIONS.

    Returns:
        The sections, in the order of SECTIONS.

    Raises:
        PenstockError: the records are there and can't be read.
    """
    past = Past.of(folder)
    return [section(key, title, partial(write, past)) for key, (title, write) in SECTIONS.items() if key in keys]


def section(key: str, title: str, write: Callable[[], str]) -> Section:
    """A section, or a warning where records of another version can't be shown.

    Args:
        key: its key.
        title: its title.
        write: writes what is in it.
    """
    try:
        return Section(key, title, write())
    except UNREADABLE as error:
        name = type(error).__name__
        return Section(
            key, title, paragraph(f"A record is damaged or of another version ({name}: {error}).", "warning")
        )


def page(title: str, sections: Sequence[Section], *, head: str = "", note: str = "") -> str:
    """A whole document, which loads nothing.

    Args:
        title: its title.
        sections: what is in it.
        head: more HTML for its `<head>`.
        note: HTML below its title.

    Returns:
        HTML.
    """
    links = "".join(f'<li><a href="#{each.key}">{escape(each.title)}</a></li>' for each in sections)
    body = "".join(
        f'<section id="{each.key}" aria-labelledby="{each.key}-title">'
        f'<h2 id="{each.key}-title">{escape(each.title)}</h2>{each.html}</section>'
        for each in sections
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style>{head}</head><body>'
        f'<header><h1>{escape(title)}</h1>{note}</header><nav aria-label="Sections"><ul>{links}</ul></nav>'
        f"<main>{body}</main><footer><p>Written by penstock {__version__}.</p></footer></body></html>\n"
    )
