"""The commands about what runs have left, such as `report` and `runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
            help="File to write; when left out, report.html in the run folder, or for several runs in the current one.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write one HTML page about a run as it stands, or about several.

    It holds all that it shows, loads nothing from a network, and can be written at any time.
    """
    from penstock.orchestrator.store.run_folder import RunFolder

    folders = [RunFolder.open(run) for run in runs or [None]]
    from penstock.orchestrator.views.report.writing import write

    write(folders, output)


def dashboard(
    path: Annotated[
        Path, typer.Argument(help="Folder that holds run folders, or a run folder.", metavar="[RUN]")
    ] = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for a free one.")] = 0,
) -> None:
    """Serve the reports of runs as live pages to this machine's browsers.

    The address that it prints is needed to open them, and nothing can be changed there. Ctrl-C ends it.
    """
    from penstock.orchestrator.views.dashboard.server import serve

    serve(path, port)


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
    """Show how runs differ, in configuration and results."""
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
