"""Every bench by name: `python -m benchmarks solvers`, from a checkout.

Each is imported when it is run: those of the solvers after `use_one_core`, that of the learner in an environment that
may have torch and NumPy alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

from penstock.errors import PenstockError
from penstock.machine import use_one_core


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n", 1)[0])
    benches = parser.add_subparsers(required=True, metavar="BENCH")

    def add(run, text: str, systems: int | None = None, resolution: int | None = None) -> argparse.ArgumentParser:
        options = benches.add_parser(run.__name__.replace("_", "-"), help=text, description=text)
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
    add(gate, "whether our GCRO-DR is SKR's: iterations on SKR's systems", systems=40)
    add(iteration, "what an iteration of GCRO-DR costs against PETSc's GMRES")
    add(sorting, "orders of a window: cost, steps, and the solve time they save", systems=256, resolution=64)
    add(accuracy, "the cost of each digit, and whether accuracy is kept", systems=200, resolution=64)
    add(discretisation, "order and error of the finite elements on nested meshes", systems=5, resolution=64)
    options = add(problems, "what a sample of each problem costs, and who takes the time")
    options.add_argument("names", nargs="*", help="problems; all of them when left out")
    options.add_argument("--seconds", type=float, default=5.0, help="time per problem (5)")
    options = add(training, "every problem trained by the command line, exported and used")
    options.add_argument("names", nargs="*", help="problems; all of them when left out")
    options.add_argument("--seconds", type=float, default=30.0, help="time of each training (30)")
    options = add(zoo, "every model on the problem of its kind, for equal times")
    options.add_argument("problems", nargs="*", help="problems of the table; all of them when left out")
    options.add_argument("--models", nargs="*", help="models; all of each problem's kind when left out")
    options.add_argument(
        "--minutes",
        type=float,
        default=4.0,
        help="time of each training, on a machine of the speed that the table names (4)",
    )
    options.add_argument("--seeds", type=_positive, default=3, help="trainings of the best three of a problem (3)")
    options = add(recipes, "which optimizer and learning rate train each model best, in equal numbers of steps")
    options.add_argument("problems", nargs="*", help="problems of the table; all of them when left out")
    options.add_argument("--models", nargs="*", help="models, trained again; all that are missing when left out")
    options.add_argument("--steps", type=_positive, default=300, help="length of each training (300)")
    options = add(memory, "whether a worker's memory is flat, for every problem", systems=2000)
    options.add_argument("names", nargs="*", help="problems; all of them when left out")
    options = add(scaling, "how many more samples two workers make than one")
    options.add_argument("names", nargs="*", help="problems; four of them when left out")
    options.add_argument("--seconds", type=float, default=20.0, help="time of each measurement (20)")
    options = add(peers, "our problems beside loops that others write for them, at equal error")
    options.add_argument("kind", choices=_peers(), help="of the problems")
    options.add_argument("names", nargs="*", help="problems of this kind; all of them when left out")
    options.add_argument("--seconds", type=float, default=5.0, help="CPU time per peer (5)")
    options.add_argument("--resolution", type=_positive, help="of all problems; the default ones when left out")
    options = add(learner, "what limits training: the step, its feed, ingest")
    options.add_argument("--device", choices=("cpu", "cuda"), help="cuda where there is one, when left out")
    options.add_argument("--case", help="one section alone, which is then only printed")
    options.add_argument("--seconds", type=float, help="time of each arm; 6 when left out")
    options = add(steps, "steps of our models against those of public ones, eager and compiled")
    options.add_argument("names", nargs="*", help="comparisons, which are then only printed; all when left out")
    options.add_argument("--seconds", type=float, help="time of each arm; 3 when left out")
    options = add(transport, "what the stream carries, beside bare ZeroMQ")
    options.add_argument("--seconds", type=float, default=2.0, help="time of each measurement (2)")
    options.add_argument("--rounds", type=_positive, default=3, help="measurements of every arm, in turns (3)")
    options = add(scale, "1 to 1,000 workers that sleep: rates, costs, memory, and the driver's share")
    options.add_argument("--seconds", type=float, default=5.0, help="time of each measurement (5)")
    options.add_argument("--processes", type=_positive, default=64, help="worker processes; less leaves out rows (64)")
    options = add(model, "a model of 10,000 workers, held against what `scale` measured")
    options.add_argument("--seconds", type=float, default=2.0, help="time of each calibration (2)")
    options.add_argument("--workers", type=_positive, default=10_000, help="workers of the largest prediction (10000)")
    options = add(sort_or_learn, "what sorted leases do to what is learned, beside shuffled ones")
    options.add_argument("--samples", type=_positive, default=4096, help="unique samples of a training (4096)")
    options.add_argument("--seeds", type=_positive, default=3, help="trainings of every arm, at least 2 (3)")
    options = add(chaos, "a run that is killed, stopped, starved and scaled, beside undisturbed ones")
    options.add_argument("--faults", type=_positive, default=30, help="faults in the run (30)")
    options.add_argument("--seed", type=int, default=0, help="of the faults and of the run (0)")
    options.add_argument("--nodes", action="store_true", help="lost and cut off nodes of a cluster instead, as root")
    options = add(soak, "half an hour at full speed: memory of each process, and which files grow")
    options.add_argument("--minutes", type=float, default=30.0, help="time of training (30)")
    options = add(views, "the demo watched by every view beside the demo unwatched: processor time; a scrape")
    options.add_argument("--minutes", type=float, default=3.7, help="time of each training (3.7, as the demo's)")
    options.add_argument("--pairs", type=_positive, default=3, help="pairs of runs (3)")

    arguments = parser.parse_args()
    try:
        sys.exit(arguments.run(arguments))
    except PenstockError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def solvers(arguments: argparse.Namespace) -> None:
    use_one_core()
    from benchmarks.solvers.solvers import run

    run(arguments.case, arguments.systems)


def gate(arguments: argparse.Namespace) -> int:
    """The exit status of the gate: 1 where it is not passed."""
    use_one_core()
    from benchmarks.solvers.skr import gate as passes

    return int(not passes(arguments.systems))


def iteration(arguments: argparse.Namespace) -> None:
    use_one_core()
    from benchmarks.solvers.skr import cost_per_iteration

    cost_per_iteration()


def sorting(arguments: argparse.Namespace) -> None:
    use_one_core()
    from benchmarks.solvers.sorting import run

    run(arguments)


def accuracy(arguments: argparse.Namespace) -> None:
    use_one_core()
    from benchmarks.solvers.accuracy import run

    run(arguments)


def discretisation(arguments: argparse.Namespace) -> None:
    use_one_core()
    from benchmarks.solvers.discretisation import run

    run(arguments)


def problems(arguments: argparse.Namespace) -> None:
    use_one_core()
    from benchmarks.problems import run

    run(arguments.names, arguments.seconds)


def training(arguments: argparse.Namespace) -> None:
    from benchmarks.surrogates.training import run

    run(arguments.names, arguments.seconds)


def zoo(arguments: argparse.Namespace) -> None:
    from benchmarks.surrogates.zoo import run

    run(arguments.problems, arguments.models, arguments.minutes, arguments.seeds)


def recipes(arguments: argparse.Namespace) -> None:
    from benchmarks.surrogates.recipes import run

    run(arguments.problems, arguments.models, arguments.steps)


def memory(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where memory grows."""
    use_one_core()
    from benchmarks.memory import run

    return run(arguments.names, arguments.systems)


