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
