"""What `penstock problems` and `penstock models` print."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from penstock.registry import load_class


def show(registry: Mapping[str, Any], kind: str) -> None:
    """Print each class's name, its options with their defaults, and its docstring.

    Args:
        registry: the classes by name, as in `load_class`.
        kind: section of the configuration that names one of them.
    """
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for name in registry:
        cls = load_class(name, registry, kind)
        options = [
            f"{p.name}={p.default}" for p in inspect.signature(cls).parameters.values() if p.default is not p.empty
        ]
        console.print(f"{name}  ({', '.join(options)})", style="bold")
        console.print(f"    {inspect.cleandoc(cls.__doc__)}\n".replace("\n", "\n    ").rstrip() + "\n")
    own = "./my_file.py:MyClass or my_package.module:MyClass"
    console.print(f"your own: `{kind}: {{name: {own}}}`; see docs/custom-problem.md")
