"""The commands of jobs: `penstock launch`, `jobs`, `stop`, `scale` and `logs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock.orchestrator.cli.invocation import Overrides, Run, opened


def launch(
    where: Annotated[str, typer.Argument(help="local, ray, slurm or kuberay.", metavar="WHERE")],
    config: Annotated[Path, typer.Argument(help="YAML file of the run.")],
    overrides: Overrides = None,
    site: Annotated[
        Path | None,
        typer.Option(help="YAML file with the section `launch` of a site.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs, whose seeds follow the configuration's.")] = 1,
    walltime: Annotated[
        str | None,
        typer.Option(help="Time after which it ends with a checkpoint, as 4:00:00.", show_default=False),
    ] = None,
    requeue: Annotated[
        bool, typer.Option("--requeue", help="With slurm: queue the job again until the run has ended.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be submitted, and submit nothing.")
    ] = False,
) -> None:
    """Start a run in the background: here, in a Ray cluster, or by a batch system."""
    from penstock.errors import PenstockError
    from penstock.orchestrator.config.config import load_config
    from penstock.orchestrator.launch import launching

    cls = launching.launcher_class(where)
    given = [f"{cls.WALLTIME}={walltime}"] if walltime else []
    if requeue and cls.REQUEUE is None:
        raise PenstockError(f"--requeue: a run that is launched {where} is not queued again; `launch slurm` does that")
    given += [f"{cls.REQUEUE}=true"] if requeue else []
    loaded = load_config(config, (*(overrides or ()), *given), site)
    if dry_run:
        print(launching.dry_run(loaded, where, seeds), end="")
        return
    for folder, job in launching.launch(loaded, where, seeds):
        name = launching.relative(folder.path)
        print(f"{job.launcher} job {job.id}: {name}")
    print(f"next: penstock jobs, penstock monitor {name}, penstock logs {name}, penstock stop {name}")


def jobs() -> None:
    """List the launched runs under runs/."""
    from penstock.orchestrator.launch.launching import launched
    from penstock.orchestrator.views.terminal.jobs import show_jobs

    show_jobs(list(launched()))


def stop(run: Run = None) -> None:
    """Have a run write a checkpoint and end; a job that still waits is withdrawn."""
    from penstock.orchestrator.launch import launching

    print(launching.stop(opened(run)))


def scale(
    run: Run = None,
    solvers: Annotated[int, typer.Option(min=1, help="Number of solver workers.", show_default=False)] = ...,
) -> None:
    """Change the number of solver workers of a run that is going.

    Workers that are too many end with the leases that they have.
    """
    from penstock.orchestrator.store.requests import ask_for_workers

    folder = opened(run)
    ask_for_workers(folder, solvers)
    print(
        f"asked {folder.path.name} for {solvers} solver worker{'s' if solvers > 1 else ''}: it answers where it prints"
    )


def logs(
    run: Run = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run is over.")] = False,
    why: Annotated[bool, typer.Option("--why", help="Say instead what came first in a failure.")] = False,
) -> None:
    """Print the logs of all processes of a run by time.

    Its events and what its job printed are among them.
    """
    from penstock.orchestrator.history.why import why as first_cause
    from penstock.orchestrator.launch import launching
    from penstock.orchestrator.store.run_folder import RunFolder

    folder = RunFolder.open(run)  # an error of this command has no place in a log that it reads
    if why:
        print(first_cause(folder))
        return
    try:
        launching.follow(folder, lambda text: print(text, end="", flush=True), to_the_end=follow)
    except BrokenPipeError:  # `| head` has seen enough; Python would complain when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
