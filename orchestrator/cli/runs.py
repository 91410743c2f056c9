"""The commands of a run: `train`, `resume`, `monitor`, `export` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.orchestrator.cli.invocation import Json, Overrides, Quiet, Run, form_of, opened, remember_log


def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.")],
    overrides: Overrides = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a surrogate while its solvers run."""
    from penstock.orchestrator.config.config import load_config

    form = form_of(quiet, as_json)
    loaded = load_config(config, tuple(overrides or ()))  # before torch is imported: a typo is reported at once
    from penstock.orchestrator.run.driver import start

    start(loaded, form, on_folder=remember_log)


def resume(run: Run = None, overrides: Overrides = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Resume a stopped or broken run from its newest checkpoint."""
    form = form_of(quiet, as_json)
    run, overrides = _split(run, overrides)
    folder = opened(run)
    from penstock.orchestrator.run.driver import resume as go_on

    go_on(folder, overrides, form, on_folder=remember_log)


def monitor(run: Run = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Watch a run, live or finished, from any terminal."""
    form = form_of(quiet, as_json)
    from penstock.orchestrator.views.terminal.monitor import monitor as watch
    from penstock.orchestrator.views.terminal.screen import Screen

    raise typer.Exit(watch(opened(run), Screen(form)))


def export(
    run: Run = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write; <run>.<format> in the run folder when left out.", show_default=False),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            help="pt2, for torch alone; onnx, for any ONNX runtime; safetensors, weights for penstock.load.",
        ),
    ] = "pt2",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the surrogate as one file, with a card that describes it."""
    form = form_of(quiet, as_json)
    folder = opened(run)
    from penstock.orchestrator.cli.export import export as write

    write(folder, output, kind, form)


def predict(
    run: Run = None,
    num: Annotated[int, typer.Option(min=1, help="Number of draws; none was trained on.")] = 4,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write; <run>/predictions when left out.", show_default=False)
    ] = None,
    animate: Annotated[bool, typer.Option("--animate", help="Write a GIF of the first trajectory too.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Solve new draws and predict them, for a store, errors and pictures.

    The picture has up to 8 rows, spread evenly from the first sample to the last, with truth, prediction and error of
    every output. Of a surrogate that leads to several states in time, another has the first trajectory's.
    """
    form = form_of(quiet, as_json)
    folder = opened(run)
    from penstock.orchestrator.cli.predict import predict as write

    write(folder, num, output, form, animates=animate)


def _split(run: Path | None, overrides: list[str] | None) -> tuple[Path | None, tuple[str, ...]]:
    """Run and overrides, where the first argument may already be an override."""
    if run is not None and "=" in run.name and not run.exists():
        return None, (str(run), *(overrides or ()))
    return run, tuple(overrides or ())
