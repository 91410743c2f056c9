"""`penstock generate`: the stream of a run without its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.orchestrator.cli.invocation import Invocation
from penstock.orchestrator.cluster.ray_session import set_environment
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.resources.cores import solves_here
from penstock.orchestrator.run.without_learner import solved
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.store.samples import held_writer
from penstock.orchestrator.views.numbers import digits
from penstock.orchestrator.views.tally import Tally
from penstock.orchestrator.views.terminal.screen import Form, Screen
from penstock.solvers.stored.samples import SampleWriter


def generate(config: Config, num: int, output: Path | None, form: Form = Form.PEOPLE) -> None:
    """Solve simulations with the workers of a run.

    See `solves_here` for whether that is in this process; else Ray starts them.

    Args:
        config: the configuration of a run.
        num: number of simulations, from 0 on; those that the store has are not solved again.
        output: the store to write; None to drop the samples.
        form: what is printed.

    Raises:
        PenstockError: the problem can't be solved, or the store can't be written or holds other samples.
        SystemExit: a signal came; what had been solved is in the store.
    """
    if config.problem.swap and output is not None:
        raise PenstockError(
            "problem.swap: a store keeps the roles of the problem: leave it out here, and give it where you train: "
            "`problem: {name: store, path: ..., swap: true}`"
        )
    if not solves_here(config):
        set_environment(config.cluster.address)  # before a user's file imports Ray
    solving, screen = Solving.of(config), Screen(form)
    solving.problem  # noqa: B018  refused before a process is started
    strategy = solving.strategy().name
    for note in solving.notes:
        screen.tell(note)
    with held_writer(solving, output) as writer:
        done = set() if writer is None else {simulation for simulation in writer.ended if simulation < num}
        result = {"simulations": num, "solved": 0}
        if len(done) == num:
            screen.tell(f"{output} has all of {num} simulations: raise --num for more")
        else:
            if done:
                screen.tell(f"{len(done)} of {num} simulations are in {output}")
            result |= _solve(solving, strategy, num, done, writer, screen)
            if output is not None:
                screen.tell(f"wrote {output}; train on it with {_use_of(output, num, config.validation.simulations)}")
    screen.give("result", result | {"output": None if output is None else str(output)})
    screen.drain()


def _solve(
    solving: Solving, strategy: str, num: int, done: set[int], writer: SampleWriter | None, screen: Screen
) -> dict[str, Any]:
    """Solve what is not done, print rates and shares, and write what comes.

    Returns what was counted.
    """
    with solved(solving, num, done, screen.tell) as chunks:
        is_external = solving.problem.is_external
        rest = _rest(chunks.num_workers, is_external=is_external)
        tally = Tally(writer, screen.tell, strategy, chunks.num_workers, is_external=is_external, rest=rest)
        with screen.progress("simulations") as progress:
            progress.show(0, num - len(done))
            for chunk in chunks.stream:
                tally.add(chunk)
                progress.show(tally.num_ended, num - len(done), f"{digits(tally.rate)} samples/s")
        return tally.end(screen.say)


def _rest(num_workers: int | None, *, is_external: bool) -> str:
    """Where to learn more of simulations that fail; "" where there is no more."""
    if num_workers is not None:
        return f"the workers' logs {'name' if is_external else 'have tracebacks of'} all that fail"
    if Invocation.debug:
        return ""
    return f"`penstock --debug generate ...` {'names all that fail' if is_external else 'shows tracebacks'}"


def _use_of(output: Path, num: int, num_validation: int) -> str:
    """The keys of a configuration that trains on a store."""
    held_out = min(num_validation, num // 2)
    keys = f"`problem: {{name: store, path: {output.resolve()}, held_out: {held_out}}}`"
    return keys if held_out == num_validation else f"{keys} and `validation: {{simulations: {held_out}}}`"
