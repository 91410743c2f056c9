"""Starting and ending Ray: private session folder and token, a quiet terminal."""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from penstock.errors import PenstockError, text_of
from penstock.orchestrator.cluster.joined import require_head, require_nodes
from penstock.orchestrator.cluster.leftovers import end_leftovers
from penstock.orchestrator.cluster.nodes import nodes_of
from penstock.orchestrator.cluster.ray_watch import RayWatch, parts_of
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.resources.cores import Split, split_here
from penstock.orchestrator.store.locks import hold
from penstock.orchestrator.store.run_folder import RunFolder

PREFIX = "penstock-"
LOCK = "lock"
STORE_BYTES = 128 * 2**20  # no samples lie in it; Ray refuses less than 75 MB
PR_SET_CHILD_SUBREAPER = 36  # of prctl(2)
START_WITHIN_S = 300  # a loaded machine takes longer than the 30 to 60 s that Ray allows its processes
PATIENCE = {
    "RAY_gcs_server_port_wait_time_s": f"{START_WITHIN_S}",
    "RAY_agent_register_timeout_ms": f"{1000 * START_WITHIN_S}",
    "RAY_worker_register_timeout_seconds": f"{START_WITHIN_S}",
}
# Of each of its logs, which lie in /tmp, Ray by default keeps 512 MB, and five files more of that size. Its control
# service keeps a record of each call of an actor, up to 100,000 of them.
BOUNDS = {
    "RAY_ROTATION_MAX_BYTES": "16000000",
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_task_events_report_interval_ms": "0",
}
# The autoscaler, what copies logs to the driver, and what is left of the dashboard. Each takes more than a second of a
# core to start, and serves nobody in a run.
HELPERS = ("start_monitor", "start_log_monitor", "start_api_server")
# Ray waits for 5 + 5 + 30 s for a cluster that is not there.
IMPATIENCE = {"RAY_gcs_rpc_server_connect_timeout_s": "2", "RAY_py_gcs_connect_timeout_s": "6"}


@contextmanager
def noted_signals() -> Iterator[Callable[[], int | None]]:
    """Note signals to stop while Ray starts. Main thread only.

    A handler can't be relied on then: Ray installs another one, which raises SystemExit, and an exception raised during
    a callback of Python's (after a fork, in a finalizer) is printed and forgotten.

    Yields:
        A function that returns the first SIGINT or SIGTERM received since its last call, or None.
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


def set_environment(address: str | None) -> None:
    """Set the variables that Ray reads when it is first imported.

    To be called before a user's file can import it.

    Args:
        address: the cluster to join; None if the run starts Ray.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_DEDUP_LOGS"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # the future default; unset, Ray prints a warning about it
    os.environ.pop("RAY_ADDRESS", None)  # a run joins a cluster only where its configuration says so
    if address is None:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for name, value in (PATIENCE | BOUNDS if address is None else IMPATIENCE).items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True)
class Session:
    """A running Ray."""

    folder: Path | None
    """Ray's session folder if the run started Ray."""
    watch: RayWatch
    """Watches Ray's processes."""
    split: Split
    """How the CPUs that there are now are shared."""


@contextmanager
def ray_session(config: Config, *, has_learner: bool, run: RunFolder, tell: Callable[[str], None]) -> Iterator[Session]:
    """Ray for the length of a `with` block, in the environment of `set_environment`.

    The session folder is removed at the end; after a fault Ray's logs are first copied to the run's logs/ray.

    Args:
        config: the configuration, which names a running cluster to join, or else Ray is started on this machine.
        has_learner: see `Split.of`.
        run: the run folder.
        tell: prints a line for the user.

    Yields:
        The session.

    Raises:
        PenstockError: Ray does not start, or the cluster lacks something.
    """
    address = config.cluster.address
    tell("starting Ray ..." if address is None else f"joining the Ray cluster at {address} ...")
    import ray

    if address is None:
        _sweep()
        # When a process of Ray dies, its orphans become children of this one, and can be ended.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with _session_folder() if address is None else nullcontext() as folder:
        watch = None
        try:
            if address is None:
                split = split_here(config)
                _start(ray, split.workers, folder)
                watch = _watch(None, tell)
            else:
                _join(ray, address)
                watch = _watch(address, tell)
                nodes = nodes_of(ray)
                split = Split.of(config, nodes, has_learner=has_learner)
                require_nodes(ray, nodes, run.path, tell)
            yield Session(folder, watch, split)
        except BaseException:
            if folder is not None:
                _keep_logs(folder, run.logs / "ray")
            raise
        finally:
            if watch is not None:
                watch.stop()
                if watch.fault and folder is not None:
                    _kill_all()
            ray.shutdown()


