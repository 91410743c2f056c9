"""Places in a ring: in one piece, never two of one byte, and given back in turn."""

import os
import random

import pytest

from penstock.transport.ring import Ring, SharedMemory, memory_of


def test_a_place_is_free_until_it_is_taken_and_after_it_was_given_back():
    ring = Ring(100, 9)
    assert [ring.take(40), ring.take(40), ring.take(40)] == [0, 40, None]
    ring.give_back()
    assert ring.take(41) is None  # bytes 0 to 40 are free
    assert ring.take(40) == 0 and ring.take(1) is None
    ring.give_back()
    assert ring.take(30) == 40


def test_what_is_larger_than_the_ring_goes_alone():
    ring = Ring(100, 9)
    assert ring.take(30) == 0 and ring.take(500) is None
    ring.give_back()
    assert ring.take(500) == 0 and ring.take(1) is None
    ring.give_back()
    assert ring.take(1) == 0


def test_no_byte_has_two_places():
    luck = random.Random(0)
    ring, under_way = Ring(1000, 5), []
    for _ in range(20_000):
        if under_way and luck.random() < 0.5:
            under_way.pop(0)
            ring.give_back()
        size = luck.randint(1, 400)
        if (start := ring.take(size)) is None:
            assert under_way
            continue
        assert start >= 0 and start + size <= 1000 and len(under_way) < 5
        assert all(start + size <= other or start >= other + length for other, length in under_way)
        under_way.append((start, size))


def test_no_more_places_than_asked_for():
    ring = Ring(100, 2)
    assert [ring.take(1), ring.take(1), ring.take(1)] == [0, 1, None]
    ring.give_back()
    assert ring.take(1) == 2


def test_memory_of_another_process_is_seen_and_nothing_is_left_of_it():
    memory = SharedMemory(4096)
    where = (os.getpid(), memory.descriptor, 4096)
    assert memory_of(*where, b"another process.") is None
    seen = memory_of(*where, memory.mark)
    memory.view[20:23] = b"abc"
    assert bytes(seen[20:23]) == b"abc"
    with pytest.raises(TypeError):
        seen[0] = 1  # it is mapped to read
    mark = memory.mark
    memory.close()
    assert bytes(seen[20:23]) == b"abc"  # until the last one lets go
    assert memory_of(*where, mark) is None
