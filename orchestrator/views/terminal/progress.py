"""How far a command has come, in words and as a bar, on terminals of any width."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from penstock.orchestrator.views.numbers import digits, duration
from penstock.record import Ahead

BAR_WIDTHS = 10, 40
GAP = 2  # between a label and its value
TWO_COLUMNS = 76  # of a terminal of 80, in a frame
COUNTED = {
    "validation set": "simulations of the validation set",
    "watermark": "samples up to the watermark",
    "walltime": "minutes of cluster.walltime",
}
"""What is counted, where a limit of `training.stop_after` is not named after it."""


def time_left(seconds: float | None, prefix: str = "") -> str:
    """The time left in words; "-" where it is not known."""
    return "time left -" if seconds is None else f"{prefix}{duration(seconds)} left"


def words(ahead: Ahead, *, is_over: bool) -> str:
    """How far a run has come, and the time left.

    Args:
        ahead: what lies ahead of it.
        is_over: whether it has ended, or was stopped: then no time is left, however far it has come.
    """
    what = COUNTED.get(ahead.until, ahead.until)
    what = what.removesuffix("s") if ahead.total == 1 else what
    come = f"{int(100 * _share(ahead.done, ahead.total))} % of {digits(ahead.total)} {what}"
    return come if is_over else f"{come}, {time_left(ahead.seconds, 'at most ' if ahead.at_most else '')}"


class Bar:
    """A bar with words beside it, or below where the terminal is narrow.

    Args:
        done: what is done.
        total: what there is to do.
        text: the words.
    """

    def __init__(self, done: float, total: float, text: str):
        self._share = _share(done, total)
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least, most = BAR_WIDTHS
        width = options.max_width - cell_len(self._text) - 1
        is_narrow = width < least
        bar = ProgressBar(total=1.0, completed=self._share, width=min(most, options.max_width if is_narrow else width))
        grid, text = Table.grid(padding=(0, 1, 0, 0)), Text(self._text)
        for row in ((bar,), (text,)) if is_narrow else ((bar, text),):
            grid.add_row(*row)
        yield grid


class Pairs:
    """Labels with values beside them; a value that is too long is wrapped.

    A table of rich's measures each cell several times, and took half of a frame.

    Args:
        pairs: labels and values.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]):
        self._pairs = tuple(pairs)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        dim, indent = console.get_style("dim"), max(cell_len(label) for label, _ in self._pairs) + GAP
        width = max(1, options.max_width - indent)
        for label, value in self._pairs:
            text = Text(value)  # which leaves out control characters
            lines = [text] if text.cell_len <= width else text.wrap(console, width)
            for line in lines:
                yield Segment(set_cell_size(label, indent), dim)
                yield Segment(line.plain)
                yield Segment.line()
                label = ""


class Beside:
    """Two things beside one another, or the second below where the terminal is narrow.

    Args:
        left: the first.
        right: the second.
    """

    def __init__(self, left: RenderableType, right: RenderableType):
        self._both = left, right

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < TWO_COLUMNS:
            yield from self._both
            return
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        for _ in self._both:
            grid.add_column(ratio=1)
        grid.add_row(*self._both)
        yield grid


def _share(done: float, total: float) -> float:
    return min(1.0, done / total) if total else 1.0
