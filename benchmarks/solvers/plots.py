"""Time against unknowns: a picture for each letter of the cases and each goal."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito's colours, which are distinct with every kind of colour vision, and one marker each. All other arms are
# in the tables alone: twenty lines can't be read.
STYLES = (
    (r"GMRES\(40\).*", "GMRES(40) + ICC or ILU", "#999999", "v"),
    (r"GCRO-DR\(40, 20\).*, (sorted|in order)", "SKR: GCRO-DR(40, 20) + ICC or ILU", "#D55E00", "s"),
    (r"CG \+ ICC", "CG + ICC", "#E69F00", "^"),
    (r"user: .* \+ GAMG", "user: CG or GMRES + GAMG", "#56B4E9", "D"),
    (r"user: PETSc \w+", "user: PETSc Cholesky or LU", "#009E73", "<"),
    (r"user: MUMPS \w+", "user: MUMPS Cholesky or LU", "#0072B2", ">"),
    (r"user: PETSc .*, factor kept", "user: PETSc, factor kept", "#CC79A7", "P"),
    (r"auto", "penstock: auto", "#000000", "o"),
)
NUM_COLUMNS = 3


def draw_plots(sections: Iterable[dict[str, Any]], folder: Path) -> list[tuple[str, str]]:
    """Write the pictures, and return their files and captions."""
    pictures: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for section in sections:
        pictures[section["case"][0], section["measure"]].append(section)
    return [_draw(letter, measure, group, folder) for (letter, measure), group in pictures.items()]


def _draw(letter: str, measure: str, sections: list[dict[str, Any]], folder: Path) -> tuple[str, str]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    series: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for section in sorted(sections, key=lambda section: section["num_unknowns"]):
        series[section["case"].removesuffix(f" {section['num_unknowns']}")].append(section)
    series = dict(sorted(series.items()))
    panels = {name: sizes for name, sizes in series.items() if len(sizes) > 1}
    single = {name: sizes[0] for name, sizes in series.items() if len(sizes) == 1}
    single_columns = -(-len(single) // NUM_COLUMNS)
    num_columns = min(NUM_COLUMNS, max(len(panels), single_columns, 2))  # the legend needs two
    num_rows = -(-len(panels) // num_columns) + bool(single)
    figure = plt.figure(figsize=(3.7 * num_columns, 1.4 + 3.2 * num_rows), layout="constrained")
    figure.suptitle(f"Case {letter}: median time of a solve, {sections[0]['goal']}")
    grid = figure.add_gridspec(num_rows, num_columns)
    lines: dict[str, Any] = {}
    for place, (name, sizes) in enumerate(panels.items()):
        ax = figure.add_subplot(grid[divmod(place, num_columns)])
        numbers = [section["num_unknowns"] for section in sizes]
        _draw_arms(ax, numbers, sizes, lines, linestyle="-")
        ax.set(title=name, xlabel="unknowns n", xscale="log", xlim=(numbers[0] / 1.5, numbers[-1] * 1.5))
        ax.set_xticks(numbers, [f"{number:,}" for number in numbers])
        ax.minorticks_off()
    if single:
        ax = figure.add_subplot(grid[-1, : min(single_columns, num_columns)])
        _draw_arms(ax, range(len(single)), list(single.values()), lines, linestyle="none")
        ax.set(title="cases of one size, and its n", xlim=(-0.5, len(single) - 0.5))
        labels = [f"{name[2:]}\n{section['num_unknowns']:,}" for name, section in single.items()]
        ax.set_xticks(range(len(single)), labels, fontsize="small")
    figure.legend(
        handles=list(lines.values()), loc="outside lower center", ncols=num_columns, fontsize="small", frameon=False
    )
    file = f"solvers-{letter}-{measure}.png"
    figure.savefig(folder / file, dpi=120)
    plt.close(figure)
    return file, f"case {letter}: time against unknowns, {sections[0]['goal']}"


def _draw_arms(ax, places: Sequence[int], sections: list[dict[str, Any]], lines: dict[str, Any], linestyle: str):
    """Draw one line per arm; `lines` gathers one of each for the legend."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for pattern, label, colour, marker in STYLES:
        points = [
            (place, arm["median_ms"])
            for place, section in zip(places, sections, strict=True)
            for arm in section["arms"]
            if re.fullmatch(pattern, arm["title"]) and "median_ms" in arm
        ]
        if points:
            style = {"color": colour, "marker": marker, "markersize": 6, "alpha": 0.9, "linestyle": linestyle}
            (lines[label],) = ax.plot(*zip(*points, strict=True), label=label, **style)
    ax.set(yscale="log", ylabel="time per system [ms]")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(True, axis="y", alpha=0.3)
