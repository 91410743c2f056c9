"""Checkpoints on disk: one folder per saved step, either complete or absent.

    <folder>/<step>/weights.safetensors      the surrogate's state: weights and normalisation
                    optimizer.safetensors    newest only: moments and random states
                    buffer.safetensors       newest only: samples
                    meta.json                everything that is JSON, and size and CRC-32 of each file

Nothing is pickled. Only the newest checkpoint can be resumed from, so a new one is read back from the disk before the
previous one is thinned. Files are written as a stream of blocks and read through memory maps: neither way holds a
buffer twice in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from penstock.errors import PenstockError
from penstock.learner.checkpoints.rows import Rows
from penstock.learner.checkpoints.staging import DOOMED, REPLACED, clear, grant, revoke, taken_over
from penstock.learner.checkpoints.tensors import checksum_of, is_tensor, write_tensors
from penstock.learner.checkpoints.weights import load_weights

FORMAT = 2
META = "meta.json"
RESUME_PARTS = ("optimizer", "buffer")  # parts that only the newest checkpoint holds


class _Damaged(PenstockError):
    """A checkpoint is not what was saved."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The contents of a checkpoint, read back from the disk."""

    path: Path
    """Folder of the checkpoint."""
    step: int
    """Number of training steps at which it was saved."""
    weights: dict
    """`weights_of` the surrogate."""
    optimizer: dict | None
    """State of the optimizer; None if only the weights were asked for."""
    buffer: dict | None
    """State of the buffer; None if only the weights were asked for, or the buffer was not saved."""
    meta: dict
    """Everything else, as JSON."""

    def load_into(self, module: nn.Module) -> None:
        """Load the weights into a module.

        Args:
            module: a surrogate like the one that was saved.

        Raises:
            PenstockError: the module's parameters have other names or shapes.
        """
        try:
            load_weights(module, self.weights)
        except ValueError as error:
            raise PenstockError(
                f"the checkpoint {self.path} is from another model: {error}; use the configuration it was trained with"
            ) from error


def save(
    folder: Path,
    step: int,
    *,
    weights: Mapping,
    optimizer: Mapping,
    buffer: Mapping | None,
    meta: Mapping,
    keep: int,
    staging: Path | None = None,
    release: Callable[[], None] = lambda: None,
) -> Path:
    """Write a checkpoint, read it back, make it the newest, and thin the older ones.

    A step that was saved before is replaced, because samples may have arrived since.

    Args:
        folder: folder of the checkpoints.
        step: number of the step.
        weights: tensors, `Rows` and JSON values by name.
        optimizer: the same, of the optimizer.
        buffer: the same, of the buffer; None to save none.
        meta: JSON. Its `validation.relative_l2.mean`, if any, decides which checkpoint is the best.
        keep: number of newest checkpoints that stay, besides the best.
        staging: what `grant` has given to the writer; None takes the right to write for this call.
        release: called once, as soon as the buffer may change again.

    Returns:
        The folder of the checkpoint, <folder>/<step>.

    Raises:
        PenstockError: the disk refuses or returns something else, or another writer has the right to write. The older
            checkpoints are then as they were.
    """
    folder, path = Path(folder), Path(folder) / str(step)
    parts = {"weights": weights, "optimizer": optimizer, **({"buffer": buffer} if buffer is not None else {})}
    values = {
        part: {name: value for name, value in contents.items() if not is_tensor(value)}
        for part, contents in parts.items()
    }
    try:
        try:
            granted = staging or grant(folder)
            clear(granted, folder)  # of a write that failed
            temporary = granted / str(step)
            temporary.mkdir()
            files = {"buffer": write_tensors(temporary, "buffer", buffer)} if buffer is not None else {}
        finally:
            release()
        for part in ("weights", "optimizer"):
            files[part] = write_tensors(temporary, part, parts[part])
        for part in files:
            _flush(temporary / f"{part}.safetensors")
        contents = {"step": step, "files": files, "values": values, "meta": dict(meta)}
        text = json.dumps({"format": FORMAT, "crc32": _crc32_of(contents), "contents": contents})
        (temporary / META).write_text(text)
        _flush(temporary / META)
        _flush(temporary)
        faults = [_fault(temporary / f"{part}.safetensors", expected) for part, expected in files.items()]
        if (temporary / META).read_text() != text:
            faults.append(f"{META} was changed")
        if what := next(filter(None, faults), None):
            raise OSError(what)
        if path.exists():
            path.rename(granted / f"{REPLACED}{step}")
        temporary.rename(path)
        _flush(folder)
        shutil.rmtree(granted / f"{REPLACED}{step}", ignore_errors=True)
        _thin(folder, granted, keep)
    except OSError as error:
        if staging is not None and not staging.is_dir():
            raise taken_over(folder) from error
        if staging is not None:
            with suppress(OSError):
                clear(staging, folder)
        reason = error.strerror or error
        raise PenstockError(
            f"can't write the checkpoint of step {step} in {folder}: {reason}; the last one written is still valid",
            exit_code=1,
        ) from error
    finally:
        if staging is None:
            with suppress(OSError):
                revoke(folder)
    return path


