"""Writes docs/gallery.md, all problems with their pictures: `make docs`.

`.venv/bin/python docs/gallery.py --pictures [NAME ...]` draws the pictures again, which takes minutes.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from penstock.arrays.ragged import padded
from penstock.arrays.zarr_store import by_name
from penstock.messages import whole_simulations
from penstock.orchestrator.actors.local_worker import start_petsc
from penstock.orchestrator.views.pictures import draw_samples
from penstock.registry import load_class
from penstock.solvers.measurement import measure
from penstock.solvers.problems import PROBLEMS

FOLDER = Path(__file__).parent
PICTURES = FOLDER / "problems"
COLOURS = 96
WITHOUT = ("store", "external")  # what they show is the user's
HEAD = """# Gallery

The problems that come with penstock: what each is, and the last samples of two draws, a row each.
`penstock problems show NAME` draws others and says what a sample costs;
[benchmarks/tables/problems.md](../benchmarks/tables/problems.md) has the rates of all. Options are in
[the configuration](configuration.md#problem).
"""


def page() -> str:
    """The gallery, by folder."""
    parts = [HEAD]
    for package, names in groupby(sorted(PROBLEMS, key=_package), _package):
        title, _, about = inspect.getdoc(importlib.import_module(package)).partition("\n")
        parts.append(f"## {title.rstrip('.')}\n{about}")
        parts += map(_entry, names)
    return "\n".join(parts).rstrip() + "\n"


def _package(name: str) -> str:
    module = PROBLEMS[name].partition(":")[0]
    return module.rpartition(".")[0]


def _entry(name: str) -> str:
    text = inspect.getdoc(load_class(name, PROBLEMS, "problem")).partition("\nArgs:")[0].strip()
    first, _, rest = text.partition("\n")
    picture = f"![{name}](problems/{name}.png)\n\n" if (PICTURES / f"{name}.png").exists() else ""
    return f"### {name}\n\n**{first}**\n\n{picture}{rest.strip()}\n"


def draw(names: list[str]) -> None:
    """Draw the pictures of problems; of all where there are no names."""
    start_petsc()
    PICTURES.mkdir(exist_ok=True)
    for name in names or [name for name in PROBLEMS if name not in WITHOUT]:
        problem = load_class(name, PROBLEMS, "problem")()
        if not problem.layout.geometries:
            continue
        rows, simulations, _ = whole_simulations(measure(problem, 2).chunks)
        named = by_name({block: padded(values) for block, values in rows.items()}, problem.layout)
        path = PICTURES / f"{name}.png"
        draw_samples(path, named, [np.flatnonzero(simulations == i)[-1] for i in (0, 1)], problem.layout)
        with Image.open(path) as picture:  # a third of the bytes
            picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pictures"]:
        draw(sys.argv[2:])
    (FOLDER / "gallery.md").write_text(page())
