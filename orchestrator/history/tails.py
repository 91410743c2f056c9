"""Files that are appended to, of which only new lines are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from penstock.errors import PenstockError

MARK_BYTES = 256  # the last that were read, by which a file is recognised


class Tail[Entry]:
    """The entries of a file of whole lines.

    A file that was replaced or truncated is read again from its beginning.

    Args:
        path: the file, which need not exist.
        parse: makes an entry of a line; None for a line that is damaged, as a crash may leave one.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], Entry | None]):
        self._path = path
        self._parse = parse
        self._entries: list[Entry] = []
        self._inode = 0
        self._offset = 0
        self._mark = b""

    def read(self) -> list[Entry]:
        """All entries so far, the oldest first; none without a file.

        Raises:
            PenstockError: the file is there and can't be read.
        """
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                file.seek(max(0, self._offset - len(self._mark)))
                if inode != self._inode or file.read(len(self._mark)) != self._mark:
                    file.seek(0)
                    self._inode, self._offset, self._mark, self._entries = inode, 0, b"", []
                new = file.read()
        except FileNotFoundError:
            self._offset, self._mark, self._entries = 0, b"", []
            return []
        except OSError as error:
            raise PenstockError(f"{self._path} can't be read: {error.strerror}") from error
        new = new[: new.rfind(b"\n") + 1]
        self._offset += len(new)
        self._mark = (self._mark + new[-MARK_BYTES:])[-MARK_BYTES:]
        self._entries += [entry for line in new.splitlines() if (entry := self._parse(line)) is not None]
        return list(self._entries)
