"""Writes docs/configuration.md from configuration.in.md: `make docs`.

A line `<!-- name argument -->` of the template becomes what the function of that name returns. The meaning of a key is
the text under it in orchestrator/config/config.py, that of an option its line in the Args of the class that takes it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from penstock.learner.buffers import UNITS
from penstock.learner.losses.losses import LOSSES
from penstock.learner.models import MODELS
from penstock.learner.optimizers import OPTIMIZERS
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.config.sections import AsksClock, Named, OnResume, marked
from penstock.registry import load_class
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.linear.preconditioners.by_name import PRECONDITIONERS
from penstock.solvers.problems import PROBLEMS

FOLDER = Path(__file__).parent
REGISTRIES: dict[str, Mapping[str, Any]] = {
    "problem": PROBLEMS,
    "strategy": STRATEGIES,
    "model": MODELS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "draw": UNITS,
}
KINDS = {int: "integer", float: "number", bool: "true or false", str: "text", NoneType: "`null`"}
CONSTANTS = {"None": "`null`", "True": "`true`", "False": "`false`"}


def page() -> str:
    """The template with its tables."""
    makers = {"keys": keys, "options": options, "marked": marked_keys, "clock": asks_clock, "names": names}
    lines = []
    for line in (FOLDER / "configuration.in.md").read_text().splitlines():
        command = re.fullmatch(r"<!-- (\w+)(?: (\w+))? -->", line)
        lines.append(line if command is None else makers[command[1]](*filter(None, [command[2]])))
    return "\n".join(lines) + "\n"


def keys(section: str | None = None) -> str:
    """The table of a section's keys, or of the keys outside of sections.

    Sections inside the section are included.
    """
    start = "" if section is None else f"{section}."
    rows = [row for row in _keys(Config) if (row[0].startswith(f"`{start}") if start else "." not in row[0])]
    return _table(("key", "type", "default", "meaning"), rows)


def options(registry: str) -> str:
    """The table of the options of a registry's classes."""
    rows = []
    for name in REGISTRIES[registry]:
        cls = load_class(name, REGISTRIES[registry], registry)
        of_cls = list(_options(cls))
        summary = _sentence(inspect.getdoc(cls).partition("\n")[0])
        rows += [(name, *option) for option in of_cls] or [(name, "none", "", "", summary)]
    return _table((registry, "option", "type", "default", "meaning"), rows)


def marked_keys(name: str) -> str:
    """The keys with a mark of `OnResume`, in a sentence's list."""
    found = [f"`{key}`" for key, _, mark in marked(_some_config(), OnResume) if mark.name.lower() == name]
    return f"{', '.join(found[:-1])} and {found[-1]}."


def asks_clock() -> str:
    """What a deterministic run refuses, with the reasons, as a list."""
    return "\n".join(f"- `{key}`{mark.why};" for key, _, mark in marked(_some_config(), AsksClock))


def names(kind: str) -> str:
    """The names of preconditioners."""
    *first, last = (f"`{name}`" for name in {"preconditioners": PRECONDITIONERS}[kind])
    return f"{', '.join(first)} and {last}."


def _some_config() -> Config:
    return Config(problem="darcy", training={"stop_after": {"steps": 1}})


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, ...]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if inspect.isclass(kind) and issubclass(kind, BaseModel) and kind is not Named:
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield _key(f"{prefix}{name}", field)


def _key(key: str, field: Any) -> tuple[str, ...]:
    if any(Named in (kind, *get_args(kind)) for kind in (field.annotation, *get_args(field.annotation))):
        default = "needed" if field.is_required() else f"`{field.default.name}`" if field.default else "`null`"
        return f"`{key}.name`", "text", default, _sentence(field.description)
    default = "needed" if field.is_required() else _yaml(field.default)
    return f"`{key}`", _kind(field.annotation, field.metadata), default, _sentence(field.description)


