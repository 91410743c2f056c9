"""The pages of the dashboard: the runs of a folder, and each of them."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from penstock.errors import PenstockError
from penstock.orchestrator.history.listing import COLUMNS, REMARK, texts_of
from penstock.orchestrator.history.standing import MARKS, STATES, Standing, is_run_folder, standing
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.dashboard.boards import Board, Lane, Part, seconds_until_paid, stamp
from penstock.orchestrator.views.dashboard.trial import KEYS, TRIAL_S, Trier, seconds_so_far, source_of
from penstock.orchestrator.views.report.html import absent, scrollable
from penstock.orchestrator.views.report.page import SECTIONS, Section, section
from penstock.orchestrator.views.report.past import Past, Tails

FILES = (*MARKS, "summary.json", "strategies.json")
"""Files that the page about a run is made of, besides checkpoints and the validation set."""
BRIEF = ("overview", "configuration", "events")
"""Sections without pictures."""
GOING = ("submitted", "starting", "running")
"""States that may change although no file of the run does."""
MOST_RUNS = 8  # whose pages are kept; the records of one take up to about 100 MB


class Pages:
    """The pages about the runs of a folder.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._drawing, self._trying = Lane(), Lane()  # a trial takes seconds, for which the rest must not wait
        self._trier = Trier()
        self._known: dict[str, tuple[Hashable, float, Standing]] = {}
        part = Part({"runs": "Runs"}, self._drawing, self._list_source, self._list)
        self.runs = Board(f"Runs of {folder}", ("runs",), [part], lambda: None)
        self._boards: dict[str, Board] = {}
        self._lock = Lock()

    def close(self) -> None:
        """End the process that tries out a surrogate, if there is one."""
        self._trier.close()

    def path_of(self, name: str) -> Path | None:
        """The folder of a run.

        Args:
            name: its name, from an address.

        Returns:
            A folder directly in the folder of runs, and no link; None if it holds none with exactly this name.
        """
        try:  # the name is only compared: no path is made of it
            found = [path for path in self.folder.iterdir() if path.name == name]
        except OSError:
            return None
        return found[0] if found and is_run_folder(found[0]) else None

    def latest(self) -> Path | None:
        """The folder that the link `latest` leads to; None if that is no run here."""
        try:
            path = (self.folder / "latest").resolve()
        except OSError:  # links in a circle
            return None
        return self.path_of(path.name) if path.parent == self.folder else None

    def of_run(self, path: Path) -> Board:
        """The page about a run.

        Args:
            path: what `path_of` has returned.
        """
        with self._lock:
            board = self._boards.pop(path.name, None) or _Run(path).board(self._drawing, self._trying, self._trier)
            self._boards[path.name] = board  # in the order in which they were last asked for
            while len(self._boards) > MOST_RUNS:
                del self._boards[next(iter(self._boards))]
        return board

    def _list_source(self) -> Hashable:
        return int(time.monotonic())  # ages are shown

    def _list(self) -> Iterator[Section]:
        yield Section("runs", "Runs", _table(self._standings()))

    def _standings(self) -> list[Standing]:
        """The runs, the newest first; a run is read again only if it has changed."""
        try:
            paths = list(self.folder.iterdir())
        except OSError as error:
            raise PenstockError(f"{self.folder} can't be read: {error.strerror}") from error
        before, self._known = self._known, {}
        now = time.monotonic()
        for path in filter(is_run_folder, paths):
            source = source_of_files(path)
            known = before.get(path.name)
            if known is None or known[0] != source or known[2].state in GOING:
                known = source, now, standing(path)
            self._known[path.name] = known
        found = [
            replace(each, age_s=None if each.age_s is None else each.age_s + now - then)
            for _, then, each in self._known.values()
        ]
        return sorted(found, key=lambda run: (run.age_s is None, run.age_s, run.name))


class _Run:
    """What the page about a run is made of."""

    def __init__(self, path: Path):
        self._folder = RunFolder(path)
        self._tails = Tails.of(self._folder)
        self._state: str | None = None
        self._age_s = 0.0

    def board(self, drawing: Lane, trying: Lane, trier: Trier) -> Board:
        """The page."""
        drawn = tuple(key for key in SECTIONS if key not in (*BRIEF, *KEYS))
        files, going = partial(source_of_files, self._folder.path), self._is_going
        parts = [
            Part(_titles(BRIEF), drawing, self._source, partial(self._make, BRIEF), is_going=going),
            Part(_titles(drawn), drawing, files, partial(self._make, drawn), is_going=going),
            Part(
                *(_titles(KEYS), trying, self._source_of_trial, partial(self._try, trier)),
                seconds=seconds_so_far,
                is_going=going,
            ),
        ]
        return Board(self._folder.path.name, tuple(SECTIONS), parts, lambda: self._state)

    def _is_going(self) -> bool:
        return self._state is None or self._state in GOING

    def _source_of_trial(self) -> Hashable:
        if self._state is None:
            return None
        return source_of(self._folder), self._trial_from()

    def _trial_from(self) -> float | None:
        """The age from which on a trial takes no more than its share; None if reached."""
        age = seconds_until_paid(TRIAL_S, self._is_going())
        return age if self._is_going() and self._age_s < age else None

    def _try(self, trier: Trier) -> Iterator[Section]:
        return trier.sections(self._folder, self._trial_from())

    def _source(self) -> Hashable:
        # A driver may die and leave its files as they are.
        now = int(time.monotonic()) if self._state in GOING else None
        return source_of_files(self._folder.path), now

    def _make(self, keys: tuple[str, ...]) -> Iterator[Section]:
        past = Past.of(self._folder, self._tails)
        self._state, self._age_s = past.standing.state, past.standing.age_s or 0.0
        for key in keys:
            title, write = SECTIONS[key]
            yield section(key, title, partial(write, past))


def source_of_files(path: Path) -> Hashable:
    """Something that changes when a run writes."""
    return tuple(stamp(path / name) for name in FILES)


def _titles(keys: tuple[str, ...]) -> dict[str, str]:
    return {key: SECTIONS[key][0] for key in keys}


def _table(found: list[Standing]) -> str:
    if not found:
        return absent("There is no run in this folder yet.")
    head = "".join(f'<th scope="col">{column}</th>' for column in (*COLUMNS, REMARK))
    body = "".join(map(_row, found))
    caption = f"{len(found)} {'run' if len(found) == 1 else 'runs'}, the newest first"
    return scrollable(
        f'<table style="white-space: nowrap"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>",
        caption,
    )


def _row(run: Standing) -> str:
    name, state, *others = map(escape, texts_of(run))
    return (
        f'<tr><th scope="row"><a href="/run/{quote(run.name, safe="")}/">{name}</a></th>'
        f'<td title="{escape(STATES[run.state])}">{state}</td>'
        + "".join(f"<td>{text}</td>" for text in others)
        + f'<td style="white-space: normal; min-width: 45ch">{escape(run.remark or "-")}</td></tr>'
    )
