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
from penstock.orchestrator.views.pictures.samples import draw_samples
from penstock.registry import load_class
from penstock.solvers.measurement import measure
from penstock.solvers.problems import PROBLEMS

FOLDER = Path(__file__).parent
PICTURES = FOLDER / "problems"
FIGURES = FOLDER.parent / "benchmarks" / "tables" / "problems.md"
COLOURS = 96
WITHOUT = ("store", "external")  # what they show is the user's
HEAD = """# Gallery

The problems that come with penstock: what each is, and the last samples of two draws, a row each; of numbers alone the
whole trajectories. `penstock problems show NAME` draws others and says what a sample costs. Options are in
[the configuration](configuration.md#problem).

The line in italics has the unknowns of the largest linear system, the systems per sample, the seconds per sample on one
core, and what solved the systems with `strategy: auto`; all with default options. They are from
[benchmarks/tables/problems.md](../benchmarks/tables/problems.md), which names the machine and says who takes the time.
"""


def page() -> str:
    """The gallery, by folder."""
    parts, figures = [HEAD], _figures()
    for package, names in groupby(sorted(PROBLEMS, key=_package), _package):
        title, _, about = inspect.getdoc(importlib.import_module(package)).partition("\n")
        parts.append(f"## {title.rstrip('.')}\n{about}")
        parts += [_entry(name, figures.get(name)) for name in names]
    return "\n".join(parts).rstrip() + "\n"


def _package(name: str) -> str:
    module = PROBLEMS[name].partition(":")[0]
    return module.rpartition(".")[0]


def _figures() -> dict[str, dict[str, str]]:
    """The rows of the table of costs, by problem and by column."""
    lines = [line for line in FIGURES.read_text().splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def _cost(figures: dict[str, str]) -> str:
    seconds = f"{1 / float(figures['samples/s']):.2g} s per sample"
    if figures["unknowns"] == "-":
        return f"*No linear systems, {seconds}.*"
    number = figures["systems per sample"]
    systems = f"{number} {'system' if number == '1' else 'systems'} per sample"
    return f"*{figures['unknowns']} unknowns, {systems}, {seconds}, solved by: {figures['solved by']}.*"


def _entry(name: str, figures: dict[str, str] | None) -> str:
    text = inspect.getdoc(load_class(name, PROBLEMS, "problem")).partition("\nArgs:")[0].strip()
    first, _, rest = text.partition("\n")
    picture = f"![{name}](problems/{name}.png)\n\n" if (PICTURES / f"{name}.png").exists() else ""
    cost = f"{_cost(figures)}\n\n" if figures else ""
    return f"### {name}\n\n**{first}**\n\n{picture}{cost}{rest.strip()}\n"


def draw(names: list[str]) -> None:
    """Draw the pictures of problems; of all where there are no names."""
    start_petsc()
    PICTURES.mkdir(exist_ok=True)
    for name in names or [name for name in PROBLEMS if name not in WITHOUT]:
        problem = load_class(name, PROBLEMS, "problem")()
        rows, simulations, _ = whole_simulations(measure(problem, 2).chunks)
        named = by_name({block: padded(values) for block, values in rows.items()}, problem.layout)
        path = PICTURES / f"{name}.png"
        draws = [np.flatnonzero(simulations == i) for i in (0, 1)]
        if problem.layout.geometries:
            draw_samples(path, named, [samples[-1] for samples in draws], problem.layout)
        else:
            outputs = [output.name for output in problem.outputs]
            _draw_numbers(path, [{name: named[name][samples] for name in outputs} for samples in draws])
        with Image.open(path) as picture:  # a third of the bytes
            picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def _draw_numbers(path: Path, draws: list[dict[str, np.ndarray]]) -> None:
    """Draw outputs that are numbers by their step, a row per draw and a line per component.

    Args:
        path: the file.
        draws: of each draw its outputs by name, [steps] or [steps, components].
    """
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(draws), len(draws[0]), figsize=(6.4, 4.8), squeeze=False, layout="constrained")
    for of_row, outputs in zip(axes, draws, strict=True):
        for axis, (name, values) in zip(of_row, outputs.items(), strict=True):
            axis.plot(values)
            axis.set_title(name, fontsize=9)
            axis.set_xlabel("step", fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pictures"]:
        draw(sys.argv[2:])
    (FOLDER / "gallery.md").write_text(page())
