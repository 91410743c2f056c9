"""Writes docs/tree.md from the first lines of docstrings: `make docs`."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("penstock", "solvers", "learner", "orchestrator", "deploy", "benchmarks", "examples", "tests")


def tree() -> str:
    """The page: folders with what they are for, files with what they are."""
    lines = [
        "# The tree",
        "",
        "Written by `make docs` from the first line of every docstring, or of a kernel's first comment.",
    ]
    for part in PARTS:
        folders = sorted({path.parent for path in (ROOT / part).rglob("*.py")})
        for folder in folders:
            init = folder / "__init__.py"
            lines += ["", f"## {folder.relative_to(ROOT)}/", ""]
            if init.exists():
                lines += [_first_line(init), ""]
            files = sorted(path for path in folder.iterdir() if path.suffix in (".py", ".c", ".h") and path != init)
            lines += [f"- `{path.name}`: {_first_line(path)}" for path in files]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _first_line(path: Path) -> str:
    text = path.read_text()
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    comment = " ".join(text.partition("*/")[0].removeprefix("/*").replace("\n *", "").split())
    return f"{comment.partition('. ')[0].rstrip('.')}."


if __name__ == "__main__":
    (ROOT / "docs" / "tree.md").write_text(tree())
