"""What the sections of a configuration are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    """A section of a configuration.

    The text under a key is its meaning in docs/configuration.md, which `make docs` writes. Its links start from the
    folder of the reference.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


@dataclass(frozen=True)
class AsksClock:
    """A mark of a key: some of its values keep a run from repeating to the bit."""

    when: Callable[[Any], bool]
    why: str
    """Follows the key, and says what to give instead."""


class OnResume(Enum):
    """A mark of a key whose value can't change on resume."""

    FIXED = auto()
    """A checkpoint depends on it."""
    FIXED_IN_ORDER = auto()
    """In a run that must repeat, its blocks or their solutions depend on it."""


class Named(Section):
    """Something chosen by name, with its own options beside the name."""

    model_config = ConfigDict(extra="allow")

    name: str
    """A registered name, or a custom class as package.module:Class.

    A problem, strategy, policy or model also as ./file.py:Class.
    """

    @property
    def options(self) -> dict[str, Any]:
        """The options beside the name."""
        return dict(self.model_extra)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


ByName = BeforeValidator(_named)
"""A mark of a key that takes `direct` for `{name: direct}`."""

Choice = Annotated[Named, ByName]
"""What is chosen by name alone, or with options."""


def marked[Mark](section: Section, kind: type[Mark], prefix: str = "") -> Iterator[tuple[str, Any, Mark]]:
    """The keys that have a mark of a kind.

    Args:
        section: the section, sections inside it included.
        kind: class of the mark.
        prefix: dotted key of the section, with a dot at its end.

    Yields:
        Dotted key, value and mark.
    """
    for name, info in type(section).model_fields.items():
        key, value = f"{prefix}{name}", getattr(section, name)
        yield from ((key, value, mark) for mark in info.metadata if isinstance(mark, kind))
        if isinstance(value, Section):
            yield from marked(value, kind, f"{key}.")
