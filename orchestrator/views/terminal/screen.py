"""Where a command prints: for the user, for scripts, or errors alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.live import Live

from penstock.orchestrator.resources.forecast import Pace
from penstock.orchestrator.views.terminal.output import Output
from penstock.orchestrator.views.terminal.progress import Bar, time_left

FRAME_EVERY_S = 0.25  # on a terminal
ECHO = "^C"  # what a terminal adds to a frame when it is interrupted; one line more, and rich could not take it away
PLAIN_EVERY_S = 10.0  # elsewhere there is one line, this often


class Form(Enum):
    """What a command prints on standard output."""

    PEOPLE = "lines, tables and live views"
    QUIET = "nothing"
    JSON = "one JSON object per line"


class Screen(Console):
    """The console of a command that takes a while.

    When its reader is gone it falls silent, where rich would end the program.

    Args:
        form: what is printed.
    """

    def __init__(self, form: Form = Form.PEOPLE):
        self.form = form
        self._output = Output(sys.stdout)
        super().__init__(file=self._output, highlight=False, markup=False, quiet=form is not Form.PEOPLE)

    @property
    def is_live(self) -> bool:
        """Whether it is a terminal, for the user, in which lines can be replaced."""
        return self.form is Form.PEOPLE and self.is_terminal and not self.is_dumb_terminal

    @property
    def has_reader(self) -> bool:
        """Whether somebody may still read; False once a pipe's reader has gone."""
        return self._output.has_reader

    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor as it is: a process that is killed could not bring it back."""
        return False

    def say(self, line: str) -> None:
        """Print a line for the user, and nothing for scripts."""
        self.print(line, soft_wrap=True)

    def tell(self, line: str) -> None:
        """Print a line for the user; for scripts, an object of kind `note`."""
        self.say(line)
        self.give("note", {"text": line})

    def fail(self, line: str) -> None:
        """Print an error, on standard error too where no lines are printed for the user."""
        if self.form is not Form.PEOPLE:
            print(f"penstock: {line}", file=sys.stderr)
        self.tell(line)

    def give(self, kind: str, values: Mapping[str, Any]) -> None:
        """Print an object for scripts, and nothing for the user.

        Args:
            kind: its kind, see docs/runs.md.
            values: what else it holds.
        """
        if self.form is Form.JSON:
            self._output.write(json.dumps({"kind": kind, **values}) + "\n")

    @contextmanager
    def progress(self, what: str, *, is_even: bool = True) -> Iterator[Progress]:
        """Within the block, show how much is done.

        A terminal has a bar; elsewhere there is a line every 10 s.

        Args:
            what: what is done, in the plural.
            is_even: see `Progress`.

        Yields:
            What is shown.
        """
        with Spot(self, stays=False).shown() as spot:
            yield Progress(spot, what, is_even=is_even)

    def drain(self) -> None:
        """Wait until what was printed is written, unless its reader is gone."""
        self._output.drain()


class Spot:
    """A place on the screen whose content is replaced.

    Without a terminal it is one line every 10 s.

    Args:
        screen: the screen.
        stays: whether the last content stays on a terminal.
    """

    def __init__(self, screen: Screen, *, stays: bool = True):
        self._screen = screen
        self._stays = stays
        self._live: Live | None = None
        self._next = 0.0

    @contextmanager
    def shown(self):
        """Within the block the spot is on the screen; yields itself."""
        self._next = time.monotonic() + (0.0 if self._stays else PLAIN_EVERY_S)  # what goes may be over before
        try:
            if not self._screen.is_live:
                yield self
                return
            # Without a thread: it would draw each content several times. Standard output may go to a log meanwhile,
            # where rich would redirect it to the console again.
            options = {"auto_refresh": False, "redirect_stdout": False, "redirect_stderr": False}
            with Live(console=self._screen, transient=not self._stays, **options) as self._live:
                self._next = 0.0
                yield self
        finally:
            self._live = None
            self._screen.drain()  # before the line on standard error that may be the cause of the end

    def put(self, frame: Callable[[], RenderableType], line: Callable[[], str], *, is_rare: bool = False) -> None:
        """Replace the content, unless it is too new.

        Args:
            frame: makes what a terminal shows.
            line: makes the line that is printed elsewhere.
            is_rare: whether a terminal shows it even so, because the next may take long.
        """
        now = time.monotonic()
        is_due = now >= self._next or (is_rare and self._live is not None)
        if self._screen.form is not Form.PEOPLE or not is_due:
            return
        if self._live is not None:
            self._next = now + FRAME_EVERY_S
            self._live.update(Constrain(frame(), self._screen.width - len(ECHO)), refresh=True)
        else:
            self._next = now + PLAIN_EVERY_S
            self._screen.say(line())


class Progress:
    """The progress of a command that does a number of things.

    Args:
        spot: where it is shown.
        what: what is done, in the plural.
        is_even: whether they take about the same time each, so that the time left can be predicted.
    """

    def __init__(self, spot: Spot, what: str, *, is_even: bool):
        self._spot = spot
        self._what = what
        self._pace = Pace() if is_even else None

    def show(self, done: int, total: int, remark: str = "") -> None:
        """Show how many are done.

        Args:
            done: how many.
            total: how many there are.
            remark: what else is said.
        """
        if self._pace is not None:
            self._pace.add(time.monotonic(), done)
        left = "" if self._pace is None else time_left(self._pace.seconds(total - done))
        text = ", ".join(filter(None, (f"{done} of {total} {self._what}", left, remark)))
        self._spot.put(lambda: Bar(done, total, text), lambda: text, is_rare=self._pace is None)
