"""python -m penstock.solvers.bench: what the solvers cost and how accurate they are, as tables in benchmarks/.

`recycling`: what recycling, sorting and restarts are worth on Darcy systems. Every arm solves the same systems to the
same true residual. The arms take turns system by system, so a busy machine slows all of them alike. Systems that an arm
fails to solve are counted apart and enter none of its other columns.

`discretisation`: the order of convergence and the error of the finite elements for drawn Darcy fields.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import textwrap
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import scipy
from mpi4py import MPI  # noqa: F401, before dolfinx and petsc4py, which would else not find their MPI

from penstock.solvers.krylov import LinearSolver
from penstock.solvers.krylov.direct import Direct
from penstock.solvers.krylov.gcrodr import GCRODR
from penstock.solvers.krylov.krylov import Krylov
from penstock.solvers.krylov.strategy import Strategy, Tolerance, residual_of
from penstock.solvers.parameters import generator_of
from penstock.solvers.problem import LinearSystem
from penstock.solvers.problems.darcy import Darcy, DarcyDiscretisation
from penstock.solvers.sorting import greedy_order

RTOL = 1e-8
SEED = 0
FOLDER = Path("benchmarks")


@dataclass
class Arm:
    """One way to solve all systems, and what it took."""

    title: str
    strategy: Strategy
    order: list[int]
    products: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failures: int = 0

    def solve(self, system: LinearSystem) -> None:
        start = time.perf_counter()
        attempt = self.strategy.solve(system, Tolerance(RTOL))
        seconds = time.perf_counter() - start
        if residual_of(system, attempt.x).norm() <= RTOL * system.b.norm():
            self.products.append(attempt.iterations)
            self.seconds.append(seconds)
        else:
            self.failures += 1

    def row(self) -> list[str]:
        if not self.products:
            return [self.title, "-", "-", "-", "-", str(self.failures)]
        return [
            self.title,
            f"{np.mean(self.products):.1f}",
            f"{np.median(self.products):.0f}",
            f"{max(self.products)}",
            f"{sum(self.seconds):.2f}",
            str(self.failures),
        ]


def compare_recycling(num_systems: int, resolution: int) -> list[Arm]:
    """Solve `num_systems` draws of Darcy with every arm."""
    problem = Darcy(resolution=resolution)
    draws = [problem.draw(generator_of(SEED, "bench", i)) for i in range(num_systems)]
    drawn = list(range(num_systems))
    greedy = greedy_order(np.stack([problem.features(parameters) for parameters in draws]))
    arms = [
        Arm("GMRES(40)", Krylov(ksp="gmres", pc="jacobi", restart=40), drawn),
        Arm("GMRES(200)", Krylov(ksp="gmres", pc="jacobi", restart=200), drawn),
        Arm("CG", Krylov(ksp="cg", pc="jacobi"), drawn),
        Arm("GCRO-DR(40, 20), sorted", GCRODR(pc="jacobi"), greedy),
        Arm("GCRO-DR(40, 20), unsorted", GCRODR(pc="jacobi"), drawn),
        Arm("GCRO-DR(40, 20), reset", GCRODR(pc="jacobi", recycle=False), drawn),
        Arm("direct (MUMPS)", Direct(), drawn),
    ]
    source = np.ones((resolution, resolution))
    for position in range(num_systems):
        for arm in arms:
            arm.solve(problem.discretisation.system(draws[arm.order[position]]["coefficient"], source))
    return arms


def nested_errors(num_fields: int, resolution: int, num_refinements: int = 3) -> list[list[str]]:
    """Rows of orders and errors: each field's coefficient stays that of `resolution` cells, the mesh is halved.

    Orders are log2(||u_h - u_h/2|| / ||u_h/2 - u_h/4||) in L2, the error is that of the coarsest against the finest.
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
    """The same piecewise linear function [n + 1, n + 1] at the vertices of the halved mesh, [2 n + 1, 2 n + 1].

    Squares are cut from (x, y) to (x + h, y + h), so their centres lie on an edge between these two.
    """
    n = len(values) - 1
    fine = np.empty((2 * n + 1, 2 * n + 1))
    fine[::2, ::2] = values
    fine[1::2, ::2] = (values[:-1] + values[1:]) / 2
    fine[::2, 1::2] = (values[:, :-1] + values[:, 1:]) / 2
    fine[1::2, 1::2] = (values[:-1, :-1] + values[1:, 1:]) / 2
    return fine


