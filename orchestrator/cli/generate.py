"""`penstock generate`: the stream of a run without its training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.live import Live

from penstock.errors import PenstockError
from penstock.orchestrator.cluster.ray_session import set_environment
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.resources.cores import solves_here
from penstock.orchestrator.run.without_learner import solved
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.store.samples import held_writer
from penstock.orchestrator.views.numbers import digits
from penstock.orchestrator.views.tally import Tally
from penstock.orchestrator.views.terminal.monitor import Screen
from penstock.solvers.stored.samples import SampleWriter


def generate(config: Config, num: int, output: Path | None) -> None:
    """Solve simulations with the workers of a run.

    A single one solves in this process, several are started by Ray.

    Args:
        config: the configuration of a run.
        num: number of simulations, from 0 on; those that the store has are not solved again.
        output: the store to write; None to drop the samples.

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
    solving, console = Solving.of(config), Screen()
    solving.problem  # noqa: B018  refused before a process is started
    strategy = solving.strategy().name
    tell = partial(console.print, soft_wrap=True)
    for note in solving.notes:
        tell(note)
    with held_writer(solving, output) as writer:
        done = set() if writer is None else {simulation for simulation in writer.ended if simulation < num}
        if len(done) == num:
            tell(f"{output} has all of {num} simulations: raise --num for more")
        else:
            if done:
                tell(f"{len(done)} of {num} simulations are in {output}")
            _solve(solving, strategy, num, done, writer, console)
            if output is not None:
                tell(f"wrote {output}; train on it with {_use_of(output, num, config.validation.simulations)}")
    console.drain()


def _solve(
    solving: Solving, strategy: str, num: int, done: set[int], writer: SampleWriter | None, console: Screen
) -> None:
    """Solve what is not done, print rates and shares, and write what comes."""
    tell = partial(console.print, soft_wrap=True)
    with solved(solving, num, done, tell) as chunks:
        tally = Tally(writer, tell, strategy, chunks.num_workers, is_external=solving.problem.is_external)
        # Standard output goes to a log meanwhile, where rich would redirect it to the console again.
        with Live(console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as live:
            for chunk in chunks.stream:
                tally.add(chunk)
                live.update(f"{tally.num_ended} of {num - len(done)} simulations, {digits(tally.rate)} samples/s")
        tally.end()


def _use_of(output: Path, num: int, num_validation: int) -> str:
    """The keys of a configuration that trains on a store."""
    held_out = min(num_validation, num // 2)
    keys = f"`problem: {{name: store, path: {output.resolve()}, held_out: {held_out}}}`"
    return keys if held_out == num_validation else f"{keys} and `validation: {{simulations: {held_out}}}`"
