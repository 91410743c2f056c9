"""The logs of all processes of a run, and its events, merged by time."""

from __future__ import annotations

import heapq
import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from penstock.orchestrator.store.run_folder import RunFolder

BLOCK_BYTES = 2**20  # read at once of a file, of which there may be hundreds
LAST_BYTES = 4096
MOST_HELD = 1000  # lines before the first one that has a time
STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)[.,](\d{3})(Z?) ?")
"""As `log_to` writes it; without Z it is the local time, as an earlier penstock wrote it."""


@dataclass(frozen=True)
class Line:
    """A line of a log."""

    time: float
    """Seconds since 1970-01-01 UTC; a line without a time has that of the one before."""
    process: str
    """Name of the process that wrote it, which is that of the log."""
    text: str
    """The line, without its time."""
    path: Path
    number: int
    """Its place in the file, counted from 1."""
    is_stamped: bool = True
    """Whether it has a time."""

    def __str__(self) -> str:
        stamp = stamp_of(self.time) if self.is_stamped else ""
        return f"{stamp:24} {self.process:>9} | {printable(self.text)}"


def printable(text: str) -> str:
    """A line whose control characters are escaped.

    A terminal would take them for orders, such as colours.
    """
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)
    )


def stamp_of(time: float) -> str:
    """A time as logs have it, in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class LogFile:
    """A file that is read line by line, and then what has been added to it.

    It is open only while a block is read. Where a bound has emptied it, what was added before is read from the file
    beside it, see `bound_log`, and then it from its beginning.

    Args:
        path: the file, which need not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self._process = path.name.partition(".")[0]
        self._offset = 0
        self._number = 0
        self._time: float | None = None
        self._rest = b""
        self._last = b""  # bytes that were read, by which their place is found when they have been moved
        self._is_refused = False

    def lines(self, *, is_all: bool = True) -> Iterator[Line]:
        """The lines that were not given before.

        Args:
            is_all: whether to give a last line that has no end yet, too.

        Yields:
            The lines. Those before the first time have that one; without any, the time of the file's last change.
        """
        if self._size() < self._offset:
            moved = self._moved()
            yield from moved.lines(is_all=False)
            self._offset, self._number, self._rest, self._last = 0, 0, moved._rest, b""
        held: list[Line] = []
        for raw in self._raw_lines(is_all):
            self._number += 1
            line = self._line(raw.decode(errors="replace").rstrip("\r\n"))
            if self._time is None:
                held.append(line)
                if len(held) < MOST_HELD:
                    continue
                self._time = self._changed_at()
                line = replace(held.pop(), time=self._time)
            yield from (replace(each, time=line.time) for each in held)
            held.clear()
            yield line
        if held:
            time = self._changed_at()
            yield from (replace(each, time=time) for each in held)

    def _line(self, text: str) -> Line:
        if stamp := STAMP.match(text):
            self._time = _seconds(stamp)
        time = 0.0 if self._time is None else self._time
        text = text[stamp.end() :] if stamp else text
        return Line(time, self._process, text, self.path, self._number, is_stamped=stamp is not None)

    def _changed_at(self) -> float:
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0

    def _raw_lines(self, is_all: bool) -> Iterator[bytes]:
        while block := self._block():
            *whole, self._rest = (self._rest + block).split(b"\n")
            yield from whole
        if is_all and self._rest:
            rest, self._rest = self._rest, b""
            yield rest

    def _size(self) -> float:
        try:
            return self.path.stat().st_size
        except OSError:
            return math.inf

    def _moved(self) -> LogFile:
        """The file to which a bound has moved what was not given yet, from there on."""
        moved = LogFile(self.path.with_name(f"{self.path.name}.1"))
        moved._time = self._time
        with suppress(OSError):
            content = moved.path.read_bytes()
            if (place := content.rfind(self._last)) >= 0:  # else more than it holds was added
                moved._offset, moved._rest = place + len(self._last), self._rest
                moved._number = content[: moved._offset].count(b"\n")
        return moved

    def _block(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                block = file.read(BLOCK_BYTES)
        except OSError as error:  # of another user, or being deleted: the others are read all the same
            if self._is_refused or isinstance(error, FileNotFoundError):
                return b""
            self._is_refused = True
            return f"{self.path} can't be read: {error.strerror}\n".encode()
        self._offset += len(block)
        self._last = (self._last + block)[-LAST_BYTES:]
        return block


class EventFile(LogFile):
    """events.jsonl as a log of the driver, which wrote it. See `LogFile`.

    Where a bound has thinned it, see `thinned_events`, it is read on from the place up to which it was read.
    """

    def lines(self, *, is_all: bool = True) -> Iterator[Line]:
        """See `LogFile.lines`."""
        if self._size() < self._offset:
            with suppress(OSError):
                content = self.path.read_bytes()
                if (place := content.rfind(self._last)) >= 0:
                    self._offset = place + len(self._last)
                    self._number = content[: self._offset].count(b"\n")
        yield from super().lines(is_all=is_all)

    def _line(self, text: str) -> Line:
        try:
            event: dict[str, Any] = json.loads(text)
            time = datetime.fromisoformat(event.pop("time")).timestamp()
            name = event.pop("event")
        except (ValueError, TypeError, KeyError, AttributeError):  # damaged: shown as it is
            return replace(super()._line(text), process="driver")
        self._time = time
        details = ", ".join(f"{key}={value}" for key, value in event.items())
        return Line(time, "driver", f"EVENT {name}" + (f": {details}" if details else ""), self.path, self._number)


class MergedLogs:
    """The logs of all processes of a run, and its events.

    Logs of Ray, which are kept after a failure, and of nodes are not among them.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._files: dict[Path, LogFile] = {}

    def news(self, *, is_all: bool) -> Iterator[Line]:
        """The lines that were not given before, by time.

        Args:
            is_all: see `LogFile.lines`.
        """
        moved = []
        if not self._files:
            # What a bound has moved, before what came later. What it moves from here on is for `LogFile` to find.
            moved = [LogFile(path) for path in self._folder.logs.glob("*.log.1")]
            self._files[self._folder.events] = EventFile(self._folder.events)
        for path in sorted(self._folder.logs.glob("*.log")):
            self._files.setdefault(path, LogFile(path))
        files = sorted(
            [*moved, *self._files.values()], key=lambda file: (file.path.name.partition(".")[0], file.path.suffix)
        )
        return heapq.merge(
            *(file.lines(is_all=is_all or file in moved) for file in files),
            key=attrgetter("time"),
        )


def _seconds(stamp: re.Match) -> float:
    day, time, milliseconds, is_utc = stamp.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}.{milliseconds}" + ("+00:00" if is_utc else ""))
    except ValueError:  # of a program of the user, which meant something else
        return 0.0
    return moment.timestamp()
