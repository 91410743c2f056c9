"""From a name in a configuration to a class and its options: problems, strategies and models alike."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.errors import PenstockError


def nearest(word: str, known) -> str:
    """' Did you mean ...?' for a misspelt word, else the list of what there is."""
    known = sorted(known)
    close = get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def load_class(name: str, registry: Mapping[str, Any], where: str, source: str | None = None) -> type:
    """The class called `name`: a key of `registry`, `package.module:Class` or `./file.py:Class`.

    where: the configuration's key, for messages. source: the text of the file, where the file itself is elsewhere.
    Raises PenstockError when there is none.
    """
    if name in registry:
        target = registry[name]
        return (
            _attribute(importlib.import_module(target.split(":")[0]), target, where) if type(target) is str else target
        )
    module_name, colon, _ = name.rpartition(":")
    if not colon:
        raise PenstockError(
            f"{where}: there is no {name!r}; {nearest(name, registry)} "
            "(your own: ./file.py:Class or package.module:Class)"
        )
    if module_name.endswith(".py"):
        return _attribute(
            _file_module(module_name, read_source(name, where) if source is None else source), name, where
        )
    try:
        return _attribute(importlib.import_module(module_name), name, where)
    except ImportError as error:
        raise PenstockError(f"{where}: {name!r} can't be imported: {error}") from error


def read_source(name: str, where: str) -> str | None:
    """The text of the file in `./file.py:Class`; None for a name of another form."""
    path, _, _ = name.rpartition(":")
    if not path.endswith(".py"):
        return None
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PenstockError(f"{where}: can't read {path}: {getattr(error, 'strerror', None) or error}") from error


def build(cls: type, options: Mapping[str, Any], where: str, *args: Any) -> Any:
    """cls(*args, **options), with options that the signature lacks, or a value it refuses, named to the user."""
    parameters = inspect.signature(cls).parameters.values()
    known = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    for key in options:
        if key not in known:
            raise PenstockError(f"{where}.{key}: unknown key; {nearest(key, known)}")
    try:
        return cls(*args, **options)
    except (ValueError, TypeError) as error:
        raise PenstockError(f"{where}: {error}") from error


def _file_module(path: str, source: str) -> ModuleType:
    module = ModuleType(f"penstock_user_{Path(path).stem}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses and pickles look their module up by name
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except Exception as error:
        line = getattr(error, "lineno", None) or _last_line_in(path, error)
        raise PenstockError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    return module


def _last_line_in(path: str, error: BaseException) -> int | None:
    traceback, line = error.__traceback__, None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _attribute(module: ModuleType, name: str, where: str) -> type:
    attribute = name.rpartition(":")[2]
    if not hasattr(module, attribute):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise PenstockError(f"{where}: {name!r}: there is no class {attribute!r}; {nearest(attribute, classes)}")
    return getattr(module, attribute)
