"""`penstock bench solvers`: every way to solve, on the problem of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from penstock.errors import PenstockError, describe, text_of
from penstock.orchestrator.actors.local_worker import reference_solver
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.views.terminal.screen import Form, Screen
from penstock.solvers import mpi
from penstock.solvers.problem import SolveError
from penstock.solvers.referee.case import Case, systems_of
from penstock.solvers.referee.goals import AccuracyGoal, Goal, ResidualGoal
from penstock.solvers.referee.lineup import lineup
from penstock.solvers.referee.referee import compare, structure_of
from penstock.solvers.referee.table import section_of

LEGEND = """Arms called "user" are loops as a PETSc user writes them, "SKR" is GCRO-DR(40, 20) as Wang et al. (2024) use
it, "reset" the same without recycling, "yours" the configuration's strategy. "auto" checks every solution,
as a run does with any strategy; the times of the other arms exclude the check. An error of up to twice the goal counts
as solved. A ratio is the time of an arm over that of auto, for the sum of all systems and, in brackets, the median:
above 1, auto is faster."""


def bench_solvers(config: Config, num_systems: int, form: Form = Form.PEOPLE) -> None:
    """Compare all ways to solve on the systems of the configuration's problem.

    These are penstock's strategies, and loops as an experienced PETSc user writes them. A table is printed for each
    family of systems.

    Args:
        config: the run's configuration.
        num_systems: number of systems of each family to compare on.
        form: what is printed.

    Raises:
        PenstockError: the problem solves no system, or can't be solved.
    """
    name = config.problem.name
    screen = Screen(form)
    solving = Solving.of(config)  # not a Plan: the model may be anything
    problem = solving.problem
    solving.strategy()  # refused before anything is solved
    mpi.start()
    with _in_one_line(config):
        systems = systems_of(problem, config.seed, reference_solver(config.solver))
    if not systems:
        raise PenstockError(f"problem {name!r} solves no linear system in its first simulation: nothing to compare")
    families = list(dict.fromkeys(family for family, _ in systems))
    for family in families:
        sizes = [size for other, size in systems if other == family]
        case = Case(
            name=name if len(families) == 1 else f"{name}, {family}",
            title="Systems that follow from one another" if len(sizes) > 1 else "One system per simulation",
            problem=problem,
            num_unknowns=sizes[0],
            is_sequence=len(systems) > 1,
            family=family,
            seed=config.seed,
            design="training",
            of_deviation=config.solver.accuracy_of == "deviation",
        )
        with _in_one_line(config):
            _compare(case, solving, num_systems, len(sizes), screen)
    screen.say(LEGEND)
    screen.drain()


@contextmanager
def _in_one_line(config: Config) -> Iterator[None]:
    """Report what simulations raise in one line, with the exit code of a run, 3."""
    try:
        yield
    except (SolveError, ArithmeticError) as error:
        raise PenstockError(f"problem {config.problem.name!r}: {text_of(error)}", exit_code=3) from error
    except Exception as error:
        file = config.problem.name.rpartition(":")[0]
        raise PenstockError(f"problem {config.problem.name!r}: {describe(error, file)}", exit_code=3) from error


def _compare(case: Case, solving: Solving, num_systems: int, num_first: int, screen: Screen) -> None:
    """Print the table of one family, with `num_first` systems per simulation."""
    solver = solving.config.solver
    accuracy, rtol = solver.accuracy, solver.rtol
    structure = structure_of(case, later=num_first if case.is_sequence else None)
    target = {"rtol": rtol} if accuracy is None else {"accuracy": accuracy, "of_deviation": case.of_deviation}
    yours = {} if solver.strategy.name == "auto" else {f"yours: {solver.strategy.name}": solving.strategy}
    arms = lineup(structure, case.first(), target, yours)
    screen.say(f"{case.name}: {len(arms)} ways to solve, {num_systems} systems of {case.num_unknowns:,} unknowns")

    def goal(calibrations: range) -> Goal:
        return ResidualGoal(rtol) if accuracy is None else AccuracyGoal(accuracy, case, calibrations)

    with screen.progress("turns") as progress:
        section = section_of(compare(case, arms, num_systems, goal, show=progress.show))
    screen.say(section["text"])
    screen.give("result", section)
