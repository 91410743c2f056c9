"""Starting and ending Ray quietly: own session folder, own token, no output on the user's terminal."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from penstock.errors import PenstockError
from penstock.orchestrator.locks import hold

PREFIX = "penstock-"
LOCK = "lock"
STORE_MINIMUM = 128 * 2**20  # Ray refuses less than 75 MB


@contextmanager
def noted_signals() -> Iterator[Callable[[], int | None]]:
    """Within the block the function that it yields gives the first signal to stop that came since it was last called.

    A handler can't be relied on while Ray starts: Ray sets one of its own, which raises SystemExit, and where a signal
    meets a callback of Python's (after a fork, of a finalizer) an exception is printed and forgotten. Main thread only.
    """
    receiving, sending = socket.socketpair()
    with receiving, sending:
        receiving.setblocking(False)
        sending.setblocking(False)
        before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)

        def first() -> int | None:
            try:
                numbers = receiving.recv(4096)
            except BlockingIOError:
                return None
            return next((number for number in numbers if number in (signal.SIGINT, signal.SIGTERM)), None)

        try:
            yield first
        finally:
            signal.set_wakeup_fd(before)


@contextmanager
def ray_session(address: str | None, *, num_cpus: int, bytes_in_flight: int, logs: Path) -> Iterator[Path | None]:
    """Ray for the length of a `with` block; yields its session folder, if it has one here.

    address: a running cluster to join; None starts Ray on this machine. On a clean end the session folder is removed;
    otherwise Ray's own logs are first moved to `logs`/ray. Raises PenstockError when Ray does not start, or when
    `bytes_in_flight` could fill half of the object store (Ray would then spill to disk).
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_DEDUP_LOGS"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # the future default; unset, Ray prints a warning about it
    os.environ.pop("RAY_ADDRESS", None)  # a run joins a cluster only where its configuration says so
    if address is None:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        _sweep()
    import ray  # after the token is set: Ray reads it when it is first imported

    with _session_folder() if address is None else nullcontext() as folder:
        try:
            _start(ray, address, num_cpus, bytes_in_flight, folder)
            store = int(ray.cluster_resources().get("object_store_memory", 0))
            if bytes_in_flight > store / 2:
                raise PenstockError(
                    f"up to {bytes_in_flight / 1e6:.0f} MB would be in flight, more than half of Ray's object store "
                    f"({store / 1e6:.0f} MB): lower solver.workers, or give the machine more /dev/shm"
                )
            yield folder
        except BaseException:
            if folder is not None:
                _keep_logs(folder, logs / "ray")
            raise
        finally:
            ray.shutdown()


def _start(ray, address: str | None, num_cpus: int, bytes_in_flight: int, folder: Path | None) -> None:
    quiet = {"log_to_driver": False, "include_dashboard": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                object_store_memory=max(STORE_MINIMUM, 4 * bytes_in_flight),
                _temp_dir=str(folder),
                **quiet,
            )
        else:
            quiet.pop("include_dashboard")
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        what = (
            "Ray does not start on this machine"
            if address is None
            else f"cluster.address: can't join a Ray cluster at {address!r}"
        )
        reason = str(error).strip().splitlines()[0]
        raise PenstockError(f"{what}: {reason}", exit_code=1 if address is None else 2) from error


@contextmanager
def _session_folder() -> Iterator[Path]:
    """A new session folder, locked by this process as long as it lives, and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))  # short: socket paths end at 107 characters
    with ExitStack() as stack:
        with suppress(OSError):  # where there are no locks, no sweep takes the folder
            stack.enter_context(hold(folder / ".lock"))
            (folder / ".lock").rename(folder / LOCK)  # so that nobody finds it unlocked while we live
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove the session folders of runs that were killed: those whose lock nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        with suppress(OSError):
            # What another user made could lead anywhere; a folder without a lock has just been made.
            is_ours = folder.lstat().st_uid == os.getuid() and (folder / LOCK).is_file()
            if is_ours and (lock := hold(folder / LOCK)):
                with lock:
                    shutil.rmtree(folder, ignore_errors=True)


def _keep_logs(folder: Path, target: Path) -> None:
    with suppress(OSError, shutil.Error):  # on a full disk the fault that led here is the one to tell
        for source in folder.glob("session_2*/logs"):
            shutil.copytree(source, target, dirs_exist_ok=True, ignore_dangling_symlinks=True)