def scaling(arguments: argparse.Namespace) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is imported, for the processes that are started
    from benchmarks.scaling import run

    run(arguments.names, arguments.seconds)


def peers(arguments: argparse.Namespace) -> None:
    use_one_core()
    import_module(f"benchmarks.peers.{arguments.kind}").run(arguments)


def _peers() -> list[str]:
    """The benches in benchmarks/peers/, by their modules' names."""
    return sorted(file.stem for file in (Path(__file__).parent / "peers").glob("[!_]*.py"))


def learner(arguments: argparse.Namespace) -> None:
    from penstock.learner.allocator import keep_freed_memory

    keep_freed_memory()  # before torch is imported
    from benchmarks.learner.page import SECONDS, run

    run(arguments.device, arguments.case, SECONDS if arguments.seconds is None else arguments.seconds)


def steps(arguments: argparse.Namespace) -> None:
    from penstock.learner.allocator import keep_freed_memory

    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # a thread that spins while it waits for others takes CPU time
    keep_freed_memory()  # before torch is imported
    from benchmarks.learner.steps import SECONDS, run

    run(arguments.names, SECONDS if arguments.seconds is None else arguments.seconds)


def transport(arguments: argparse.Namespace) -> None:
    from benchmarks.transport import run

    run(arguments.seconds, arguments.rounds)


def scale(arguments: argparse.Namespace) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is imported, for the processes that are started
    from benchmarks.scale.page import run

    run(arguments.seconds, arguments.processes)


def model(arguments: argparse.Namespace) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    from benchmarks.scale.predictions import run

    run(arguments.seconds, arguments.workers)


def sort_or_learn(arguments: argparse.Namespace) -> None:
    from benchmarks.sort_or_learn import run

    if arguments.seeds < 2:
        raise PenstockError(f"--seeds {arguments.seeds}: a verdict goes by the spread of at least 2 trainings")
    run(arguments.samples, range(arguments.seeds))


def chaos(arguments: argparse.Namespace) -> None:
    if arguments.nodes:
        from benchmarks.chaos.nodes import run

        run(arguments.seed)
    else:
        from benchmarks.chaos.page import run

        run(arguments.faults, arguments.seed)


def soak(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where the memory of a process has grown."""
    from benchmarks.chaos.soak import run

    return run(arguments.minutes)


def views(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where the views take more than they may."""
    from benchmarks.views.page import run

    return run(arguments.minutes, arguments.pairs)


if __name__ == "__main__":
    main()
