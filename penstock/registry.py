"""Classes built from names and options in a configuration.

Problems, strategies, models and losses are all found and built here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, NoneType, SimpleNamespace, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from penstock.errors import PenstockError, describe, file_of, raised_by_signal, text_of

CHECKED: dict[type, tuple[tuple[type, ...], str]] = {
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
    str: ((str,), "text"),
    dict: ((dict,), "a mapping"),
    Mapping: ((Mapping,), "a mapping"),
    NoneType: ((NoneType,), "null"),
}
"""Annotations that `build` checks: the types it accepts and their names.

The names are those that a configuration's author knows.
"""

OPTION_KINDS = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
"""Parameters that a configuration can name."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word.

    Args:
        word: the misspelt word.
        known: the words that would be right.

    Returns:
        "did you mean ...?" with the closest word, or a list of all of them if none is close.
    """
    known = sorted(known)
    close = get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def load_class(
    name: str, registry: Mapping[str, Any], where: str, source: str | None = None, *, takes_files: bool = True
) -> type:
    """The class that a name in a configuration stands for.

    Args:
        name: a key of `registry`, `package.module:Class` or `./file.py:Class`.
        registry: the classes that penstock offers by name, each as a class or as "module:Class".
        where: the configuration's key, for messages.
        source: the text of the file, where the file itself is elsewhere.
        takes_files: whether `./file.py:Class` is allowed. A run keeps a copy of such a file; where no copy is kept, the
            class must come from an installed module.

    Returns:
        The class.

    Raises:
        PenstockError: there is no such class, or its file or module can't be read or imported.
    """
    if name in registry:
        target = registry[name]
        return (
            _attribute(importlib.import_module(target.split(":")[0]), target, where) if type(target) is str else target
        )
    if name.endswith((".yaml", ".yml")):
        raise PenstockError(f"{where}: {name!r} is a configuration: give a name, or your own as ./file.py:Class")
    if name.endswith(".py") and takes_files:
        found = _classes_in(name, where)
        such_as = f"{', '.join(f'{name}:{each}' for each in found)}" if found else f"{name}:Class; the file has none"
        raise PenstockError(f"{where}: {name!r} names no class: give {such_as}")
    module_name, colon, _ = name.rpartition(":")
    if not module_name or not colon or (module_name.endswith(".py") and not takes_files):
        own = "./file.py:Class or package.module:Class" if takes_files else "package.module:Class"
        raise PenstockError(f"{where}: there is no {name!r}; {nearest(name, registry)} (your own: {own})")
    if module_name.endswith(".py"):
        return _attribute(
            _file_module(module_name, read_source(name, where) if source is None else source), name, where
        )
    try:
        return _attribute(importlib.import_module(module_name), name, where)
    except ImportError as error:
        raise PenstockError(f"{where}: {name!r} can't be imported: {error}") from error


def read_source(name: str, where: str) -> str | None:
    """The text of the file in `./file.py:Class`.

    Args:
        name: the name of a class, as in `load_class`.
        where: the configuration's key, for messages.

    Returns:
        The text; None for a name of another form.

    Raises:
        PenstockError: the file can't be read.
    """
    path, _, _ = name.rpartition(":")
    if not path.endswith(".py"):
        return None
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PenstockError(f"{where}: can't read {path}: {getattr(error, 'strerror', None) or error}") from error


def build(cls: type, options: Mapping[str, Any], where: str, *args: Any) -> Any:
    """An object of the class, built from options in a configuration.

    Values are checked against annotations that are in `CHECKED`, alone or joined by |; other annotations are left to
    the class.

    Args:
        cls: the class.
        options: keyword arguments, as read from the configuration.
        where: the configuration's key of the options, for messages.
        *args: positional arguments that don't come from the configuration.

    Returns:
        cls(*args, **options), with lists turned into tuples where the default is a tuple.

    Raises:
        PenstockError: an option is unknown, missing or refused by the class; the message names it.
    """
    try:
        parameters = list(inspect.signature(cls).parameters.values())[len(args) :]
    except (TypeError, ValueError) as error:  # a class written in C may have no signature
        raise PenstockError(f"{where}: {cls!r} can't be built from options: {error}") from error
    known = {p.name: p for p in parameters if p.kind in OPTION_KINDS}
    for key, value in options.items():
        if key not in known:
            raise PenstockError(f"{where}.{key}: unknown key; {nearest(key, known)}")
        if _is_default(known[key], value):  # it was written down by `with_defaults`, and is not the user's to mend
            continue
        if refusal := _refusal(_hint(cls, known[key]), value):
            raise PenstockError(f"{where}.{key} = {value!r}: {refusal}")
    if missing := [
        key for key, parameter in known.items() if parameter.default is parameter.empty and key not in options
    ]:
        raise PenstockError(f"{where}.{missing[0]}: missing")
    options = {key: _as_default(known[key], value) for key, value in options.items()}
    try:
        return cls(*args, **options)
    except (ValueError, TypeError, PenstockError) as error:
        raise PenstockError(f"{where}: {text_of(error)}") from error
    except (RuntimeError, MemoryError) as error:  # sizes beyond the memory
        raise PenstockError(f"{where}: {type(error).__name__}: {text_of(error)}") from error
    except BaseException as error:
        if raised_by_signal(error):
            raise
        raise PenstockError(f"{where}: {describe(error, file_of(cls))}") from error


def summary_of(cls: type) -> str:
    """The docstring of a class without its sections, such as Args."""
    text = inspect.cleandoc(cls.__doc__ or cls.__name__)
    return re.split(r"^[A-Z][a-z]+:$", text, maxsplit=1, flags=re.M)[0].rstrip()


def needed(cls: type) -> list[str]:
    """The names of the options that a class can't be built without."""
    parameters = inspect.signature(cls).parameters.values()
    return [each.name for each in parameters if each.kind in OPTION_KINDS and each.default is each.empty]


