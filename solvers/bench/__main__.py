"""The command line of the benches; `penstock bench solvers` is the one that most people want.

Every bench imports NumPy, so each is imported when it is run, after `use_one_core`.
"""

from __future__ import annotations

import argparse
import sys

from penstock.errors import PenstockError
from penstock.solvers.bench import use_one_core


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m penstock.solvers.bench")
    benches = parser.add_subparsers(required=True, metavar="BENCH")

    def add(run, text: str, systems: int | None = None, resolution: int | None = None) -> argparse.ArgumentParser:
        options = benches.add_parser(run.__name__, help=text, description=text)
        options.set_defaults(run=run)
        if systems is not None:
            options.add_argument("--systems", type=_positive, default=systems, help=f"number of draws ({systems})")
        if resolution is not None:
            text = f"cells along each side ({resolution})"
            options.add_argument("--resolution", type=_positive, default=resolution, help=text)
        return options

    options = add(solvers, "every way to solve, on every case")
    options.add_argument("--case", help="the beginning of the names of the cases to run; all when left out")
    options.add_argument("--systems", type=_positive, help="systems of a case; 40, 10 or 3 by size when left out")
    add(gate, "whether our GCRO-DR is SKR's: iterations on its own systems", systems=40)
    add(iteration, "what an iteration of GCRO-DR costs against PETSc's GMRES")
    add(sorting, "orders of a window: cost, steps, and the solve time they save", systems=256, resolution=64)
    add(accuracy, "what each digit costs, and whether accuracy is kept", systems=200, resolution=64)
    add(discretisation, "order and error of the finite elements on nested meshes", systems=5, resolution=64)

    arguments = parser.parse_args()
    use_one_core()
    try:
        sys.exit(arguments.run(arguments))
    except PenstockError as error:
        parser.error(str(error))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def solvers(arguments: argparse.Namespace) -> None:
    from penstock.solvers.bench.solvers import run

    run(arguments.case, arguments.systems)


def gate(arguments: argparse.Namespace) -> int:
    """1 where the gate is not passed."""
    from penstock.solvers.bench.skr import gate as passes

    return int(not passes(arguments.systems))


def iteration(arguments: argparse.Namespace) -> None:
    from penstock.solvers.bench.skr import cost_per_iteration

    cost_per_iteration()


def sorting(arguments: argparse.Namespace) -> None:
    from penstock.solvers.bench.sorting import run

    run(arguments)


def accuracy(arguments: argparse.Namespace) -> None:
    from penstock.solvers.bench.accuracy import run

    run(arguments)


def discretisation(arguments: argparse.Namespace) -> None:
    from penstock.solvers.bench.discretisation import run

    run(arguments)


if __name__ == "__main__":
    main()
