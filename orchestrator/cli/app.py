"""The command line.

Arguments are parsed before anything heavy is imported, because `penstock --help` must answer at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.errors import PenstockError, describe
from penstock.orchestrator.cli.bench import Overrides, bench
from penstock.orchestrator.cli.problems import generate, problems
from penstock.orchestrator.views.output import Output

app = typer.Typer(
    name="penstock",
    help="Online training of neural operators from live PDE solvers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(bench, name="bench")
app.add_typer(problems, name="problems")

Run = Annotated[
    Path | None, typer.Argument(help="Run folder; the latest under runs/ when left out.", show_default=False)
]


TRACEBACKS = "penstock.solvers.worker"  # the logger of failed simulations; importing its module takes a while


class _State:
    debug = False
    owns_process = False  # False where tests call commands
    log: Path | None = None  # log of the current run, which receives the traceback of an error


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and of failed simulations.")
    ] = False,
) -> None:
    _State.debug = debug
    if _State.owns_process and not debug:
        # A command that solves in this process has no log for the traceback of each failed simulation.
        logging.getLogger(TRACEBACKS).setLevel(logging.CRITICAL)


@app.command()
def train(config: Annotated[Path, typer.Argument(help="YAML file of the run.")], overrides: Overrides = None) -> None:
    """Train a surrogate while its solvers run."""
    from penstock.orchestrator.config.config import load_config

    loaded = load_config(config, tuple(overrides or ()))  # before torch is imported: a typo is reported at once
    from penstock.orchestrator.run.driver import start

    start(loaded, on_folder=_remember_log)


@app.command()
def resume(run: Run = None, overrides: Overrides = None) -> None:
    """Resume a stopped or broken run from its newest checkpoint."""
    run, overrides = _split(run, overrides)
    folder = _open(run)
    from penstock.orchestrator.run.driver import resume as go_on

    go_on(folder, overrides, on_folder=_remember_log)


@app.command()
def monitor(run: Run = None) -> None:
    """Watch a run, live or finished, from any terminal."""
    from penstock.orchestrator.views.monitor import Screen
    from penstock.orchestrator.views.monitor import monitor as watch

    raise typer.Exit(watch(_open(run), Screen()))


@app.command()
def export(
    run: Run = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write; <run>.pt2 in the run folder when left out.", show_default=False)
    ] = None,
) -> None:
    """Write the surrogate as one file that torch alone can load."""
    folder = _open(run)
    from penstock.orchestrator.cli.export import export as write

    write(folder, output)


@app.command()
def predict(
    run: Run = None,
    num: Annotated[int, typer.Option(min=1, help="Number of draws; none was trained on.")] = 4,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write; <run>/predictions when left out.", show_default=False)
    ] = None,
) -> None:
    """Solve new draws and predict them, for a store, errors and a picture.

    The picture has up to 8 rows, spread evenly from the first sample to the last, with truth, prediction and error of
    every output.
    """
    folder = _open(run)
    from penstock.orchestrator.cli.predict import predict as write

    write(folder, num, output)


app.command()(generate)


@app.command()
def models() -> None:
    """List the models that come with penstock."""
    from penstock.orchestrator.cli.listing import show_models

    show_models()


@app.command()
def doctor() -> None:
    """Report what is installed, what is missing, and how to get it."""
    from penstock.orchestrator.cli.doctor import examine

    raise typer.Exit(examine())


def _open(run: Path | None):
    from penstock.orchestrator.store.run_folder import RunFolder

    folder = RunFolder.open(run)
    _remember_log(folder)
    return folder


def _remember_log(folder) -> None:
    _State.log = folder.logs / "driver.log"


def _split(run: Path | None, overrides: list[str] | None) -> tuple[Path | None, tuple[str, ...]]:
    """Run and overrides, where the first argument may already be an override."""
    if run is not None and "=" in run.name and not run.exists():
        return None, (str(run), *(overrides or ()))
    return run, tuple(overrides or ())


def run() -> None:
    """Run the command line.

    An expected fault is reported in one line; any other also names the place of its traceback.
    """
    _open_closed_streams()
    _State.owns_process = True
    for number in (signal.SIGINT, signal.SIGTERM):  # until a run sets handlers that end it in order
        signal.signal(number, _leave)
    try:
        app()
    except PenstockError as error:
        _end(error, str(error), error.exit_code)
    except Exception as error:
        where = f"in {_State.log}" if _State.log else "shown by `penstock --debug ...`"
        _end(error, f"{describe(error)}; full traceback {where}", 1)


def _open_closed_streams() -> None:
    """Open standard streams that are closed (`>&-`) on the null device.

    Otherwise files of the run would get their descriptors.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # each gets the lowest free descriptor
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  open as long as the process lives


def _leave(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def _end(error: BaseException, message: str, exit_code: int) -> None:
    if _State.log is not None:
        with (
            suppress(OSError),
            _State.log.open("a", errors="backslashreplace") as log,
        ):  # on a full disk the message must still be printed
            traceback.print_exception(error, file=log)
    output = Output(sys.stderr)
    if _State.debug:
        output.write("".join(traceback.format_exception(error)))
    output.write(f"penstock: {message}\n")
    output.drain()
    sys.exit(exit_code)