def recycling(arguments: argparse.Namespace) -> None:
    arms = compare_recycling(arguments.systems, arguments.resolution)
    report(
        "gcrodr.md",
        "Recycling, sorting and restarts on Darcy systems",
        f"""
        {arguments.systems} systems of the 12/3 Darcy problem at {arguments.resolution} x {arguments.resolution} cells
        ({(arguments.resolution + 1) ** 2} unknowns), Jacobi preconditioner, every solution at a true relative residual
        of at most {RTOL:g}. Every product with A is counted: the method's own residuals and the 20 that rebuild
        C = A U included. "reset" empties the recycle space before every system: what it saves over GMRES(40) comes
        from deflated restarts inside one system, and only what the two rows above it save over "reset" comes from
        recycling. Seconds are solves alone, set-up included, assembly and sorting not; the arms took turns system by
        system. Failures enter no other column.
        """,
        ["arm", "products, mean", "median", "max", "seconds, all", "failures"],
        [arm.row() for arm in arms],
        f"recycling --systems {arguments.systems} --resolution {arguments.resolution}",
    )


def discretisation(arguments: argparse.Namespace) -> None:
    n = arguments.resolution
    report(
        "discretisation.md",
        "Order and error of the finite elements for drawn Darcy fields",
        f"""
        The 12/3 Darcy problem, P1 on nested meshes of {n}, {2 * n}, {4 * n} and {8 * n} cells a side; the coefficient
        stays the drawn one of {n} x {n} cells. Orders are log2 of the ratio of successive differences in L2: a
        coefficient that jumps across corners leaves a solution too rough for the second order that smooth and
        interface-aligned cases have (tests/solvers/test_darcy.py). The error is that of the {n} x {n}
        solution at the vertices of the {8 * n} x {8 * n} one, relative: a surrogate trained on it is no nearer to the
        differential equation than that.
        """,
        ["field", f"order {n} to {4 * n}", f"order {2 * n} to {8 * n}", f"error at {n}"],
        nested_errors(arguments.systems, n),
        f"discretisation --systems {arguments.systems} --resolution {n}",
    )


def report(file: str, title: str, introduction: str, header: list[str], rows: list[list[str]], command: str) -> None:
    """Print a table, and write it to benchmarks/ with what it takes to repeat it."""
    table = markdown(rows, header)
    print(table)
    threads = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} " if "OMP_NUM_THREADS" in os.environ else ""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / file).write_text(f"""# {title}

{textwrap.fill(" ".join(introduction.split()), 120)}

{table}

- Command: `{threads}python -m penstock.solvers.bench {command}`
- Machine: {cpu_model()}, {os.cpu_count()} cores; one process
- Versions: {versions()}
- Date: {datetime.now(UTC):%Y-%m-%d}
""")
    print(f"written to {FOLDER / file}", file=sys.stderr)


def markdown(rows: list[list[str]], header: list[str]) -> str:
    """A table whose columns line up in plain text too."""
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    lines.insert(1, "|-" + "-|-".join("-" * width for width in widths) + "-|")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m penstock.solvers.bench", description=__doc__.partition("\n\n")[0])
    benches = parser.add_subparsers(required=True, metavar="BENCH")
    for bench, systems, text in (
        (recycling, 100, "GMRES, CG and GCRO-DR with and without recycling and sorting"),
        (discretisation, 5, "observed order and error on nested meshes"),
    ):
        options = benches.add_parser(bench.__name__, help=text)
        options.add_argument("--systems", type=int, default=systems, help=f"number of drawn systems ({systems})")
        options.add_argument("--resolution", type=int, default=64, help="cells along each side (64)")
        options.set_defaults(bench=bench)
    arguments = parser.parse_args()
    arguments.bench(arguments)


def cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> str:
    import dolfinx
    from petsc4py import PETSc

    petsc = ".".join(str(number) for number in PETSc.Sys.getVersion())
    return (
        f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"PETSc {petsc}, DOLFINx {dolfinx.__version__}"
    )


if __name__ == "__main__":
    main()
