"""Rows of different lengths against padded arrays of NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.arrays.ragged import Ragged, joined, padded


def filled(counts, channels=2, dtype=np.float32):
    """Rows [C, L] of different numbers, and the padded array [N, C, max L]."""
    rows, start = [], 1
    for count in counts:
        rows.append(np.arange(start, start + channels * count, dtype=dtype).reshape(channels, count))
        start += channels * count
    array = np.zeros((len(rows), channels, max(counts, default=0)), dtype)
    for target, row in zip(array, rows, strict=True):
        target[:, : row.shape[1]] = row
    return rows, array


def test_rows_come_back_as_they_were():
    rows, array = filled([3, 1, 4])
    ragged = Ragged.of(rows)
    assert (len(ragged), ragged.channels, ragged.dtype, ragged.nbytes) == (3, 2, np.float32, 4 * 16)
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(ragged.row(number), row)
    np.testing.assert_array_equal(ragged.padded(), array)
    assert ragged.padded(6).shape == (3, 2, 6)
    assert not ragged.padded(6)[:, :, 4:].any()
    assert np.shares_memory(ragged.row(1), ragged.values)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_any_index_is_that_of_an_array(counts, data):
    rows, array = filled(counts)
    ends = st.none() | st.integers(-8, 8)
    steps = st.sampled_from([None, 1, 2, -1])
    number = st.integers(-len(counts), len(counts) - 1)
    index = data.draw(
        st.builds(slice, ends, ends, steps)
        | st.lists(number, max_size=8).map(lambda numbers: np.array(numbers, np.int64))
        | st.lists(st.booleans(), min_size=len(counts), max_size=len(counts)).map(np.array)
    )
    picked = Ragged.of(rows)[index]
    assert len(picked) == len(array[index])
    np.testing.assert_array_equal(picked.padded(array.shape[2]), array[index])
    np.testing.assert_array_equal(picked.counts, np.array(counts)[index])


def test_a_slice_stays_where_it_lies():
    ragged = Ragged.of(filled([3, 1, 4])[0])
    assert np.shares_memory(ragged[1:].values, ragged.values)
    assert len(ragged[3:]) == len(ragged[2:1]) == 0


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=4))
def test_joined_parts_are_the_rows_in_order(parts):
    counts = [count for part in parts for count in part]
    rows, array = filled(counts)
    ends = np.cumsum([len(part) for part in parts])
    pieces = [Ragged.of(rows[end - len(part) : end]) for end, part in zip(ends, parts, strict=True)]
    np.testing.assert_array_equal(joined(pieces).padded(), array)
    empty = Ragged(np.empty(0, np.float32), np.empty(0, np.int64), 2)
    np.testing.assert_array_equal(joined([empty, *pieces, empty]).padded(), array)
    assert empty.padded().shape == (0, 2, 0)


def test_arrays_pass_as_they_are():
    array = np.ones((2, 3, 4), np.float32)
    assert padded(array) is array
    np.testing.assert_array_equal(joined([array, 2 * array]), np.concatenate([array, 2 * array]))
    np.testing.assert_array_equal(padded(Ragged.of(list(array))), array)


def test_a_row_that_does_not_fit_is_no_silent_loss():
    with pytest.raises(ValueError, match="broadcast"):
        Ragged.of(filled([3, 1])[0]).padded(2)
