"""Orders of a window: their cost, their steps, and the time that they save.

The time saved is that of a strategy that recycles.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.fft import dctn

from benchmarks.solvers.report import report
from penstock.solvers.discretisation.elements.fem import DarcyDiscretisation
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.parameters.fields import BinaryField, GaussianField
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.sorting.sorter import (
    GROUP_SYSTEMS,
    NUM_COMPONENTS,
    distance_gain,
    greedy_order,
    hilbert_order,
    principal_components,
)

SEED = 0
RTOL = 1e-8
WINDOWS = (64, 256, 1000, 10_000)

OrderOf = Callable[[np.ndarray], list[int]]


def run(arguments: argparse.Namespace) -> None:
    n = arguments.resolution
    report(
        "sorting.md",
        "Orders of a window: their cost, their steps, and the solve time they save",
        f"""
        Windows of draws on {n} x {n} cells: the 12/3 field of Darcy, and exp(g) of the Gaussian field g with unit
        variance, both by a covariance (-Laplacian + 9)^-2. "steps" is the mean distance of successive systems over that
        of any two, in all {n * n} features. "greedy" is SKR's order, O(N^2) in all features; the other orders see
        {NUM_COMPONENTS} numbers of each system: the leading cosine coefficients of the grid, or principal components of
        the window. All seconds are processor time of one thread; those of sorting start at the stacked features.
        Windows of at most {arguments.systems} systems are solved, too: P1 elements, GCRO-DR(40, 20), Jacobi, true
        relative residual {RTOL:g}; the orders take turns system by system. "saved" is a share of the solve time as
        drawn, with sorting subtracted.
        """,
        ["field", "systems", "order", "sorting, s", "us per system", "steps", "products", "ms per system", "saved"],
        [row for kind in ("12/3", "exp(g)") for row in rows_of(kind, n, arguments.systems)],
        f"sorting --systems {arguments.systems} --resolution {n}",
    )


def rows_of(kind: str, resolution: int, num_solved: int) -> list[list[str]]:
    """The rows for the windows of one kind of field.

    Windows of at most `num_solved` systems are solved.
    """
    gaussian = GaussianField(resolution)
    field = BinaryField(gaussian, above=12.0, below=3.0) if kind == "12/3" else gaussian
    values = [field.draw(generator_of(SEED, "bench", i)) for i in range(WINDOWS[-1])]
    rows = []
    for num_systems in WINDOWS:
        features = np.stack([field.features(value) for value in values[:num_systems]])
        orders, seconds = {}, {}
        for title, order_of in orders_of(num_systems, resolution).items():
            seconds[title] = np.inf
            for _ in range(3 if num_systems <= 1000 else 1):  # the least: small windows are sorted in a millisecond
                start = time.thread_time()
                orders[title] = order_of(features)
                seconds[title] = min(seconds[title], time.thread_time() - start)
        solves = {}
        if num_systems <= num_solved:
            deviation = np.std(values[:num_systems])
            coefficients = values if kind == "12/3" else [np.exp(value / deviation) for value in values[:num_systems]]
            solves = solve_in(orders, coefficients, resolution)
        for title, order in orders.items():
            row = [kind, str(num_systems), title, f"{seconds[title]:.4f}", f"{1e6 * seconds[title] / num_systems:.1f}"]
            row.append(f"{distance_gain(features, order):.3f}")
            if solves:
                products, solving = solves[title]
                saved = 1 - (solving + seconds[title]) / solves["as drawn"][1]
                row += [f"{products / num_systems:.1f}", f"{1e3 * solving / num_systems:.2f}"]
                row.append("-" if title == "as drawn" else f"{100 * saved:.1f} %")
            rows.append(row if solves else [*row, "-", "-", "-"])
    return rows


def orders_of(num_systems: int, resolution: int) -> dict[str, OrderOf]:
    """The orders by title; each takes the features [N, F] of a window."""

    def cosine_coefficients(features: np.ndarray) -> np.ndarray:
        side = round(NUM_COMPONENTS**0.5)
        fields = features.reshape(len(features), resolution, resolution)
        return dctn(fields, axes=(1, 2), norm="ortho")[:, :side, :side].reshape(len(features), -1)

    def along_curve(group: int) -> OrderOf:
        return lambda features: hilbert_order(features @ principal_components(features), group=group)

    orders: dict[str, OrderOf] = {
        "as drawn": lambda features: list(range(len(features))),
        "greedy": greedy_order,
        "greedy, cosines": lambda features: greedy_order(cosine_coefficients(features)),
        "greedy, components": lambda features: greedy_order(features @ principal_components(features)),
        "Hilbert, components": along_curve(1),
    }
    if num_systems > GROUP_SYSTEMS:
        orders[f"Hilbert, greedy in groups of {GROUP_SYSTEMS}"] = along_curve(GROUP_SYSTEMS)
    return orders


def solve_in(orders: dict[str, list[int]], coefficients: list, resolution: int) -> dict[str, tuple[int, float]]:
    """The products with A and the seconds to solve all systems in each order."""
    discretisation = DarcyDiscretisation(resolution)
    source = np.ones((resolution, resolution))
    solvers = {title: LinearSolver(GCRODR(pc="jacobi"), rtol=RTOL) for title in orders}
    products, seconds = dict.fromkeys(orders, 0), dict.fromkeys(orders, 0.0)
    for position in range(len(orders["as drawn"])):
        for title, order in orders.items():
            system = discretisation.system(coefficients[order[position]], source)
            start = time.thread_time()
            products[title] += solvers[title](system).iterations
            seconds[title] += time.thread_time() - start
    return {title: (products[title], seconds[title]) for title in orders}