def _options(cls: type) -> Iterator[tuple[str, ...]]:
    """Name, type, default and meaning of what a configuration may give the class."""
    meanings = _args_of(cls)
    hints = get_type_hints(cls.__init__, vars(inspect.getmodule(cls)))
    for parameter in inspect.signature(cls).parameters.values():
        is_needed = parameter.default is parameter.empty
        if parameter.kind is not parameter.KEYWORD_ONLY and is_needed:
            continue  # it comes from the problem: a layout, a geometry, a number of steps
        if parameter.name not in meanings:
            raise ValueError(f"the docstring of {cls.__name__} has no line for {parameter.name!r} under Args")
        default = "needed" if is_needed else _yaml(parameter.default)
        yield f"`{parameter.name}`", _kind(hints[parameter.name]), default, _sentence(meanings[parameter.name])


def _args_of(cls: type) -> dict[str, str]:
    """The texts of the Args section of a class's docstring, by name."""
    _, _, after = inspect.getdoc(cls).partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", after)[0]
    return dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.M))


def _kind(kind: Any, metadata: list[Any] = []) -> str:  # noqa: B006  never changed
    """A type in a configuration author's words, with its bounds."""
    if get_origin(kind) is Annotated:
        kind, *metadata = get_args(kind)
        metadata = [bound for each in metadata for bound in getattr(each, "metadata", [each])]
    if get_origin(kind) is Literal:
        return _alternatives([_yaml(value) for value in get_args(kind)])
    if isinstance(kind, type) and get_origin(kind) is None:
        return KINDS.get(kind, "mapping") + _bounds(kind, metadata)
    if (name := getattr(get_origin(kind), "__name__", "")) in ("Sequence", "tuple", "list"):
        member = get_args(kind)[0]
        return f"list of {_kind(member)}{'s' if get_origin(member) is not Literal else ''}"
    if name in ("Mapping", "dict"):
        return "mapping"
    return _alternatives([_kind(member, metadata if member in (int, float) else []) for member in get_args(kind)])


def _alternatives(words: list[str]) -> str:
    """a, b or c; with a comma before the last one where one is several words."""
    *first, last = words
    comma = "," if any(" " in word for word in first) else ""
    return f"{', '.join(first)}{comma} or {last}" if first else last


def _bounds(kind: type, metadata: list[Any]) -> str:
    """Bounds as a reader would say them: > 0, from 1 to 100,000, in [0, 1]."""
    bounds = {
        name: getattr(each, name) for each in metadata for name in ("gt", "ge", "lt", "le") if hasattr(each, name)
    }
    if len(bounds) < 2:
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        return "".join(f" {signs[name]} {value}" for name, value in bounds.items())
    if kind is int:
        lowest, highest = bounds.get("ge", bounds.get("gt", 0) + 1), bounds.get("le", bounds.get("lt", 0) - 1)
        return f" from {lowest} to " + (f"{highest:,}" if highest < 2**32 else f"2^{highest.bit_length()} - 1")
    low = f"[{bounds['ge']}" if "ge" in bounds else f"({bounds['gt']}"
    return f" in {low}, " + (f"{bounds['le']}]" if "le" in bounds else f"{bounds['lt']})")


def _yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return CONSTANTS[str(value)]
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _sentence(text: str) -> str:
    """A text on one line, with YAML's words, a capital and a full stop."""
    text = re.sub(r'"(\w+)"', r"`\1`", " ".join(text.split()))
    text = text.replace("](../configuration.md#", "](#").replace("](../", "](")
    text = re.sub(rf"\b({'|'.join(CONSTANTS)})\b", lambda word: CONSTANTS[word[0]], text)
    if re.match(r"\w\w", text):  # a symbol stays as it is
        text = text[0].upper() + text[1:]
    return f"{text.rstrip('.')}."


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    rule = tuple("-" * (len(word) + 2) for word in head)
    return "\n".join([f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    (FOLDER / "configuration.md").write_text(page())
