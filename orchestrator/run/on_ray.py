"""Ray for the length of a run, with what it says in a log."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

from penstock.errors import PenstockError
from penstock.orchestrator.cluster.ray_session import Session, noted_signals, ray_session
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.launch.launcher import OUTPUT
from penstock.orchestrator.run.logs import bound_output, log_to, native_stderr_to
from penstock.orchestrator.run.stopping import StopRequests
from penstock.orchestrator.store.run_folder import RunFolder


@contextmanager
def on_ray(
    config: Config,
    folder: RunFolder,
    requests: StopRequests,
    *,
    has_learner: bool = True,
    tell: Callable[[str], None],
) -> Iterator[Session]:
    """Ray for the length of a `with` block, in which this process logs to driver.log.

    Standard output and standard error go there too, so whoever prints must have a console from before.

    Args:
        config: see `ray_session`.
        folder: the run folder.
        requests: handles signals once Ray has started; one that came before ends the start.
        has_learner: see `Split.of`.
        tell: prints a line for the user.

    Yields:
        The session.

    Raises:
        PenstockError: see `ray_session`; or a process of Ray died, whatever error that led to.
        SystemExit: a signal came while Ray started.
    """
    log_to(folder.logs / "driver.log", redirect=False)
    bound_output(folder.logs / OUTPUT)
    # A terminal that is closed sends SIGHUP to the whole group, and Ray's processes must survive it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with (
            (folder.logs / "driver.log").open("a") as log,
            redirect_stdout(log),  # Ray prints when an actor dies, whatever its settings
            native_stderr_to(log),
            noted_signals() as noted,
            ray_session(config, has_learner=has_learner, run=folder, tell=tell) as session,
        ):
            # After ray.init, which sets handlers; its processes inherit SIGHUP blocked.
            requests.handle_signals(session.folder)
            if number := noted():
                raise SystemExit(128 + number)
            try:
                yield session
            except Exception as error:
                if session.watch.fault is None or isinstance(error, PenstockError):
                    raise
                raise PenstockError(session.watch.fault, exit_code=1) from error  # its consequence
    except SystemExit as error:
        # ray.init installs a handler for SIGTERM that exits with the signal's bare number.
        raise SystemExit(143 if error.code == signal.SIGTERM else error.code) from None
