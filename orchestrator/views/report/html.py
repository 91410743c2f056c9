"""Pieces of HTML: tables, facts, and what is said where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows.

    Args:
        caption: what it shows.
        header: a heading per column.
        rows: cells as plain text.

    Returns:
        HTML; a wide table can be scrolled, by keyboard too.
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in others) + "</tr>"
        for first, *others in rows
    )
    return scrollable(
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
        caption,
    )


def facts(caption: str, values: Mapping[str, str | None]) -> str:
    """A table of names and values, without those that are None."""
    return table(caption, ("fact", "value"), [(name, value) for name, value in values.items() if value is not None])


def scrollable(content: str, label: str, kind: str = "") -> str:
    """What may be wider than the page, and is then scrolled, by keyboard too."""
    return (
        f'<div class="{f"wide {kind}".strip()}" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'
    )


def folded(summary: str, content: str) -> str:
    """What is shown when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def absent(text: str) -> str:
    """Why something is not there."""
    return paragraph(text, "absent")


def charts(drawn: Sequence[str]) -> str:
    """Charts side by side, as many as fit."""
    return f'<div class="charts">{"".join(drawn)}</div>'
