"""Order of convergence and error of the finite elements for drawn Darcy fields."""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.solvers.report import report
from penstock.solvers.discretisation.elements.fem import DarcyDiscretisation
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.steady.darcy import Darcy

SEED = 0
RTOL = 1e-8


def run(arguments: argparse.Namespace) -> None:
    n = arguments.resolution
    report(
        "discretisation.md",
        "Order and error of the finite elements for drawn Darcy fields",
        f"""
        The 12/3 Darcy problem, P1 on nested meshes of {n}, {2 * n}, {4 * n} and {8 * n} cells per side; the coefficient
        stays the drawn one of {n} x {n} cells. Orders are log2 of the ratio of successive differences in L2: a
        coefficient that jumps across corners leaves a solution too rough for the second order that smooth and
        interface-aligned cases have (tests/solvers/problems/test_darcy.py). The error is that of the {n} x {n}
        solution at the vertices of the {8 * n} x {8 * n} one, relative: a surrogate trained on it is no nearer to the
        differential equation than that.
        """,
        ["field", f"order {n} to {4 * n}", f"order {2 * n} to {8 * n}", f"error at {n}"],
        nested_errors(arguments.systems, n),
        f"discretisation --systems {arguments.systems} --resolution {n}",
    )


def nested_errors(num_fields: int, resolution: int, num_refinements: int = 3) -> list[list[str]]:
    """Rows of orders and errors on nested meshes.

    Each field's coefficient stays that of `resolution` cells, while the mesh is halved. Orders are log2(||u_h - u_h/2||
    / ||u_h/2 - u_h/4||) in L2, the error is that of the coarsest against the finest.
    """
    solve = LinearSolver(Direct(), rtol=RTOL)
    meshes = [DarcyDiscretisation(resolution * 2**level) for level in range(num_refinements + 1)]
    problem = Darcy(resolution=resolution)
    rows = []
    for index in range(num_fields):
        coefficient = problem.draw(generator_of(SEED, "bench", index))["coefficient"]
        solutions = []
        for level, mesh in enumerate(meshes):
            cells = np.kron(coefficient, np.ones((2**level, 2**level)))
            x = solve(mesh.system(cells, np.ones_like(cells))).x
            corners = np.empty(mesh.grid.permutation.size)
            corners[mesh.grid.permutation] = x.array_r
            solutions = [refine(coarse) for coarse in solutions] + [corners.reshape(mesh.grid.shape)]
        differences = [np.linalg.norm(solutions[i] - solutions[i + 1]) for i in range(num_refinements)]
        orders = np.log2(np.array(differences[:-1]) / differences[1:])
        error = np.linalg.norm(solutions[0] - solutions[-1]) / np.linalg.norm(solutions[-1])
        rows.append([str(index), *(f"{order:.2f}" for order in orders), f"{100 * error:.2f} %"])
    return rows


def refine(values: np.ndarray) -> np.ndarray:
    """A piecewise linear function at the vertices of the halved mesh.

    Its values [n + 1, n + 1] become [2 n + 1, 2 n + 1]. Squares are cut from (x, y) to (x + h, y + h), so their centres
    lie on an edge between these two.
    """
    n = len(values) - 1
    fine = np.empty((2 * n + 1, 2 * n + 1))
    fine[::2, ::2] = values
    fine[1::2, ::2] = (values[:-1] + values[1:]) / 2
    fine[::2, 1::2] = (values[:, :-1] + values[:, 1:]) / 2
    fine[1::2, 1::2] = (values[:-1, :-1] + values[1:, 1:]) / 2
    return fine
