"""Reading a configuration's YAML, with overrides from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from penstock.errors import PenstockError
from penstock.yaml_file import Loader, read_mapping


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
