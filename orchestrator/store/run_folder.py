"""The run folder: what a run leaves on disk, and all that `monitor` reads."""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import yaml

from penstock import __version__
from penstock.errors import PenstockError
from penstock.files.patience import Patience
from penstock.machine import description, identity_of
from penstock.orchestrator.config.config import Config, load_config, with_files
from penstock.orchestrator.store.events import require_known
from penstock.orchestrator.store.locks import hold, is_held
from penstock.orchestrator.store.thinning import EVENT_BYTES, bound_lines, thinned_events

RUNS = Path("runs")
ROOM_BYTES = 65536  # kept on the disk for the last words of a run: a run.json, an event and a traceback


class RunFolder:
    """Paths and small files of one run.

    config.yaml (resolved), run.json (state, pids, addresses, cause of the end), metrics.jsonl, events.jsonl,
    ledger.json, strategies.json, logs/, validation.zarr, checkpoints/, summary.json, and copies of the user's files.

    Args:
        path: the folder, as an absolute path.
    """

    def __init__(self, path: Path):
        self.path = path
        self.logs = path / "logs"
        self.checkpoints = path / "checkpoints"
        self.validation = path / "validation.zarr"
        self.patience = Patience(lambda line: None, 0.0)
        """For how long refused writes are tried again: not at all, except by the run's driver."""
        self.metrics = path / "metrics.jsonl"
        self.events = path / "events.jsonl"

    @classmethod
    def create(cls, config: Config, *, is_latest: bool = True) -> RunFolder:
        """Make a folder runs/<name>-<UTC>, with runs/latest linking to it.

        Args:
            config: the configuration, which is written into it.
            is_latest: whether to link to it; commands would take it for a run that trains.

        Returns:
            The new folder.

        Raises:
            PenstockError: it can't be made.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        try:
            RUNS.mkdir(exist_ok=True)
            path = _make_unique(RUNS / f"{config.name}-{stamp}")
            folder = cls(path.resolve())
            folder.logs.mkdir()
            if is_latest:
                link = RUNS / f".latest-{os.getpid()}"
                link.symlink_to(path.name)
                link.replace(RUNS / "latest")
        except OSError as error:
            raise PenstockError(
                f"can't make a run folder under {RUNS.resolve()}: {error.strerror}", exit_code=1
            ) from error
        folder.write_config(config)
        return folder

    @classmethod
    def open(cls, path: Path | None) -> RunFolder:
        """Find the folder of a run.

        Args:
            path: the folder; None for runs/latest.

        Returns:
            The folder.

        Raises:
            PenstockError: there is no run folder there, or it can't be read.
        """
        if path is None:
            path = RUNS / "latest"
            if not path.exists():
                raise PenstockError(
                    f"there is no run under {RUNS.resolve()}: name its folder, or start one with `penstock train`"
                )
        try:
            is_run = (path / "config.yaml").is_file()
        except OSError as error:  # of another user
            raise PenstockError(f"{path} can't be read: {error.strerror}") from error
        if not is_run:
            raise PenstockError(f"{path} is not a run folder: it has no config.yaml")
        return cls(path.resolve())

    def config(self, overrides: tuple[str, ...] = ()) -> Config:
        """The recorded configuration, with overrides laid over it; see `load_config`."""
        return load_config(self.path / "config.yaml", overrides)

    def read(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the folder.

        Args:
            name: name of the file.

        Returns:
            Its content; {} if the file does not exist.

        Raises:
            PenstockError: the file is damaged, or can't be read.
        """
        try:
            content = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PenstockError(f"{self.path / name} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise PenstockError(f"{self.path / name} is damaged: {error}") from error
        if not isinstance(content, dict):
            raise PenstockError(f"{self.path / name} is damaged: it holds no mapping")
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Replace a JSON file as a whole, so that no reader sees half of it.

        Args:
            name: name of the file.
            content: its content.

        Raises:
            PenstockError: it can't be written.
        """
        temporary, text = self.path / f".{name}", json.dumps(content, indent=1) + "\n"

        def replace() -> None:
            temporary.write_text(text)
            temporary.replace(self.path / name)

        self._patiently(name, replace)

    def take(self, name: str) -> dict[str, Any] | None:
        """Read a JSON file of the folder and remove it, whole and once.

        Args:
            name: name of the file.

        Returns:
            Its content; None if there is no such file.

        Raises:
            PenstockError: the file is damaged.
        """
        taken = f".taken-{name}"
        try:
            (self.path / name).rename(self.path / taken)
        except OSError:
            return None
        content = self.read(taken)
        (self.path / taken).unlink(missing_ok=True)
        return content

    def append(self, name: str, content: dict[str, Any]) -> None:
        """Append one line to a .jsonl file.

        Args:
            name: name of the file.
            content: the line.

        Raises:
            PenstockError: it can't be written.
        """
        line = json.dumps(content).encode() + b"\n"

        def append() -> None:
            with (self.path / name).open("ab", buffering=0) as file:
                end, left = file.tell(), line
                try:
                    while left:  # a full disk takes a part first
                        left = left[file.write(left) :]
                except OSError:
                    file.truncate(end)
                    raise

        self._patiently(name, append)

    def _patiently(self, name: str, write: Callable[[], None]) -> None:
        def attempt() -> None:
            try:
                write()
            except OSError as error:
                raise PenstockError(
                    f"can't write {self.path / name}: {error.strerror}; the last checkpoint is still valid, resume "
                    "from it when there is space",
                    exit_code=1,
                ) from error

        self.patience.write(attempt)

    def hold(self) -> AbstractContextManager:
        """Hold the folder for one driver alone.

        Returns:
            A context manager that releases the folder.

        Raises:
            PenstockError: another driver has it.
        """
        try:  # this file exists, and is never replaced by another one
            lock = None if self.driver_here() is not None else hold(self.path / "config.yaml")
        except OSError:  # a folder of another user, or a file system without locks
            lock = nullcontext()
        if lock is None:
            raise PenstockError(f"{self.path} is running: stop it first, or watch it with `penstock monitor`")
        return lock

    def is_running(self) -> bool:
        """Whether a driver has this folder, here, in another container or on another host.

        Nothing is written, so it may be another user's, or on a disk that is read-only.
        """
        if self.read("run.json").get("state") != "running":
            return False
        return self.driver_here() is not None or is_held(self.path / "config.yaml")

    def driver_here(self) -> psutil.Process | None:
        """The driver that run.json names, while it runs on this host.

        Its process id alone is not enough, because another process may have it by now.
        """
        run = self.read("run.json")
        try:
            driver = psutil.Process(run["driver_pid"])
            is_same = identity_of(driver.pid) == run["driver_identity"] and run["state"] == "running"
            return driver if is_same and driver.status() != psutil.STATUS_ZOMBIE else None
        except (KeyError, psutil.NoSuchProcess):
            return None

    def begin(self, metrics: str) -> None:
        """Record that this process drives the run from now on.

        Args:
            metrics: address of the run's metrics.
        """
        self.update_run(
            state="running",
            host=socket.gethostname(),
            driver_pid=os.getpid(),
            driver_identity=identity_of(os.getpid()),
            machine=description(),
            metrics=metrics,
            penstock=__version__,
            versions={"python": platform.python_version()} | {n: version(n) for n in ("ray", "torch", "numpy")},
            cause=None,
        )
        self.event("started", pid=os.getpid(), host=socket.gethostname(), penstock=__version__)

    def update_run(self, **changes: Any) -> None:
        """Change entries of run.json."""
        self.write("run.json", self.read("run.json") | changes)

    def keep_room(self) -> None:
        """Take some room on the disk, for `fail` on a full one."""
        with suppress(OSError):
            (self.path / ".room").write_bytes(bytes(ROOM_BYTES))

    def free_room(self) -> None:
        """Give the room back."""
        with suppress(OSError):
            (self.path / ".room").unlink(missing_ok=True)

    def fail(self, cause: str) -> None:
        """Record that the run has failed, as well as the disk allows.

        Args:
            cause: why, in a line; it is the one to report, and not what becomes of this record.
        """
        self.patience.end()
        self.free_room()
        with suppress(PenstockError):
            self.update_run(state="failed", cause=cause)
        with suppress(PenstockError):
            self.event("failed", cause=cause)

    def event(self, event: str, **details: Any) -> None:
        """Append an event to events.jsonl, with the time, within the file's bound.

        Args:
            event: what happened, a key of `events.EVENTS`.
            **details: further entries of the line, as they are listed there.

        Raises:
            PenstockError: it can't be written.
        """
        require_known(event, details)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.append("events.jsonl", {"time": now, "event": event} | details)
        bound_lines(self.events, EVENT_BYTES, thinned_events)

    def write_config(self, config: Config) -> None:
        """Write config.yaml, and beside it copies of the files it names."""

        def copied(key: str, file: str) -> str:
            source = Path(file)
            copy = source if source.parent == self.path else self.path / f"{key}_{source.name}"
            copy.write_text(source.read_text())
            return f"./{copy.name}"

        values = with_files(config, copied).model_dump(mode="json")
        (self.path / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def _make_unique(path: Path) -> Path:
    for candidate in _candidates(path):
        with suppress(FileExistsError):
            candidate.mkdir()
            return candidate


def _candidates(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1