def _watch(address: str | None, tell: Callable[[str], None]) -> RayWatch:
    from ray._private.worker import global_worker

    node = global_worker.node
    return RayWatch(parts_of(node.session_name, node.raylet_socket_name), address and node.gcs_address, tell)


def _kill_all() -> None:
    """End every process below this one.

    Ray's shutdown would wait for processes that others, now dead, should have ended.
    """
    children = psutil.Process().children(recursive=True)
    for process in children:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(children, timeout=2.0)


QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}


def _start(ray, num_workers: int, folder: Path) -> None:
    """Start Ray on this machine, with processes that wait for solvers.

    The learner, whose environment differs, would get none of those.
    """
    try:
        with _patience(), _without_helpers():
            ray.init(
                address="local",
                num_cpus=num_workers,  # it starts one for each; actors ask for none, see `solver_options`
                object_store_memory=STORE_BYTES,
                _temp_dir=str(folder),
                include_dashboard=False,
                **QUIET,
            )
    except Exception as error:  # Ray raises a bare Exception if its processes don't start in time
        raise PenstockError(f"Ray does not start on this machine: {text_of(error)}", exit_code=1) from error


def _join(ray, address: str) -> None:
    require_head(address)
    try:
        ray.init(address=address, **QUIET)
    except Exception as error:
        raise PenstockError(
            f"cluster.address: can't join a Ray cluster at {address!r}: {text_of(error)}", exit_code=2
        ) from error


@contextmanager
def _patience() -> Iterator[None]:
    """Within the block, ray.init waits for a living raylet for START_WITHIN_S.

    By default it waits for 30 s.
    """
    from ray._private import services

    get_node = services.get_node

    def get_node_in_time(*arguments):
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            try:
                return get_node(*arguments)
            except RuntimeError:  # it is not registered yet
                if time.monotonic() > deadline or not _raylet_lives():
                    raise
                time.sleep(0.1)

    services.get_node = get_node_in_time
    try:
        yield
    finally:
        services.get_node = get_node


@contextmanager
def _without_helpers() -> Iterator[None]:
    """Within the block, ray.init starts none of HELPERS, for which it has no option."""
    from ray._private.node import Node

    with ExitStack() as stack:
        for name in HELPERS:
            stack.callback(setattr, Node, name, getattr(Node, name))
            setattr(Node, name, lambda *_, **__: None)
        yield


def _raylet_lives() -> bool:
    children = psutil.Process().children()
    return any(child.name() == "raylet" and child.status() != psutil.STATUS_ZOMBIE for child in children)


@contextmanager
def _session_folder() -> Iterator[Path]:
    """A new session folder, locked while this process lives, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))  # short: socket paths end at 107 characters
    with ExitStack() as stack:
        with suppress(OSError):  # on a file system without locks, no sweep removes the folder
            stack.enter_context(hold(folder / ".lock"))
            (folder / ".lock").rename(folder / LOCK)  # so that nobody finds the lock free while this process lives
        try:
            yield folder
        finally:
            end_leftovers(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove the session folders of killed runs, and end what is left of their Rays."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        with suppress(OSError):
            # Another user's folder could be a link to anywhere; a folder without a lock has just been made.
            is_ours = folder.lstat().st_uid == os.getuid() and (folder / LOCK).is_file()
            if is_ours and (lock := hold(folder / LOCK)):
                with lock:
                    end_leftovers(folder)
                    shutil.rmtree(folder, ignore_errors=True)


def _keep_logs(folder: Path, target: Path) -> None:
    with suppress(OSError, shutil.Error):  # on a full disk the fault that led here is the one to report
        for source in folder.glob("session_2*/logs"):
            shutil.copytree(source, target, dirs_exist_ok=True, ignore_dangling_symlinks=True)
