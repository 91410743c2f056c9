"""Files that grow, against what is in them."""

import os

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.history.tails import MARK_BYTES, Tail


@pytest.fixture
def numbers(tmp_path):
    """A file, its tail, and the lines that were parsed."""
    parsed = []

    def parse(line):
        parsed.append(line)
        return int(line) if line.isdigit() else None

    return tmp_path / "numbers", Tail(tmp_path / "numbers", parse), parsed


def test_only_whole_lines_are_read_and_each_once(numbers):
    path, tail, parsed = numbers
    assert tail.read() == []
    for piece, entries in ((b"1\n2", [1]), (b"3\n", [1, 23]), (b"", [1, 23]), (b"half\n4\n", [1, 23, 4])):
        with path.open("ab") as file:
            file.write(piece)
        assert tail.read() == entries
    assert parsed == [b"1", b"23", b"half", b"4"]


@pytest.mark.parametrize("num_lines", [3, 10 * MARK_BYTES])
def test_a_file_that_is_another_one_is_read_again(numbers, num_lines):
    path, tail, _ = numbers
    path.write_text("1\n" * num_lines)
    assert tail.read() == [1] * num_lines
    os.truncate(path, 2)
    assert tail.read() == [1]
    path.write_text("2\n" * (num_lines + 1))  # longer than what was read
    assert tail.read() == [2] * (num_lines + 1)
    other = path.with_name("other")
    other.write_text("3\n" + "2\n" * (num_lines + 1))  # ends as the one that it replaces
    other.replace(path)
    assert tail.read() == [3] + [2] * (num_lines + 1)
    path.unlink()
    assert tail.read() == []
    path.write_text("5\n")
    assert tail.read() == [5]


def test_a_file_that_can_t_be_read_is_named(numbers):
    path, tail, _ = numbers
    path.mkdir()
    with pytest.raises(PenstockError, match="numbers can't be read: Is a directory"):
        tail.read()
