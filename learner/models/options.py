"""Checks of the options that models have in common."""

from __future__ import annotations


def require_positive(model: str, **sizes: int) -> None:
    """Raise unless every size is at least 1.

    Args:
        model: name of the model, for messages.
        **sizes: sizes by the names of their options.

    Raises:
        ValueError: a size is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{model}: {name} must be at least 1, not {size}")


def require_one_of(model: str, option: str, value: str, known: tuple[str, ...]) -> None:
    """Raise unless an option has one of the known values.

    Args:
        model: name of the model, for messages.
        option: name of the option.
        value: its value.
        known: the values that there are.

    Raises:
        ValueError: it has another one.
    """
    if value not in known:
        raise ValueError(f"{model}: {option} must be {' or '.join(known)}, not {value!r}")
