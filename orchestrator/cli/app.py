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
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from penstock.errors import PenstockError, describe
from penstock.orchestrator.cli import history, jobs, runs
from penstock.orchestrator.cli.bench.commands import bench
from penstock.orchestrator.cli.catalogue.commands import generate, models, problems
from penstock.orchestrator.cli.invocation import Invocation
from penstock.orchestrator.views.terminal.output import Output

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
app.add_typer(models, name="models")

TRACEBACKS = "penstock.solvers.worker"  # the logger of failed simulations; importing its module takes a while


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and of failed simulations.")
    ] = False,
) -> None:
    Invocation.debug = debug
    if Invocation.owns_process and not debug:
        # A command that solves in this process has no log for the traceback of each failed simulation.
        logging.getLogger(TRACEBACKS).setLevel(logging.CRITICAL)


for command in (
    *(runs.train, runs.resume, runs.monitor, runs.export, runs.predict, generate),
    *(history.report, history.dashboard, history.runs, history.compare, history.clean),
    *(jobs.launch, jobs.jobs, jobs.stop, jobs.scale, jobs.logs),
):
    app.command()(command)


@app.command()
def doctor() -> None:
    """Report what is installed, what is missing, and how to get it."""
    from penstock.orchestrator.cli.doctor import examine

    raise typer.Exit(examine())


def run() -> None:
    """Run the command line.

    An expected fault is reported in one line; any other also names the place of its traceback.
    """
    _open_closed_streams()
    Invocation.owns_process = True
    for number in (signal.SIGINT, signal.SIGTERM):  # until a run sets handlers that end it in order
        signal.signal(number, _leave)
    try:
        app()
    except PenstockError as error:
        _end(error, str(error), error.exit_code)
    except Exception as error:
        where = f"in {Invocation.log}" if Invocation.log else "shown by `penstock --debug ...`"
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
    if Invocation.log is not None:
        with (
            suppress(OSError),
            Invocation.log.open("a", errors="backslashreplace") as log,
        ):  # on a full disk the message must still be printed
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
            log.write(f"{now}Z ERROR {__name__}: penstock {' '.join(sys.argv[1:2])} ends\n")
            traceback.print_exception(error, file=log)
    output = Output(sys.stderr)
    if Invocation.debug:
        output.write("".join(traceback.format_exception(error)))
    output.write(f"penstock: {message}\n")
    output.drain()
    sys.exit(exit_code)
