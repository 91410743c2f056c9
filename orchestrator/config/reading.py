"""Reading a configuration's YAML, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from penstock.errors import PenstockError
from penstock.files.yaml_file import Loader, read_mapping


def read_values(path: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a YAML file, with overrides laid over them.

    Args:
        path: the file.
        overrides: `key=value`, with full dotted keys and values in YAML.

    Returns:
        Nested dictionaries, not validated.

    Raises:
        PenstockError: the file can't be read or holds no mapping, or an override is malformed.
    """
    values = read_mapping(path, what="the YAML file of a run", needs="at least `problem` and `training.stop_after`")
    for override in overrides:
        lay_over(values, override)
    return values


def read_site(path: Path) -> dict[str, Any]:
    """The values of a site's YAML file, which has the section `launch` alone.

    Args:
        path: the file.

    Returns:
        Nested dictionaries, not validated.

    Raises:
        PenstockError: the file can't be read, or holds anything else.
    """
    values = read_mapping(path, what="the YAML file of a site", needs="the section `launch`")
    if others := sorted(values.keys() - {"launch"}):
        raise PenstockError(f"{path}: {others[0]}: a site's file has the section `launch` alone")
    return values


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested dictionaries as one, in which the values of the second hold."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = laid_over(merged[key], value) if both else value
    return merged


def lay_over(values: dict[str, Any], override: str) -> None:
    """Set one value among nested dictionaries.

    Args:
        values: the dictionaries, which are changed.
        override: `key=value`, with a dotted key and a value in YAML.

    Raises:
        PenstockError: it is malformed.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise PenstockError(f"{override!r}: an override reads key=value, for instance training.batch_size=32")
    *parents, last = key.split(".")
    for parent in parents:
        section = values.setdefault(parent, {})
        if isinstance(section, str):  # `strategy: krylov` with `strategy.pc=jacobi`
            section = values[parent] = {"name": section}
        if not isinstance(section, dict):
            raise PenstockError(f"{override!r}: {parent} is not a section")
        values = section
    try:
        values[last] = yaml.load(text, Loader)
    except yaml.YAMLError:
        raise PenstockError(f"{override!r}: the value is not valid YAML") from None
