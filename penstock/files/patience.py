"""Patience with a disk that is full, or out of order, for a while."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from penstock.errors import DiskFault, PenstockError

WITHIN_S = 120.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 4.0
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ETIMEDOUT}


class Patience:
    """How long a refused write is tried again, with growing pauses.

    Args:
        tell: takes a line for people when the disk refuses and one when it writes again.
        within_s: seconds for which a write is tried again.
    """

    def __init__(self, tell: Callable[[str], None], within_s: float = WITHIN_S):
        self._tell = tell
        self._within_s = within_s
        self._since: float | None = None  # the first refusal; None while the disk takes what is written
        self._pause_s = FIRST_PAUSE_S
        self._again_at = 0.0

    @property
    def is_refused(self) -> bool:
        """Whether the disk has refused what was written last."""
        return self._since is not None

    @property
    def pause_s(self) -> float:
        """Seconds until the next try; 0 if it is due, or if nothing was refused."""
        return max(0.0, self._again_at - time.monotonic()) if self.is_refused else 0.0

    def refused(self, error: OSError | PenstockError) -> None:
        """Note that a write has failed.

        Args:
            error: the error, or a PenstockError with it as its cause.

        Raises:
            DiskFault: the disk has refused for too long.
            OSError: the error, where another try would be no better.
            PenstockError: the same.
        """
        now = time.monotonic()
        if _number_of(error) not in PASSING:
            raise error
        if self._since is None:
            self._since, self._pause_s = now, FIRST_PAUSE_S
            if self._within_s:
                self._tell(f"{error}; it is tried again for {self._within_s:.0f} s")
        if now - self._since >= self._within_s:
            raise DiskFault(str(error)) from error
        self._again_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def accepted(self) -> None:
        """Note that a write went through."""
        if self._since is not None:
            self._tell(f"the disk takes what is written again, after {time.monotonic() - self._since:.0f} s")
            self._since = None

    def write[Result](self, write: Callable[[], Result]) -> Result:
        """Write, and wait where that is refused.

        Args:
            write: does it, as a whole each time.

        Returns:
            What `write` returns.

        Raises:
            OSError, PenstockError: see `refused`.
        """
        while True:
            try:
                result = write()
            except (OSError, PenstockError) as error:
                self.refused(error)
                time.sleep(self.pause_s)
            else:
                self.accepted()
                return result

    def end(self) -> None:
        """Try nothing again from here on; may be called by a signal's handler."""
        self._within_s = 0.0


def _number_of(error: BaseException) -> int | None:
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause.errno if isinstance(cause, OSError) else None
