"""A disk that is full, or out of order, for a while, by a clock of the tests' own."""

import errno
import os

import pytest

from penstock.errors import DiskFault, PenstockError
from penstock.files import patience
from penstock.files.patience import WITHIN_S, Patience


class Disk:
    """Refuses until a time; a wait for it takes no time but the clock's."""

    def __init__(self, monkeypatch):
        self.now, self.number, self.until, self.tries = 1000.0, errno.ENOSPC, 1000.0, []
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(patience.time, "sleep", self.sleep)

    def sleep(self, seconds):
        self.now += seconds

    def write(self):
        self.tries.append(self.now)
        if self.now < self.until:
            raise OSError(self.number, os.strerror(self.number))
        return "written"

    def write_or_explain(self):
        try:
            return self.write()
        except OSError as error:
            raise PenstockError(f"can't write: {error.strerror}") from error


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("how", ["write", "write_or_explain"])
def test_a_minute_is_borne_with_growing_pauses_and_two_lines(disk, number, how):
    said, disk.number, disk.until = [], number, disk.now + 60.0
    assert Patience(said.append).write(getattr(disk, how)) == "written"
    assert len(said) == 2 and os.strerror(number) in said[0] and said[0].endswith("it is tried again for 120 s")
    assert said[1].startswith("the disk takes what is written again, after 6")
    pauses = [later - earlier for earlier, later in zip(disk.tries, disk.tries[1:], strict=False)]
    assert pauses == sorted(pauses) and max(pauses) <= 4.0 and len(pauses) < 25


def test_what_lasts_longer_is_a_disk_fault_with_the_cause(disk):
    said, disk.until = [], float("inf")
    with pytest.raises(DiskFault, match=r"^can't write: No space left on device$") as raised:
        Patience(said.append).write(disk.write_or_explain)
    assert raised.value.exit_code == 1 and len(said) == 1
    assert WITHIN_S <= disk.now - 1000.0 <= WITHIN_S + 5.0


def test_nothing_is_tried_again_where_that_would_not_help_or_the_end_was_asked_for(disk):
    said, disk.until, disk.number = [], float("inf"), errno.EFBIG
    with pytest.raises(OSError, match="File too large"):
        Patience(said.append).write(disk.write)
    disk.number = errno.ENOSPC
    ended = Patience(said.append)
    ended.end()
    with pytest.raises(DiskFault):
        ended.write(disk.write)
    assert said == [] and disk.now == 1000.0
