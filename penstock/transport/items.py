"""Items of the stream as bytes: a header, and arrays that are not copied."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

LARGE = 4096  # arrays below this travel in the header


def packed(item: Any) -> tuple[bytes, list[memoryview]]:
    """An item as a header and the bytes of its large arrays.

    By pickle's protocol 5 (PEP 574), which copies no array.

    Args:
        item: a chunk, a lease, or the end of one.

    Returns:
        The header, and flat views of the arrays.
    """
    arrays: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < LARGE:
            return True
        arrays.append(view)
        return False

    return pickle.dumps(item, protocol=5, buffer_callback=keep), arrays


def unpacked(header: bytes | memoryview, arrays: Sequence[memoryview] = ()) -> Any:
    """The item of a header and of the bytes of its arrays, on which its arrays lie."""
    return pickle.loads(header, buffers=arrays)
