"""Reading a configuration's YAML, with overrides from the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from penstock.errors import PenstockError


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
    values = _read(path)
    for override in overrides:
        lay_over(values, override)
    return values


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise PenstockError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise PenstockError(f"{path} is a folder: give the YAML file of a run") from None
    except UnicodeDecodeError:
        raise PenstockError(f"{path} is not text: give the YAML file of a run") from None
    except OSError as error:
        raise PenstockError(f"{path}: {error.strerror}") from error
    try:
        values = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        raise PenstockError(f"{where}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise PenstockError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if values is None:
        raise PenstockError(f"{path} is empty: it needs at least `problem` and `training.stop_after`")
    if not isinstance(values, dict):
        raise PenstockError(f"{path}: a configuration is `key: value` pairs, this is a {type(values).__name__}")
    return values


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: PyYAML alone reads 1e-8 as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


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
        values[last] = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise PenstockError(f"{override!r}: the value is not valid YAML") from None
