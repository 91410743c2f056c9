"""python -m penstock.solvers.bench: what recycling, sorting and restarts are worth on Darcy systems.

Every arm solves the same systems to the same true residual. The arms take turns system by system, so a busy machine
slows all of them alike. Systems that an arm fails to solve are counted apart and enter none of its other columns.
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

from penstock.solvers.krylov.direct import Direct
from penstock.solvers.krylov.gcrodr import GCRODR
from penstock.solvers.krylov.krylov import Krylov
from penstock.solvers.krylov.strategy import Strategy, residual_of
from penstock.solvers.parameters import generator_of
from penstock.solvers.problem import LinearSystem
from penstock.solvers.problems.darcy import Darcy
from penstock.solvers.sorting import greedy_order

RTOL = 1e-8
SEED = 0
REPORT = Path(__file__).resolve().parent.parent / "benchmarks" / "gcrodr.md"


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
        attempt = self.strategy.solve(system, RTOL)
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


def run(num_systems: int, resolution: int) -> list[Arm]:
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
    parser.add_argument("--systems", type=int, default=100, help="number of Darcy systems (100)")
    parser.add_argument("--resolution", type=int, default=64, help="cells along each side (64)")
    arguments = parser.parse_args()

    arms = run(arguments.systems, arguments.resolution)
    header = ["arm", "products, mean", "median", "max", "seconds, all", "failures"]
    table = markdown([arm.row() for arm in arms], header)
    print(table)
    introduction = f"""
        {arguments.systems} systems of the 12/3 Darcy problem at {arguments.resolution} x {arguments.resolution} cells
        ({(arguments.resolution + 1) ** 2} unknowns), Jacobi preconditioner, every solution at a true relative residual
        of at most {RTOL:g}. Every product with A is counted: the method's own residuals and the 20 that rebuild
        C = A U included. "reset" empties the recycle space before every system: what it saves over GMRES(40) comes
        from deflated restarts inside one system, and only what the two rows above it save over "reset" comes from
        recycling. Seconds are solves alone, set-up included, assembly and sorting not; the arms took turns system by
        system. Failures enter no other column.
    """
    threads = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} " if "OMP_NUM_THREADS" in os.environ else ""
    text = f"""# Recycling, sorting and restarts on Darcy systems

{textwrap.fill(" ".join(introduction.split()), 120)}

{table}

- Command: `{threads}python -m penstock.solvers.bench --systems {arguments.systems} --resolution {arguments.resolution}`
- Machine: {cpu_model()}, {os.cpu_count()} cores; one process
- Versions: {versions()}
- Date: {datetime.now(UTC):%Y-%m-%d}
"""
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(text)
    print(f"written to {REPORT}", file=sys.stderr)


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