class Writer:
    """Saves checkpoints in a separate thread, one at a time, while training goes on.

    Args:
        staging: see `save`.
    """

    def __init__(self, staging: Path | None = None):
        self._staging = staging
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def save(
        self,
        folder: Path,
        step: int,
        *,
        weights: Mapping,
        optimizer: Mapping,
        buffer: Mapping | None,
        meta: Mapping,
        keep: int,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """Do what the function `save` does, but return once all that may change is copied.

        The arguments are those of the function. `Rows` are not copied: the tensors they refer to must stay as they are
        until release(), which the thread calls. A save that is under way is waited for.

        Raises:
            PenstockError: the save that was waited for has failed. release() was called then too.
        """
        try:
            self.wait()
            parts = {"weights": weights, "optimizer": optimizer, "buffer": buffer}
            parts = {part: contents if contents is None else _copied(contents) for part, contents in parts.items()}
            stream = _side_stream(buffer or {})
            self._writing = self._thread.submit(
                _save_on,
                *(stream, folder, step),
                **parts,
                meta=deepcopy(meta),
                keep=keep,
                staging=self._staging,
                release=release,
            )
        except BaseException:
            release()
            raise

    @property
    def is_writing(self) -> bool:
        """Whether a save would have to wait."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> Path | None:
        """Wait until nothing is being written.

        Returns:
            The checkpoint that was waited for; None if there was none.

        Raises:
            PenstockError: the last save has failed; it is raised only once.
        """
        if self._writing is None:
            return None
        writing, self._writing = self._writing, None
        return writing.result()


def _save_on(stream: torch.cuda.Stream | None, folder: Path, step: int, **arguments) -> Path:
    with torch.cuda.stream(stream):
        return save(folder, step, **arguments)


def _side_stream(buffer: Mapping) -> torch.cuda.Stream | None:
    """A stream to copy the buffer from a GPU; None if it is on the host.

    On the default stream every block would wait for the training steps that are queued there.
    """
    devices = [value.tensor.device for value in buffer.values() if isinstance(value, Rows) and value.tensor.is_cuda]
    if not devices:
        return None
    torch.cuda.synchronize(devices[0])  # puts that are still queued come first
    return torch.cuda.Stream(devices[0])


def _copied(contents: Mapping) -> dict:
    """Copies of the tensors in host memory and of the JSON values; `Rows` as they are."""
    copies = {}
    for name, value in contents.items():
        if isinstance(value, Tensor):
            copy = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda, requires_grad=False)
            copies[name] = copy.copy_(value.detach(), non_blocking=True)
        else:
            copies[name] = value if isinstance(value, Rows) else deepcopy(value)
    for device in {value.device for value in contents.values() if isinstance(value, Tensor) and value.is_cuda}:
        torch.cuda.synchronize(device)
    return copies


def load(folder: Path, step: int | None = None, *, weights_only: bool = False) -> Checkpoint:
    """Read a checkpoint and check it against its recorded sizes and checksums.

    Args:
        folder: folder of the checkpoints.
        step: number of the step; None for the newest checkpoint.
        weights_only: whether to leave out optimizer and buffer, which older checkpoints lack.

    Returns:
        The checkpoint.

    Raises:
        PenstockError: there is no such checkpoint, it is damaged, has another format, or holds weights alone.
    """
    folder = Path(folder)
    if step is None:
        step = latest(folder)
        if step is None:
            raise PenstockError(f"there is no checkpoint in {folder}")
    path = folder / str(step)
    if not path.is_dir():
        raise PenstockError(f"there is no checkpoint of step {step} in {folder}; there are {_steps(folder)}")
    contents = _read_meta(path)
    resume_files = [path / f"{part}.safetensors" for part in RESUME_PARTS if part in contents["files"]]
    if not weights_only and not any(file.exists() for file in resume_files):
        raise PenstockError(f"the checkpoint {path} holds weights alone: export and predict work, resuming does not")
    parts = {"optimizer": None, "buffer": None}
    for part in ["weights"] if weights_only else contents["files"]:
        parts[part] = _read_tensors(path, part, contents["files"][part]) | contents["values"][part]
    return Checkpoint(path=path, step=step, meta=contents["meta"], **parts)


def latest(folder: Path) -> int | None:
    """Return the step of the newest checkpoint; None if there is none."""
    steps = _steps(Path(folder))
    return steps[-1] if steps else None


def best(folder: Path) -> int | None:
    """Return the step of the checkpoint with the smallest validation error.

    Damaged ones are passed over, so that export and predict work with those that are left.

    Args:
        folder: folder of the checkpoints.

    Returns:
        The step; None if no checkpoint was validated.

    Raises:
        PenstockError: all checkpoints are damaged.
    """
    errors, damage = {}, None
    for step in _steps(Path(folder)):
        path = Path(folder) / str(step)
        try:
            contents = _read_meta(path)
            _check(path, "weights", contents["files"]["weights"])
            errors[step] = _validation_error(contents)
        except _Damaged as error:
            damage = error
    if damage is not None and not errors:
        raise damage
    errors = {step: error for step, error in errors.items() if error is not None}
    return min(errors, key=errors.__getitem__) if errors else None


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def _validation_error(contents: dict) -> float | None:
    validation = contents["meta"].get("validation")
    return validation["relative_l2"]["mean"] if validation else None


def _thin(folder: Path, staging: Path, keep: int) -> None:
    """Keep the newest `keep` and the best, and RESUME_PARTS of the newest alone."""
    *older, newest = _steps(folder)
    staying = {newest, *older[max(0, len(older) + 1 - keep) :], best(folder)}
    for step in older:
        if step not in staying:
            # Renamed first, because a removal that is cut short must not leave half a checkpoint.
            doomed = staging / f"{DOOMED}{step}"
            (folder / str(step)).rename(doomed)
            shutil.rmtree(doomed)
        else:
            for part in RESUME_PARTS:
                (folder / str(step) / f"{part}.safetensors").unlink(missing_ok=True)


def _read_meta(path: Path) -> dict:
    try:
        wrapper = json.loads((path / META).read_text())
        if wrapper["format"] != FORMAT:
            raise PenstockError(
                f"the checkpoint {path} has format {wrapper['format']}, this penstock reads {FORMAT}: "
                "use the version that wrote it"
            )
        contents = wrapper["contents"]
        intact = wrapper["crc32"] == _crc32_of(contents)
    except FileNotFoundError:
        raise _damaged(path, f"{META} is missing") from None
    except OSError as error:
        raise PenstockError(f"can't read {path / META}: {error.strerror}", exit_code=1) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"{META} is not what penstock writes") from error
    if not intact:
        raise _damaged(path, f"{META} was changed")
    if contents["step"] != int(path.name):
        raise _damaged(path, f"its {META} is that of step {contents['step']}")
    return contents


def _read_tensors(path: Path, part: str, expected: dict) -> dict[str, Tensor]:
    _check(path, part, expected)
    file = path / f"{part}.safetensors"
    try:
        return load_file(file)
    except OSError as error:
        raise PenstockError(f"can't read {file}: {error.strerror}", exit_code=1) from error
    except SafetensorError as error:
        raise _damaged(path, f"{file.name} is not a safetensors file") from error


def _check(path: Path, part: str, expected: dict) -> None:
    file = path / f"{part}.safetensors"
    try:
        what = _fault(file, expected)
    except OSError as error:
        raise PenstockError(f"can't read {file}: {error.strerror}", exit_code=1) from error
    if what is not None:
        raise _damaged(path, what)


def _fault(file: Path, expected: dict) -> str | None:
    """What differs from a file's recorded size and checksum; None if nothing does."""
    try:
        num_bytes = file.stat().st_size
        if num_bytes != expected["bytes"]:
            return f"{file.name} has {num_bytes} bytes, not {expected['bytes']}"
        return f"{file.name} was changed" if checksum_of(file) != expected["crc32"] else None
    except FileNotFoundError:
        return f"{file.name} is missing"


def _damaged(path: Path, what: str) -> _Damaged:
    step, steps = int(path.name), _steps(path.parent)
    text = f"the checkpoint {path} is damaged: {what}"
    if step == steps[-1]:
        text += "; it can't be resumed from"
        if len(steps) > 1:
            text += f". Older ones in {path.parent} hold weights for export and predict"
    return _Damaged(text)


def _crc32_of(contents: dict) -> int:
    return zlib.crc32(json.dumps(contents, sort_keys=True).encode())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if path.is_file() and hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # drop it from memory, so that reading it back reads the disk
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
