"""`penstock bench`: the commands that measure what limits a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.orchestrator.cli.invocation import Json, Overrides, Quiet, form_of

bench = typer.Typer(no_args_is_help=True, help="Measure what limits your run.")


@bench.command()
def solvers(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.")],
    overrides: Overrides = None,
    systems: Annotated[int, typer.Option(min=1, help="Number of systems to compare on.")] = 10,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare every way to solve on the systems of a run's problem, on one core."""
    form = form_of(quiet, as_json)
    from penstock.machine import use_one_core
    from penstock.orchestrator.config.config import load_config

    loaded = load_config(config, tuple(overrides or ()))
    use_one_core()  # before NumPy is imported
    from penstock.orchestrator.cli.bench.solvers import bench_solvers

    bench_solvers(loaded, systems, form)


@bench.command()
def learner(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.")],
    overrides: Overrides = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds for each measurement.")] = 6.0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure a run's training step: alone, fed, and fed while samples come in."""
    form = form_of(quiet, as_json)
    from penstock.learner.allocator import keep_freed_memory
    from penstock.orchestrator.config.config import load_config

    loaded = load_config(config, tuple(overrides or ()))
    keep_freed_memory()  # before torch is imported
    from penstock.orchestrator.cli.bench.learner import bench_learner

    bench_learner(loaded, seconds, form)
