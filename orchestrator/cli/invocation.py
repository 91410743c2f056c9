"""What a call of the command line is about: its arguments and its log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.orchestrator.store.run_folder import RunFolder
    from penstock.orchestrator.views.terminal.screen import Form

Run = Annotated[
    Path | None, typer.Argument(help="Run folder; the latest under runs/ when left out.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value, laid over the configuration.", metavar="[KEY=VALUE]...", show_default=False),
]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line, for scripts.")]


class Invocation:
    """The call that this process serves."""

    debug = False
    owns_process = False
    """False where tests call commands."""
    log: Path | None = None
    """Log of the current run, which receives the traceback of an error."""


def opened(run: Path | None) -> RunFolder:
    """The folder of a run.

    Its log gets the traceback of an error from here on. Raises PenstockError.
    """
    from penstock.orchestrator.store.run_folder import RunFolder

    folder = RunFolder.open(run)
    remember_log(folder)
    return folder


def remember_log(folder: RunFolder) -> None:
    """Note the log that gets the traceback of an error."""
    Invocation.log = folder.logs / "driver.log"


def form_of(quiet: bool, as_json: bool) -> Form:
    """What a command prints on standard output.

    Raises PenstockError where both are asked for.
    """
    from penstock.orchestrator.views.terminal.screen import Form

    if quiet and as_json:
        raise PenstockError("--quiet and --json: give one of them")
    return Form.QUIET if quiet else Form.JSON if as_json else Form.PEOPLE
