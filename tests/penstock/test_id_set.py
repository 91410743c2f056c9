"""Sets of ids as intervals, against Python's own sets, whatever the sizes of what is added."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.id_set import IdSet

IDS = st.integers(0, 300)


@given(st.lists(st.lists(IDS, max_size=60), max_size=12), st.lists(IDS, max_size=60))
def test_updates_small_and_large_are_those_of_a_set(updates, asked):
    ids, expected = IdSet(), set()
    for update in [list(range(0, 300, 7)), *updates]:  # many intervals from the start
        ids.update(np.array(update, np.int64))
        expected |= set(update)
    assert len(ids) == len(expected)
    assert ids.contains(np.array(asked, np.int64)).tolist() == [i in expected for i in asked]
    intervals = ids.to_intervals()
    assert [i for start, end in intervals for i in range(start, end)] == sorted(expected)
    assert all(before[1] < after[0] for before, after in pairwise(intervals))
