"""Pages that are kept up to date.

A page is made in parts, and each part only when that is due. What asks for a page never waits for it: it gets what was
made last.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

from penstock.errors import PenstockError, describe
from penstock.machine import description
from penstock.orchestrator.views.report.html import absent, paragraph
from penstock.orchestrator.views.report.page import Section

SHARE, SHARE_AFTERWARDS = 0.002, 0.025
"""Of this machine's processor time, which a part may take while its run goes on, and when that is over."""
CORES = int(description()["cores"])
SHORTEST_S = 1.0  # between two makings of a part


class Lane:
    """Does one thing at a time, in the order in which it was asked to."""

    def __init__(self):
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        Thread(target=self._work, daemon=True).start()

    def put(self, job: Callable[[], None]) -> None:
        """Do this when everything before is done; it raises nothing."""
        self._queue.put(job)

    def _work(self) -> None:
        while True:
            self._queue.get()()


class Part:
    """Sections of a page that are made together.

    A part that took long is left for long, so that it takes SHARE at most, however many look at it.

    Args:
        titles: the titles of the sections by key.
        lane: where they are made.
        source: something that changes when the sections do, None before they can be made; raises nothing.
        make: makes the sections, one after the other; may raise anything.
        seconds: processor time that making has taken so far.
        is_going: whether a run goes on, from which it takes that.
    """

    def __init__(
        self,
        titles: Mapping[str, str],
        lane: Lane,
        source: Callable[[], Hashable],
        make: Callable[[], Iterator[Section]],
        seconds: Callable[[], float] = time.thread_time,
        is_going: Callable[[], bool] = lambda: True,
    ):
        self.titles = titles
        self.made: dict[str, tuple[Section, str]] = {}
        """The sections with their etags, as they were made last."""
        self.is_settled = False
        """Whether all sections were made, and none is being made again."""
        self._lane = lane
        self._source = source
        self._make = make
        self._seconds = seconds
        self._is_going = is_going
        self._lock = Lock()
        self._is_asked = False
        self._made_of: Hashable = None
        self._made_at = -math.inf  # of the monotonic clock
        self._took = 0.0

    def refresh(self) -> None:
        """Have it made again if its source has changed and enough time has passed."""
        with self._lock:  # of several pages that ask at once, one has it made
            if not self._is_asked and self._is_due and (source := self._source()) != self._made_of:
                self._is_asked, self.is_settled = True, False
                self._lane.put(partial(self._renew, source))

    @property
    def _is_due(self) -> bool:
        return time.monotonic() - self._made_at >= max(SHORTEST_S, seconds_until_paid(self._took, self._is_going()))

    def _renew(self, source: Hashable) -> None:
        began = self._seconds()
        left = dict(self.titles)
        try:
            for section in self._make():
                del left[section.key]
                self._keep(section)
        except Exception as error:  # of a file of another version, or one that goes away: the rest must go on
            why = str(error) if isinstance(error, PenstockError) else describe(error)
            for key, title in left.items():
                self._keep(Section(key, title, paragraph(f"This can't be shown: {why}", "warning")))
        self._made_of = source
        self._made_at, self._took = time.monotonic(), self._seconds() - began
        self._is_asked, self.is_settled = False, True

    def _keep(self, section: Section) -> None:
        self.made = self.made | {section.key: (section, f'"{sha256(section.html.encode()).hexdigest()[:20]}"')}


def seconds_until_paid(seconds: float, is_going: bool) -> float:
    """The time of which some seconds of a core are the share that a part may take.

    Args:
        seconds: the seconds of a core.
        is_going: whether a run goes on.
    """
    return seconds / (CORES * (SHARE if is_going else SHARE_AFTERWARDS))


class Board:
    """A page that is kept up to date.

    Args:
        title: its title.
        keys: the keys of its sections, in their order.
        parts: what makes them.
        state: where the run of the page stands, a word; None before that is known, and for a page about several.
    """

    def __init__(self, title: str, keys: Sequence[str], parts: Sequence[Part], state: Callable[[], str | None]):
        self.title = title
        self.state = state
        self._keys = keys
        self._parts = parts

    @property
    def is_settled(self) -> bool:
        """Whether everything was made, and nothing is being made again."""
        return all(part.is_settled for part in self._parts)

    def refresh(self) -> None:
        """Have made again what is due; see `Part`."""
        for part in self._parts:
            part.refresh()

    def sections(self) -> list[Section]:
        """The sections as they were made last; of those that never were it says so."""
        waiting = absent("Being made ...")
        found = {key: Section(key, title, waiting) for part in self._parts for key, title in part.titles.items()}
        for part in self._parts:
            found |= {key: section for key, (section, _) in part.made.items()}
        return [found[key] for key in self._keys]

    def etags(self) -> dict[str, str]:
        """What each section that was made is known by: with another content, another."""
        return {key: etag for part in self._parts for key, (_, etag) in part.made.items()}

    def section(self, key: str) -> tuple[Section, str] | None:
        """A section and its etag; None if it was not made yet, or is none here."""
        return next((part.made[key] for part in self._parts if key in part.made), None)


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None without one, or where it can't be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
