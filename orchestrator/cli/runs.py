"""The commands of runs.

Of one: `train`, `resume`, `monitor`, `export` and `predict`; of several: `runs`, `compare` and `clean`; `report` is
of either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.orchestrator.cli.invocation import Overrides, Run, opened, remember_log


def train(config: Annotated[Path, typer.Argument(help="YAML file of the run.")], overrides: Overrides = None) -> None:
    """Train a surrogate while its solvers run."""
    from penstock.orchestrator.config.config import load_config

    loaded = load_config(config, tuple(overrides or ()))  # before torch is imported: a typo is reported at once
    from penstock.orchestrator.run.driver import start

    start(loaded, on_folder=remember_log)


def resume(run: Run = None, overrides: Overrides = None) -> None:
    """Resume a stopped or broken run from its newest checkpoint."""
    run, overrides = _split(run, overrides)
    folder = opened(run)
    from penstock.orchestrator.run.driver import resume as go_on

    go_on(folder, overrides, on_folder=remember_log)


def monitor(run: Run = None) -> None:
    """Watch a run, live or finished, from any terminal."""
    from penstock.orchestrator.views.terminal.monitor import Screen
    from penstock.orchestrator.views.terminal.monitor import monitor as watch

    raise typer.Exit(watch(opened(run), Screen()))


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
) -> None:
    """Write the surrogate as one file, with a card that describes it."""
    folder = opened(run)
    from penstock.orchestrator.cli.export import export as write

    write(folder, output, kind)


def predict(
    run: Run = None,
    num: Annotated[int, typer.Option(min=1, help="Number of draws; none was trained on.")] = 4,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write; <run>/predictions when left out.", show_default=False)
    ] = None,
    animate: Annotated[bool, typer.Option("--animate", help="Write a GIF of the first trajectory too.")] = False,
) -> None:
    """Solve new draws and predict them, for a store, errors and pictures.

    The picture has up to 8 rows, spread evenly from the first sample to the last, with truth, prediction and error of
    every output. Of a surrogate that leads to several states in time, another has the first trajectory's.
    """
    folder = opened(run)
    from penstock.orchestrator.cli.predict import predict as write

    write(folder, num, output, animates=animate)


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run folders; the latest under runs/ when left out. Several are compared.",
            metavar="[RUN]...",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write; report.html in the run folder when left out, of several runs in the current folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write one HTML page about a run as it stands, or about several.

    It holds all that it shows, asks for nothing from a network, and can be written at any time.
    """
    from penstock.orchestrator.store.run_folder import RunFolder

    folders = [RunFolder.open(run) for run in runs or [None]]
    from penstock.orchestrator.views.report.writing import write

    write(folders, output)


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder that holds run folders.")] = Path("runs"),
    sort: Annotated[str, typer.Option(help="Column to sort by, the smallest or newest first.")] = "age",
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only runs with this value in a column or in the configuration, such as state=failed, name=darcy-* or "
            "model.width=32; may be repeated.",
            metavar="KEY=VALUE",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line and run, instead of a table.")
    ] = False,
) -> None:
    """List the runs of a folder: state, age, problem, model, error, samples and host."""
    from penstock.orchestrator.history.listing import show_runs

    show_runs(folder, sort, where or (), as_json=as_json)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, two or more.", metavar="RUN RUN...")],
) -> None:
    """Show in what runs differ, by configuration and result."""
    from penstock.errors import PenstockError
    from penstock.orchestrator.store.run_folder import RunFolder

    if len(runs) < 2:
        raise PenstockError("compare: give two run folders or more")
    folders = [RunFolder.open(run) for run in runs]
    from penstock.orchestrator.history.comparison import show_differences

    show_differences(folders)


def clean(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders, or their names; all when left out.", metavar="[RUN]...", show_default=False),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only runs that failed, or died without a word.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(help="Only runs that have written nothing for this long, such as 7d or 12h.", show_default=False),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder that holds run folders.")] = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Remove run folders, after showing them; one that waits or runs never is."""
    from penstock.errors import PenstockError
    from penstock.orchestrator.history.cleaning import clean as remove

    if not (runs or failed or older_than):
        raise PenstockError("clean: name run folders, or give --failed or --older-than")
    remove(folder, runs or (), failed=failed, older_than=older_than, is_sure=yes)


def _split(run: Path | None, overrides: list[str] | None) -> tuple[Path | None, tuple[str, ...]]:
    """Run and overrides, where the first argument may already be an override."""
    if run is not None and "=" in run.name and not run.exists():
        return None, (str(run), *(overrides or ()))
    return run, tuple(overrides or ())
