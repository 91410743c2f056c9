"""Draws the pictures of docs/models, one for each family of models: `make docs`.

What can be computed by the modules themselves is: kept modes, weights of attention after a short training, principal
components, edges, and what is near a cell.

`.venv/bin/python docs/models.py [NAME ...]` draws some of them, or all, which takes a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from card import ACROSS_THEN_UP, COOL, DOWN_THEN_ACROSS, FAINT, GAP, INK, SMALL, WARM, Card, Mesh2, Place, row
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor, nn

from penstock.arrays.ragged import padded
from penstock.geometry import Mesh
from penstock.layout import FieldSpec, Layout
from penstock.learner.models import MODELS
from penstock.learner.models.grids.fourier.spectral import fourier_bases
from penstock.messages import whole_simulations
from penstock.orchestrator.actors.local_worker import start_petsc
from penstock.registry import load_class
from penstock.solvers.measurement import measure
from penstock.solvers.problem import Problem
from penstock.solvers.problems import PROBLEMS

FOLDER = Path(__file__).parent / "models"
KEPT = 12  # modes of a Fourier layer
HOLE = np.array([0.45, 0.55]), 0.2  # centre and radius


@cache
def samples(name: str, resolution: int) -> tuple[Problem, dict[str, np.ndarray]]:
    """A problem that comes with penstock, and the arrays of 64 of its samples, [N, C, *], by block."""
    start_petsc()
    problem = load_class(name, PROBLEMS, "problem")(resolution=resolution)
    rows, _, _ = whole_simulations(measure(problem, 64).chunks)
    return problem, {block: padded(values) for block, values in rows.items()}


def trained(model: nn.Module, arrays: dict[str, Tensor], targets: Tensor, steps: int) -> nn.Module:
    """Train a model on samples, with batches of 8; its first error is printed, and its last."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    errors = []
    for _ in range(steps):
        chosen = torch.randint(len(targets), (8,))
        predicted = model(**{name: values[chosen] for name, values in arrays.items()})
        loss = (predicted - targets[chosen]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    print(f"{type(model).__name__}: loss {errors[0]:.3f} to {np.mean(errors[-20:]):.3f}")
    return model.eval()


def unit(values: Tensor) -> Tensor:
    """Values with mean 0 and variance 1."""
    return (values - values.mean()) / values.std()


@contextmanager
def weights_of_attention() -> Iterator[list[Tensor]]:
    """A list to which each softmax attention in the context adds its weights, [B, H, Q, K]."""
    found, attend = [], F.scaled_dot_product_attention

    def noted(queries: Tensor, keys: Tensor, values: Tensor, **options) -> Tensor:
        found.append(torch.softmax(queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5, dim=-1))
        return attend(queries, keys, values, **options)

    with mock.patch.object(F, "scaled_dot_product_attention", noted):
        yield found


def fourier() -> Card:
    """A Fourier layer: what it keeps of a field with jumps."""
    _, arrays = samples("darcy", 64)
    v = arrays["fields"][1, 0]
    analysis, synthesis = fourier_bases(len(v), KEPT, torch.zeros(()))
    keep = (synthesis @ analysis).numpy()
    spectrum = np.fft.fftshift(np.log10(np.abs(np.fft.fft2(v)) / v.size + 1e-4))
    limits = {"vmin": v.min(), "vmax": v.max()}

    card = Card(8.6, 2.75)
    begin, waves, low, add, end = row(1.65, [(1.5, 1.5)] * 3 + [(0.36, 0.36)] * 2, 0.12, 0.75)
    card.field(begin, v, "v, one channel", **limits)
    axes = card.field(waves, spectrum, "|v̂(k)|", cmap="magma")
    outline(axes, np.array([0.5, 0.5]), 2 * KEPT / len(v), "white")
    card.field(low, keep @ v @ keep.T, f"its modes |k| < {KEPT}", **limits)
    card.box(add, "+", "fixed")
    card.box(end, "σ", "fixed")
    card.arrow(begin, waves, "F")
    card.arrow(waves, low, "R(k) F⁻¹")
    card.arrow(low, add, "K v")
    card.arrow(add, end)
    pointwise = card.box(Place(3.15, 0.12, 2.0, 0.4), "W, at each point")
    card.line((begin.centre[0], begin.y - GAP), (pointwise.x - GAP, pointwise.centre[1]), **DOWN_THEN_ACROSS)
    card.line(
        (pointwise.x + pointwise.width + GAP, pointwise.centre[1]), (add.centre[0], add.y - GAP), **ACROSS_THEN_UP
    )
    return card


def convolutional() -> Card:
    """A U: the input on coarser and coarser grids, the output on finer and finer ones."""
    _, arrays = samples("darcy", 64)
    given, wanted = (arrays[block][1, 0] for block in ("fields", "targets"))
    card = Card(7.4, 4.45)
    levels, top = [], 4.15
    for number, size in enumerate((1.2, 0.85, 0.6, 0.42)):
        x, top = 1.75 + 0.28 * number, top - size
        down, up = (Place(middle - size / 2, top, size, size) for middle in (x, card.width - x))
        for place, values, title in ((down, given, "input"), (up, wanted, "output")):
            card.field(place, coarsened(values, 2**number), "" if number else title)
        resolution = len(given) // 2**number
        card.text(down.x - 0.1, down.centre[1], f"{resolution} x {resolution}", ha="right", va="center", size=SMALL)
        if size > 0.5:
            card.arrow(down, up, "" if number else "beside what comes from below", color=COOL, linestyle="--")
        else:
            card.arrow(down, up)
        levels.append((down, up))
        top -= 0.34
    for (down, up), (lower, upper) in pairwise(levels):
        for x, ends in (
            (lower.centre[0], (down.y, lower.y + lower.height)),
            (upper.centre[0], (upper.y + upper.height, up.y)),
        ):
            start, end = ends
            away = GAP * np.sign(end - start)
            card.line((x, start + away), (x, end - away))
    card.text(1.15, 1.75, "R: coarser,\nmore channels", ha="right", va="center")
    card.text(card.width - 1.15, 1.75, "P: finer,\nfewer channels", ha="left", va="center")
    card.text(card.width / 2, 2.95, "at each place a block B\nof convolutions by 3 cells", va="center")
    return card


def coarsened(values: np.ndarray, num_cells: int) -> np.ndarray:
    """Means over squares of cells."""
    n = len(values) // num_cells
    return values.reshape(n, num_cells, n, num_cells).mean(axis=(1, 3))


def attention() -> Card:
    """Patches, and the weights by which two points ask them, of a trained `cvit`."""
    problem, arrays = samples("darcy", 32)
    fields, targets = (unit(torch.tensor(arrays[block])) for block in ("fields", "targets"))
    model = MODELS["cvit"](problem.layout, width=32, layers=2, patch=4)
    trained(model, {"fields": fields}, targets, 150)
    with torch.no_grad(), weights_of_attention() as found:
        predicted = model(fields=fields[1:2])[0, 0]
    asked = found[-1][0].mean(dim=0).unflatten(0, predicted.shape).unflatten(2, model.patches)  # [32, 32, 8, 8]

    card = Card(8.6, 3.1)
    given, tokens = row(1.5, [(1.5, 1.5), (1.25, 1.1)], 0.12, 0.4)
    axes = card.field(given, fields[1, 0].numpy(), "input in patches")
    for number in range(1, len(asked[0, 0])):
        for line in (axes.axvline, axes.axhline):
            line(number / len(asked[0, 0]), color="white", linewidth=0.7)
    card.box(tokens, "64 tokens\nattend to\neach other")
    output = Place(6.95, 0.75, 1.5, 1.5)
    axes = card.field(output, predicted.numpy(), "output")
    for spot, y in (((10, 21), 2.2), ((22, 9), 0.7)):
        (weights,) = row(y, [(1.15, 1.15)], 4.05, 0)
        marks = {"marker": "+", "markersize": 10, "markeredgewidth": 2, "color": WARM}
        places = [(place + 0.5) / 32 for place in spot]
        card.field(
            weights, asked[spot].numpy(), "weights for x = +" if y > 2 else "and for another", cmap="Greys"
        ).plot(*places, **marks)
        axes.plot(*places, **marks)
        card.arrow(tokens, weights)
        card.arrow(weights, output)
    card.arrow(given, tokens)
    card.text(6.08, 1.5, "Σ weights · v,\nthen a net", va="center", size=SMALL)
    return card


def wrappers() -> Card:
    """The windows of `mg_tfno` around one patch."""
    problem, arrays = samples("darcy", 64)
    model = MODELS["mg_tfno"](problem.layout, levels=2)
    given, wanted = (torch.tensor(arrays[block][1:2]) for block in ("fields", "targets"))
    patch, num_patches = (1, 2), 2**model.levels

    card = Card(8.6, 3.4)
    grid, inside, output = Place(0.12, 0.72, 1.75, 1.75), Place(4.75, 1.25, 1.2, 0.7), Place(6.73, 0.72, 1.75, 1.75)
    axes = card.field(grid, given[0, 0].numpy(), "input")
    answer = card.field(output, wanted[0, 0].numpy(), "output")
    for number in range(1, num_patches):
        for line in (axes.axvline, axes.axhline, answer.axvline, answer.axhline):
            line(number / num_patches, color="white", linewidth=0.7)
    middle = (np.array(patch) + 0.5) / num_patches
    for each in (axes, answer):
        outline(each, middle, 1 / num_patches, WARM)
    card.box(inside, "any model\non grids")
    texts = "the patch\nand a margin", "twice as far,\ncoarser", "the whole,\ncoarser still"
    for level, (y, text, colour) in enumerate(zip((2.3, 1.2, 0.1), texts, ("#e0218a", "#0891b2", INK), strict=True)):
        values = model.windows(given, level)[num_patches * patch[0] + patch[1], 0]
        window = Place(3.2, y, 0.9, 0.9)
        small = card.field(window, values.numpy(), vmin=given.min(), vmax=given.max())
        small.spines[:].set(color=colour, linewidth=2.5)
        if level < model.levels:
            outline(axes, middle, len(values) * 2**level / given.shape[-1], colour)
        card.text(window.x - 0.1, window.centre[1], text, ha="right", va="center", size=SMALL)
        card.line(
            (window.x + window.width + GAP, window.centre[1]), (inside.x - GAP, inside.centre[1] + 0.2 * (1 - level))
        )
    card.arrow(inside, output, "one patch")
    return card


def outline(axes: Axes, middle: np.ndarray, size: float, colour: str) -> None:
    """Draw the outline of a square in a panel."""
    axes.add_patch(Rectangle(middle - size / 2, size, size, edgecolor=colour, fill=False, linewidth=2, zorder=3))


def deeponets() -> Card:
    """The principal components of `pod_deeponet`, and a solution in them."""
    problem, arrays = samples("darcy", 64)
    model = MODELS["pod_deeponet"](problem.layout, latent=16)
    targets = unit(torch.tensor(arrays["targets"]))
    model.fit({"targets": targets})
    functions, rest = model.functions, targets[1].flatten() - model.mean
    coefficients = functions @ rest / functions.square().sum(dim=1)
    total = model.mean + coefficients @ functions

    card = Card(8.6, 3.55)
    given, branch, bars = row(2.45, [(1.3, 1.3), (0.95, 0.5), (2.9, 1.0)], 0.12, 0.45)
    card.field(given, arrays["fields"][1, 0], "a, at all points")
    card.box(branch, "branch")
    axes = card.panel(bars, "b: 16 numbers of this input", frame=False)
    axes.bar(range(16), coefficients / coefficients.abs().max(), color=[COOL] * 3 + [FAINT] * 13)
    axes.axhline(0, color=INK, linewidth=0.8)
    place, trunk, *shown = row(0.65, [(0.45, 0.45), (0.95, 0.5)] + [(0.85, 0.85)] * 3, 0.55, 0.32)
    card.box(place, "x", "fixed")
    card.box(trunk, "trunk")
    for number, where in enumerate(shown):
        card.field(where, functions[number].reshape(64, 64).numpy(), f"t{'₁₂₃'[number]}(x)", cmap="RdBu_r")
    card.text(shown[-1].x + 0.95, 0.65, "... t₁₆(x)", ha="left", va="center")
    output = Place(6.95, 1.3, 1.5, 1.5)
    card.field(output, total.reshape(64, 64).numpy(), "u(x) = Σ bₖ tₖ(x)")
    card.arrow(given, branch)
    card.arrow(branch, bars)
    card.arrow(place, trunk)
    card.arrow(trunk, shown[0])
    card.line((bars.x + bars.width + GAP, bars.centre[1]), (output.x - GAP, bars.centre[1]))
    card.line((shown[-1].x + 1.65, place.centre[1]), (output.centre[0], output.y - GAP), **ACROSS_THEN_UP)
    return card


def attention_at_points() -> Card:
    """The slices of a trained `transolver`."""
    problem, arrays = samples("poisson_with_hole", 20)
    given = {"fields": arrays["fields"], "weights": arrays["weights"][:, 0], "points": arrays["points"].swapaxes(1, 2)}
    given = {name: torch.tensor(values, dtype=torch.float32) for name, values in given.items()}
    given["fields"] = given["fields"] / given["fields"].std(dim=(0, 2), keepdim=True)
    targets = unit(torch.tensor(arrays["targets"], dtype=torch.float32))
    model = MODELS["transolver"](problem.layout, width=32, layers=2, slices=8)
    trained(model, given, targets, 300)
    rim = arrays["fields"][1, 1] != 0
    centre = arrays["points"][1][:, rim].mean(axis=1)
    radius = np.hypot(*(arrays["points"][1][:, rim].T - centre).T).mean()
    points, cells, _ = problem.mesh(centre, radius)
    mesh, number = Mesh2(points, cells), len(points)
    attends, found = model.blocks[0].attention, []
    attends.places.register_forward_hook(lambda _module, _given, z: found.append(z.unflatten(2, (attends.heads, -1))))
    with torch.no_grad():
        predicted = model(**{name: values[1:2] for name, values in given.items()})[0, 0, :number]
        shares = attends.slices_at(found[0], torch.float32)[0, 0, :number].T  # [G, P]
    most_varied = shares[shares.std(dim=1).argsort(descending=True)[:3]]

    card = Card(8.6, 3.0)
    first, tokens, last = Place(0.12, 0.6, 1.7, 1.7), Place(4.2, 0.85, 1.2, 1.2), Place(6.75, 0.6, 1.7, 1.7)
    card.mesh(first, mesh, given["fields"][1, 0, :number].numpy(), "f at the points")
    ring = card.panel(tokens, "8 tokens t", frame=False, below="attend to each other")
    angles = 2 * np.pi * np.arange(8) / 8
    spots = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for a, b in combinations(spots, 2):
        ring.plot(*np.stack([a, b], axis=1), color=FAINT, linewidth=0.7)
    ring.plot(*spots.T, "o", color=COOL, markersize=9)
    ring.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
    for place, part, name in zip((2.02, 1.04, 0.06), most_varied, "₁₂₃", strict=True):
        slice_of = Place(2.65, place, 0.88, 0.88)
        card.mesh(slice_of, mesh, part.numpy(), cmap="Greys", vmin=0)
        card.text(slice_of.x - 0.06, slice_of.centre[1], f"p{name}", ha="right", va="center")
        card.arrow(slice_of, tokens, color=FAINT)
    card.line((first.x + first.width + GAP, 1.45), (2.3, 1.45))
    lowest, highest = np.quantile(predicted, [0.03, 0.97])  # the rim has extremes
    card.mesh(last, mesh, predicted.numpy(), "u", vmin=lowest, vmax=highest)
    card.arrow(tokens, last, "Σ p t′, then\nfurther layers")
    return card


def graphs() -> Card:
    """How far messages reach along the edges of a mesh, and the regions of `rigno`."""
    mesh, layout = on_mesh_with_hole()
    edges = MODELS["mesh_graph_net"](layout).edges.numpy()
    points, start = mesh.points, nearest(mesh, (0.75, 0.25))
    matrix = coo_array((np.ones(len(edges)), edges.T), shape=(len(points), len(points)))
    hops = dijkstra(matrix, directed=False, unweighted=True, indices=start)
    model = MODELS["rigno"](layout, resolution=10)
    near = model.grid.near(torch.tensor(points[None], dtype=torch.float32))
    _, measures = near.over_points(near.nearness[..., None], near.nearness)
    centres, touched = model.grid.centres.numpy(), measures[0].numpy() > 0
    region = int(near.cells[0, start, near.nearness[0, start].argmax()])

    card = Card(8.6, 2.75)
    places = row(1.35, [(1.95, 1.95)] * 4, 0.1, 0.2)
    titles = "messages to a point", "three rounds of them", "to regions and back", "among regions"
    below = "from all that share an edge", "reach three edges far", "those within 1.5 cells", "1, 2 and 4 cells away"
    panels = [
        card.mesh(place, mesh, None, title, below=text)
        for place, title, text in zip(places, titles, below, strict=True)
    ]
    close, reach, to_regions, among = panels
    middle = points[start]
    for axes, reach_of in ((close, 0.13), (to_regions, 0.24)):
        axes.set(xlim=(middle[0] - reach_of, middle[0] + reach_of), ylim=(middle[1] - reach_of, middle[1] + reach_of))
    for other in points[hops == 1]:
        pointed(close, other, middle)
    for distance, colour in ((3, "#bfdbfe"), (2, "#60a5fa"), (1, COOL), (0, WARM)):
        reach.plot(*points[hops == distance].T, "o", color=colour, markersize=4.5)
    for axes in (to_regions, among):
        axes.plot(*centres[touched].T, "s", color="#f5c27a", markersize=9 if axes is to_regions else 4.5)
    for cell, share in zip(near.cells[0, start], near.nearness[0, start], strict=True):
        if share > 0:
            pointed(to_regions, middle, centres[int(cell)], width=0.6 + 2 * float(share))
    for sender, receiver in model.pairs.numpy():
        if receiver == region and touched[sender]:
            pointed(among, centres[sender], centres[receiver], width=0.8)
    for axes in (close, to_regions):
        axes.plot(*middle, "o", color=WARM, markersize=6)
    return card


def on_mesh_with_hole() -> tuple[Mesh2, Layout]:
    """A mesh of `poisson_with_hole`, and a layout of a field in and one out on it."""
    points, cells, _ = load_class("poisson_with_hole", PROBLEMS, "problem")(resolution=20).mesh(*HOLE)
    mesh = Mesh(len(points), 2, lambda: (points, cells))
    return Mesh2(points, cells), Layout((FieldSpec(name="f", on=mesh),), (FieldSpec(name="u", on=mesh),))


def nearest(mesh: Mesh2, spot: tuple[float, float]) -> int:
    """The number of the point of a mesh that is nearest to a spot."""
    return int(np.hypot(*(mesh.points - spot).T).argmin())


def pointed(axes: Axes, start: np.ndarray, end: np.ndarray, *, width: float = 1.3) -> None:
    """Draw an arrow in a panel, in the units of its axes."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": COOL, "linewidth": width, "shrinkB": 4})


def latent_grids() -> Card:
    """Points, what is near a cell of `gino`, its grid, and the way back."""
    mesh, layout = on_mesh_with_hole()
    model = MODELS["gino"](layout, resolution=12)
    x, y = mesh.points.T
    f = np.sin(3 * np.pi * x) * np.sin(2 * np.pi * y) + x
    near = model.grid.near(torch.tensor(mesh.points[None], dtype=torch.float32))
    shares = torch.tensor(layout.geometries[0].weights, dtype=torch.float32)[None, :, None]
    values = torch.tensor(f, dtype=torch.float32)[None, :, None, None].expand(-1, -1, near.cells.shape[2], -1)
    means, measures = near.over_points(values, near.nearness * shares)
    on_grid = np.where(measures[0] > 0, means[0, :, 0], np.nan).reshape(model.grid.shape)
    back = (near.nearness * near.of_cells(means)[..., 0]).sum(dim=2) / near.nearness.sum(dim=2)
    cell = int(near.cells[0, nearest(mesh, (0.8, 0.28)), near.cells.shape[2] // 2])
    of_cell = (near.nearness * (near.cells == cell)).sum(dim=2)[0].numpy()
    centre = model.grid.centres[cell].numpy()

    card = Card(8.6, 2.1)
    first, around, grid, layers, last = row(0.9, [(1.5, 1.5)] * 3 + [(1.05, 0.9), (1.5, 1.5)], 0.08, 0.34)
    limits = {"vmin": f.min(), "vmax": f.max()}
    card.mesh(first, mesh, f, "f at the points", **limits)
    axes = card.mesh(around, mesh, None, "what is near a cell", linewidth=0.3)
    low, high = centre - 0.17, centre + 0.17
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    for number in range(model.grid.shape[0] + 1):
        for line in (axes.axvline, axes.axhline):
            line(number * model.grid.size, color=INK, linewidth=0.7)
    axes.scatter(
        *mesh.points.T, s=8 + 60 * of_cell, color=[COOL if weight > 0 else FAINT for weight in of_cell], zorder=3
    )
    axes.add_patch(Circle(centre, near.radius, edgecolor=WARM, fill=False, linewidth=1.6))
    card.field(grid, on_grid, "v on the grid", **limits)
    card.box(layers, "Fourier\nlayers, or\nattention")
    card.mesh(last, mesh, back[0].numpy(), "back at the points", **limits)
    for start, end in pairwise((first, around, grid, layers, last)):
        card.arrow(start, end)
    return card


FAMILIES: dict[str, Callable[[], Card]] = {
    "fourier": fourier,
    "convolutional": convolutional,
    "attention": attention,
    "wrappers": wrappers,
    "deeponets": deeponets,
    "attention-at-points": attention_at_points,
    "graphs": graphs,
    "latent-grids": latent_grids,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or FAMILIES:
        torch.manual_seed(0)
        FAMILIES[name]().save(FOLDER / f"{name}.png")
