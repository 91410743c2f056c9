"""The commands that need no run: `penstock problems`, `models` and `generate`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from penstock.orchestrator.cli.invocation import Invocation, Json, Overrides, Quiet, form_of

models = typer.Typer(invoke_without_command=True, help="List the models that come with penstock, or show one.")
problems = typer.Typer(invoke_without_command=True, help="List the problems that come with penstock, or show one.")


@problems.callback()
def listing(
    context: typer.Context,
    measure: Annotated[
        bool, typer.Option("--measure", help="Solve two draws of each: its systems, and seconds per sample.")
    ] = False,
) -> None:
    """List the problems that come with penstock; `show` has all about one of them."""
    if context.invoked_subcommand is not None:
        return
    if measure:
        from penstock.machine import use_one_core

        use_one_core()  # before NumPy is imported
    from penstock.orchestrator.cli.catalogue.listing import show_problems

    show_problems(measures=measure)


@problems.command()
def show(
    name: Annotated[str, typer.Argument(help="A name of the list, or your own as ./file.py:Class.")],
    options: Annotated[
        list[str] | None,
        typer.Argument(help="key=value, options of the problem.", metavar="[KEY=VALUE]...", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Picture to write; ./<name>.png when left out.", show_default=False)
    ] = None,
) -> None:
    """Print what a problem is and what it costs, and draw four of its draws."""
    from penstock.machine import use_one_core

    use_one_core()  # before NumPy is imported
    from penstock.orchestrator.cli.catalogue.show import show_problem

    show_problem(name, tuple(options or ()), output)


@models.callback()
def models_listing(
    context: typer.Context,
    measure: Annotated[bool, typer.Option("--measure", help="Train each for a few steps: seconds per step.")] = False,
) -> None:
    """List the models that come with penstock; `show` has all about one of them."""
    if context.invoked_subcommand is not None:
        return
    if measure:
        from penstock.machine import use_one_core

        use_one_core()  # before torch is imported
    from penstock.orchestrator.cli.catalogue.listing import show_models

    show_models(measures=measure)


@models.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A name of the list, or your own as ./file.py:Class.")],
) -> None:
    """Print what a model is, with its options."""
    from penstock.orchestrator.cli.catalogue.listing import show_model as show_one

    show_one(name)


def generate(
    config: Annotated[Path, typer.Argument(help="YAML file of a run.")],
    num: Annotated[int, typer.Option(min=2, help="Number of simulations, with those that the store has.")],
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(help="Zarr store of samples to write or go on with.", show_default=False)
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Solve without training: print samples per second, and keep them if asked."""
    form = form_of(quiet, as_json)
    from penstock.machine import use_one_core
    from penstock.orchestrator.config.config import load_config
    from penstock.orchestrator.resources.cores import solves_here

    loaded = load_config(config, tuple(overrides or ()))
    if loaded.solver.ranks == 1 and solves_here(loaded):
        use_one_core()  # before NumPy is imported
    from penstock.orchestrator.cli.generate import generate as solve

    if Invocation.owns_process:  # what it warns of is printed
        logging.getLogger("penstock.solvers.linear.linear_solver").setLevel(logging.ERROR)
    solve(loaded, num, output, form)
