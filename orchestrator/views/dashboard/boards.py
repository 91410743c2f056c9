"""Pages that are kept up to date.

A page is made in parts, and each part only when it is due. A request never waits for that: it gets what was made last.
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
"""The share of this machine's processor time that a part may take: while its run goes on, and afterwards."""
CORES = int(description()["cores"])
SHORTEST_S = 1.0  # between two makings of a part


class Lane:
    """A thread that does jobs one at a time, in the order in which they were put."""

    def __init__(self):
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        Thread(target=self._work, daemon=True).start()

    def put(self, job: Callable[[], None]) -> None:
        """Add a job, which must raise nothing."""
        self._queue.put(job)

    def _work(self) -> None:
        while True:
            self._queue.get()()


class Part:
    """Sections of a page that are made together.

    The longer a part takes, the longer it is left as it is, so that it takes SHARE at most, however many pages show it.

    Args:
        titles: the titles of the sections by key.
        lane: where they are made.
        source: gives something that changes when the sections do, None before they can be made; raises nothing.
        make: makes the sections, one after the other; may raise anything.
        seconds: gives the processor time that making has taken so far.
        is_going: tells whether a run goes on, which must not be slowed down.
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
        """The sections with their etags, as they were last made."""
        self.is_settled = False
        """Whether all sections have been made, and none is being renewed."""
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
        """Renew it if its source has changed and enough time has passed."""
        with self._lock:  # of several requests at once, one has it made
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
        except Exception as error:  # of a file of another version, or one that was deleted: the others go on
            why = str(error) if isinstance(error, PenstockError) else describe(error)
            for key, title in left.items():
                self._keep(Section(key, title, paragraph(f"This can't be shown: {why}", "warning")))
        self._made_of = source
        self._made_at, self._took = time.monotonic(), self._seconds() - began
        self._is_asked, self.is_settled = False, True

    def _keep(self, section: Section) -> None:
        self.made = self.made | {section.key: (section, f'"{sha256(section.html.encode()).hexdigest()[:20]}"')}


def seconds_until_paid(seconds: float, is_going: bool) -> float:
    """The time after which some seconds of a core are no more than a part's share.

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
        state: gives the state of the page's run; None before it is known, and for a page about several runs.
    """

    def __init__(self, title: str, keys: Sequence[str], parts: Sequence[Part], state: Callable[[], str | None]):
        self.title = title
        self.state = state
        self._keys = keys
        self._parts = parts

    @property
    def is_settled(self) -> bool:
        """Whether all parts are settled."""
        return all(part.is_settled for part in self._parts)

    def refresh(self) -> None:
        """Renew the parts that are due."""
        for part in self._parts:
            part.refresh()

    def sections(self) -> list[Section]:
        """The sections as they were last made, with placeholders for the others."""
        waiting = absent("Being made ...")
        found = {key: Section(key, title, waiting) for part in self._parts for key, title in part.titles.items()}
        for part in self._parts:
            found |= {key: section for key, (section, _) in part.made.items()}
        return [found[key] for key in self._keys]

    def etags(self) -> dict[str, str]:
        """The etags of the sections that are made; an etag changes with the content."""
        return {key: etag for part in self._parts for key, (_, etag) in part.made.items()}

    def section(self, key: str) -> tuple[Section, str] | None:
        """A section and its etag; None if it is not made yet, or there is no such section."""
        return next((part.made[key] for part in self._parts if key in part.made), None)


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Something that changes when a file does; None if it is missing or unreadable."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
