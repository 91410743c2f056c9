"""YAML files that hold a mapping, and YAML's numbers as people mean them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from penstock.errors import PenstockError


# libyaml, where PyYAML was built with it, reads a run's configuration in 2 ms instead of 18.
class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML 1.2's floats: PyYAML alone reads 1e-8 as text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_mapping(path: Path, *, what: str, needs: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        path: the file.
        what: what the file should be, for messages.
        needs: what it should hold at least, for messages.

    Returns:
        Nested dictionaries, not validated.

    Raises:
        PenstockError: the file can't be read or holds no mapping.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise PenstockError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise PenstockError(f"{path} is a folder: give {what}") from None
    except UnicodeDecodeError:
        raise PenstockError(f"{path} is not text: give {what}") from None
    except OSError as error:
        raise PenstockError(f"{path}: {error.strerror}") from error
    try:
        values = yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        raise PenstockError(f"{where}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise PenstockError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if values is None:
        raise PenstockError(f"{path} is empty: it needs {needs}")
    if not isinstance(values, dict):
        raise PenstockError(
            f"{path}: {what} is `key: value` pairs, this is a {'list' if isinstance(values, list) else 'single value'}"
        )
    return values
