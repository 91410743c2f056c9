"""What `penstock problems` and `penstock models` print."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console

from penstock.geometry import Geometry
from penstock.registry import load_class


def show_problems() -> None:
    """Print the problems, with the geometries that their fields sit on."""
    from penstock.solvers.problems import PROBLEMS

    _show(PROBLEMS, "problem", lambda cls: map(type, cls().layout.geometries))


def show_models() -> None:
    """Print the models, with the geometries that they take."""
    from penstock.learner.models import MODELS

    _show(MODELS, "model", lambda cls: cls.accepts)


def _show(registry: Mapping[str, Any], kind: str, geometries_of: Callable[[type], Iterable[type[Geometry]]]) -> None:
    """Print each class's name, options, geometries and docstring."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for name in registry:
        cls = load_class(name, registry, kind)
        options = [
            f"{p.name}={p.default}" for p in inspect.signature(cls).parameters.values() if p.default is not p.empty
        ]
        kinds = " or ".join(geometry.label for geometry in geometries_of(cls))
        console.print(f"{name}  ({', '.join(options)})  fields on {kinds}", style="bold")
        console.print(f"    {inspect.cleandoc(cls.__doc__)}\n".replace("\n", "\n    ").rstrip() + "\n")
    own = "./my_file.py:MyClass or my_package.module:MyClass"
    console.print(f"your own: `{kind}: {{name: {own}}}`; see docs/custom-problem.md")
