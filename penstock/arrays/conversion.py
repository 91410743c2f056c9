"""Values of a user's code as float32, without loss, or refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.errors import Refused

DTYPE = np.dtype(np.float32)  # what the learner sees; solvers compute in float64
LEAST, MOST = float(np.finfo(DTYPE).tiny), float(np.finfo(DTYPE).max)
# A field that spans more than this fraction of its largest value keeps at least 3 digits of its variation in float32.
PLAIN_RANGE = 1e-4
# A float64 field that varies by less than this fraction of its largest value varies by a direct solve's rounding alone.
ROUNDING = 1e-10
# NumPy's letters for arrays that hold no real numbers.
OTHER_KINDS = {
    "c": "is complex: give its real and its imaginary part as two quantities",
    "M": "holds dates: give a number, such as seconds",
    "m": "holds durations: give a number, such as seconds",
    "U": "is text: give numbers",
    "S": "is text: give numbers",
    "T": "is text: give numbers",
}


def as_numbers(name: str, value: Any) -> np.ndarray:
    """The value as an array of real numbers, in its present dtype.

    Args:
        name: name of the value, for messages.
        value: an array, a number, or a list of numbers.

    Returns:
        The array.

    Raises:
        Refused: the value is anything else, such as complex, masked or text; the message says what to give instead.
    """
    try:
        array = np.ma.asarray(value) if isinstance(value, list | tuple) else np.asanyarray(value)
    except Exception as error:  # a ragged list, or another library's tensor on a GPU
        raise Refused(f"{name!r} can't be read as an array: {str(error).partition('\n')[0]}") from error
    if num_masked := np.ma.count_masked(array) if isinstance(array, np.ma.MaskedArray) else 0:
        raise Refused(
            f"{name!r} is masked at {num_masked} of {array.size} points: fill them, for instance with 0, and give the "
            "mask as a separate field if it differs between samples"
        )
    if array.dtype.kind in "fiub":
        return np.asarray(array)
    what = OTHER_KINDS.get(array.dtype.kind)
    if what is None and array.dtype.kind == "O" and not array.shape:
        what = f"is {'None' if value is None else f'a {type(value).__name__}'}: give an array of numbers"
    raise Refused(f"{name!r} {what or f'has dtype {array.dtype}: give an array of numbers'}")


def require_kept(name: str, values: np.ndarray, packed: np.ndarray) -> None:
    """Check that float32 has kept what values hold.

    Args:
        name: name of the quantity, for messages.
        values: the values, as the problem gave them.
        packed: the same in float32.

    Raises:
        Refused: their range, their integers or their variation is lost.
    """
    lowest, highest = (float(packed.min()), float(packed.max())) if values.ndim else (float(packed),) * 2
    largest = max(-lowest, highest)
    if highest - lowest > max(PLAIN_RANGE * largest, LEAST) and values.dtype.kind == "f":  # False for NaN and infinity
        return
    if not LEAST <= largest <= MOST:
        _require_range(name, values)
    if values.dtype.kind in "iu":
        with np.errstate(invalid="ignore"):
            wrong = packed.astype(values.dtype) != values
        if wrong.any():
            raise Refused(
                f"{name!r} holds the integer {np.extract(wrong, values)[0]}, which float32 rounds: give it as float64 "
                "if that will do"
            )
    if values.ndim and values.dtype.itemsize > DTYPE.itemsize:
        _require_variation(name, values.astype(np.float64), largest)


def _require_range(name: str, values: np.ndarray) -> None:
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        where = f": {len(wrong)} of {values.size}, first at {wrong[0].tolist()}" if values.ndim else ""
        raise Refused(f"{name!r} holds values that are not finite{where}")
    largest = np.abs(values).max()
    if largest > MOST:
        raise Refused(
            f"{name!r} reaches {largest:.3g}, beyond float32's {MOST:.2g}: give it in another unit or, if it grew from "
            "step to step, take smaller steps in time"
        )
    if largest:
        raise Refused(f"{name!r} is {largest:.3g} at most, below float32's {LEAST:.2g}: give it in another unit")


def _require_variation(name: str, values: np.ndarray, largest: float) -> None:
    """Raise Refused where float32 loses half of a field's variation.

    A variation no larger than the field's rounding does not count.
    """
    mean = values.mean()
    deviation = values.std()
    lost = np.sqrt(np.mean((values.astype(DTYPE) - values) ** 2))
    if deviation > ROUNDING * largest and lost > deviation / 2:
        raise Refused(
            f"{name!r} varies by {deviation:.2g} about {mean:.7g}, where float32 has steps of "
            f"{np.spacing(DTYPE.type(largest)):.2g}: give it less its offset, or as float32 if that variation is noise"
        )