def with_defaults(cls: type, options: Mapping[str, Any], *, given: int = 0) -> dict:
    """The options, followed by the default of every option that is absent.

    Defaults that YAML cannot hold are left out.

    Args:
        cls: the class that takes the options.
        options: the options given in the configuration.
        given: number of positional arguments that don't come from the configuration.

    Returns:
        The completed options, as YAML holds them.
    """
    try:
        parameters = list(inspect.signature(cls).parameters.values())[given:]
    except (TypeError, ValueError):
        return dict(options)
    defaults = {
        parameter.name: plain(parameter.default)
        for parameter in parameters
        if parameter.kind in OPTION_KINDS and is_plain(parameter.default)
    }
    return dict(options) | {name: value for name, value in defaults.items() if name not in options}


def is_plain(value: Any) -> bool:
    """Whether YAML can hold the value.

    It can hold null, true and false, numbers, text, and lists and mappings of those.
    """
    if type(value) in (list, tuple):
        return all(is_plain(item) for item in value)
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)


def plain(value: Any) -> Any:
    """The value with lists in place of tuples, which YAML does not distinguish."""
    if type(value) in (list, tuple):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if type(value) is dict else value


def _is_default(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether the value is the default as YAML holds it; 1 is neither 1.0 nor true."""
    return is_plain(parameter.default) and repr(plain(parameter.default)) == repr(plain(value))


def _as_default(parameter: inspect.Parameter, value: Any) -> Any:
    """The value, in the default's form.

    YAML's form of the default becomes the default itself, and any other list a tuple if the default is a tuple.
    """
    if _is_default(parameter, value):
        return parameter.default
    return tuple(value) if type(value) is list and type(parameter.default) is tuple else value


def _hint(cls: type, parameter: inspect.Parameter) -> Any:
    """The parameter's annotation, or Any.

    Any stands for a missing annotation, and for one that names what exists for type checkers alone.
    """
    constructor = inspect.unwrap(cls.__init__) if isinstance(cls, type) else cls
    annotated = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hint = get_type_hints(annotated, getattr(constructor, "__globals__", {}))[parameter.name]
    except Exception:  # evaluating a user's annotation may raise anything; then the class alone checks the value
        return Any
    return Any if hint is inspect.Parameter.empty else hint


def _refusal(hint: Any, value: Any) -> str | None:
    """What the value must be; None when it is that, or can't be checked."""
    alternatives = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [get_origin(alternative) or alternative for alternative in alternatives]
    checks = [CHECKED[kind] for kind in kinds if isinstance(kind, type) and kind in CHECKED]
    if len(checks) < len(kinds):
        return None
    # Python's bool is an int, which a configuration's author does not mean.
    if any(isinstance(value, types) and (bool in types or not isinstance(value, bool)) for types, _ in checks):
        return None
    return "must be " + " or ".join(word for _, word in checks)


def _file_module(path: str, source: str) -> ModuleType:
    module = ModuleType(f"penstock_user_{Path(path).stem}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses and pickles look their module up by name
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except BaseException as error:
        if raised_by_signal(error):
            raise
        line = getattr(error, "lineno", None) or _last_line_in(path, error)
        hint = _hint_at_neighbour(path, error)
        raise PenstockError(f"{path}, line {line}: {type(error).__name__}: {text_of(error)}{hint}") from error
    return module


def _hint_at_neighbour(path: str, error: BaseException) -> str:
    """Why a file beside it can't be imported, if that is the error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    neighbour = Path(path).parent / error.name.partition(".")[0]
    if not (neighbour.is_dir() or neighbour.with_suffix(".py").exists()):
        return ""
    return (
        "; files beside it can't be imported, because a run copies this one alone: put all into it, or into an "
        "installed package (package.module:Class)"
    )


def _classes_in(path: str, where: str) -> list[str]:
    """The names of a file's public classes that have a base.

    The file is not run; one that can't be parsed has none.
    """
    try:
        body = ast.parse(read_source(f"{path}:", where)).body
    except (SyntaxError, ValueError):
        return []
    return [each.name for each in body if isinstance(each, ast.ClassDef) and each.bases and each.name[0] != "_"]


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
