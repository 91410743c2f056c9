"""Printing through a thread.

So no absent reader, closed terminal or full disk can hold up a run or end it.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from contextlib import suppress
from typing import TextIO

HELD_TEXTS = 1000  # prints and frames of the live view, a few kB each; what exceeds this while nobody reads is dropped
DRAIN_WITHIN_S = 2.0  # at the end


class Output:
    """A file to print to, whose `write` returns at once and never raises.

    A terminal whose window was closed refuses what is written (EIO), as does a pipe without a reader or a file on a
    full disk. A terminal behind a broken ssh connection, or after Ctrl-S, blocks instead.

    Args:
        file: where the thread writes to.
    """

    def __init__(self, file: TextIO):
        with suppress(OSError):
            file.flush()
        self._file = file
        self.encoding = file.encoding
        self.has_reader = True
        """False once a pipe's reader has gone, as after `| head -1`."""
        self._texts: deque[str] = deque()
        self._is_writing = False
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="output", daemon=True).start()
        atexit.register(self.drain)

    def write(self, text: str) -> int:
        """Queue a text; returns its length, as files do."""
        with self._changed:
            if len(self._texts) < HELD_TEXTS:
                self._texts.append(text)
                self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Do nothing: no text is held back."""

    def isatty(self) -> bool:
        """Whether the file is a terminal."""
        return self._file.isatty()

    def drain(self, within_s: float = DRAIN_WITHIN_S) -> bool:
        """Wait until everything is written.

        Args:
            within_s: how long to wait, in seconds.

        Returns:
            Whether it was written in time.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._texts and not self._is_writing, within_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._texts)
                text, self._is_writing = self._texts.popleft(), True
            try:
                self._write(text.encode(self.encoding, "backslashreplace"))
            except BrokenPipeError:
                self.has_reader = False
            except OSError:  # what a full disk refuses today it may take tomorrow
                pass
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        # Not through the file's buffer, which would keep what could not be written and fail when Python exits.
        while data:
            data = data[os.write(self._file.fileno(), data) :]
