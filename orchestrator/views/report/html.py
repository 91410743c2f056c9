"""Pieces of HTML: tables, facts, notes on what is missing, the style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2024; --soft: #5a6169; --faint: #c3c8ce; --band: #f3f5f7;
  --link: #0b57a8; --line0: #1f6fb4; --line1: #d1620b; --line2: #2b8a3e; --line3: #8e44ad; --line4: #a8870a;
  --line5: #b3344a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e4e7ea; --soft: #a4abb3; --faint: #4a525a;
  --band: #1d2226; --link: #7ab8f5; --line0: #5aa7e8; --line1: #f0964b; --line2: #63c076; --line3: #c08ad8;
  --line4: #d9bc4a; --line5: #ea7a8c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--faint); }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { margin: .5rem 0; max-width: 75ch; overflow-wrap: anywhere; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; margin: 0; padding: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 1rem 1.5rem; }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 560px; fill: var(--ink); }
figcaption { font-size: .875rem; color: var(--soft); max-width: 75ch; }
figcaption strong { color: var(--ink); }
.wide { overflow-x: auto; }
.wide.cases svg { max-width: none; }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0; min-width: min(100%, 24rem); }
caption { text-align: left; color: var(--soft); font-size: .875rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--faint);
  overflow-wrap: break-word; }
th { font-weight: 600; }
thead th { color: var(--soft); }
summary { cursor: pointer; color: var(--link); }
.warning { background: var(--band); border-left: 4px solid var(--line1); padding: .4rem .8rem; }
.absent, footer { color: var(--soft); }
"""
"""For narrow and wide windows, light and dark."""


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
    """Content that can be scrolled, by keyboard too, where it is wider than the page."""
    return (
        f'<div class="{f"wide {kind}".strip()}" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'
    )


def folded(summary: str, content: str) -> str:
    """Content that is folded until it is opened."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def absent(text: str) -> str:
    """A note on why something is missing."""
    return paragraph(text, "absent")


def charts(drawn: Sequence[str]) -> str:
    """Charts side by side, as many as fit."""
    return f'<div class="charts">{"".join(drawn)}</div>'
