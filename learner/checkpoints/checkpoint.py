"""Checkpoints on disk: one folder per saved step, complete or absent; safetensors and JSON, never pickle.

<folder>/<step>/weights.safetensors      the surrogate's state: weights and normalisation
                optimizer.safetensors    newest only: moments and random states
                buffer.safetensors       newest only: samples
                meta.json                everything that is JSON, and size and CRC-32 of each file

Only the newest one can be resumed from, so a new one is read back from the disk before the one before it is thinned.
Files are written as a stream of blocks and read through memory maps: neither way holds a buffer twice in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from penstock.errors import PenstockError
from penstock.learner.checkpoints.rows import Rows
from penstock.learner.checkpoints.weights import load_weights

FORMAT = 2
META = "meta.json"
RESUME_PARTS = ("optimizer", "buffer")  # what only the newest checkpoint holds
TEMPORARY = ".writing-"
REPLACED = ".replaced-"
BLOCK_BYTES = 1 << 22  # copied, summed and written at a time

DTYPE_NAMES = {  # as safetensors writes them
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class _Damaged(PenstockError):
    """Not what was saved."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was saved at a step."""

    path: Path
    step: int
    weights: dict  # `weights_of` the surrogate
    optimizer: dict | None
    """None when only the weights were asked for."""
    buffer: dict | None
    """None, too, when the buffer was not saved."""
    meta: dict

    def load_into(self, module: nn.Module) -> None:
        """Raises PenstockError when the module's parameters have other names or shapes."""
        try:
            load_weights(module, self.weights)
        except ValueError as error:
            raise PenstockError(
                f"the checkpoint {self.path} is of another model: {error}; use the configuration it was trained with"
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
    release: Callable[[], None] = lambda: None,
) -> Path:
    """Writes <folder>/<step>/, reads it back and makes it the newest, then thins the older ones.

    weights, optimizer, buffer: tensors, `Rows` and JSON values by name. meta: JSON; its `validation.relative_l2.mean`,
    where there is one, decides which checkpoint is the best. keep: how many of the newest stay, besides the best.
    release: called once, as soon as the buffer may change again. A step that was saved before is replaced: samples may
    have come since.

    Raises PenstockError when the disk refuses or returns something else; the older checkpoints are then as they were.
    """
    folder, path = Path(folder), Path(folder) / str(step)
    temporary = folder / f"{TEMPORARY}{step}"
    parts = {"weights": weights, "optimizer": optimizer, **({"buffer": buffer} if buffer is not None else {})}
    values = {
        part: {name: value for name, value in contents.items() if not _is_tensor(value)}
        for part, contents in parts.items()
    }
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            recover(folder)
            for prefix in (TEMPORARY, REPLACED):  # of a writer that was killed
                for leftover in folder.glob(f"{prefix}*"):
                    shutil.rmtree(leftover)
            temporary.mkdir()
            files = {"buffer": _write_tensors(temporary, "buffer", buffer)} if buffer is not None else {}
        finally:
            release()
        for part in ("weights", "optimizer"):
            files[part] = _write_tensors(temporary, part, parts[part])
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
            path.rename(folder / f"{REPLACED}{step}")
        temporary.rename(path)
        _flush(folder)
        shutil.rmtree(folder / f"{REPLACED}{step}", ignore_errors=True)
        _thin(folder, keep)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = error.strerror or error
        raise PenstockError(
            f"can't write the checkpoint of step {step} in {folder}: {reason}; the last one written is still valid",
            exit_code=1,
        ) from error
    return path


class Writer:
    """Saves checkpoints in a thread of its own, one at a time, while training goes on."""

    def __init__(self):
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
        """As the function `save`, but returns once everything is copied that may change from here on.

        `Rows` are not copied: what they name must stay as it is until release(), which the thread calls. A save that
        is under way is waited for. Raises PenstockError when that one failed, after release().
        """
        try:
            self.wait()
            parts = {"weights": weights, "optimizer": optimizer, "buffer": buffer}
            parts = {part: contents if contents is None else _copied(contents) for part, contents in parts.items()}
            stream = _side_stream(buffer or {})
            self._writing = self._thread.submit(
                _save_on, stream, folder, step, **parts, meta=deepcopy(meta), keep=keep, release=release
            )
        except BaseException:
            release()
            raise

    @property
    def is_writing(self) -> bool:
        """Whether a save would have to wait."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        """Until nothing is being written. Raises PenstockError when the last save failed, and only once."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


def _save_on(stream: torch.cuda.Stream | None, folder: Path, step: int, **arguments) -> Path:
    with torch.cuda.stream(stream):
        return save(folder, step, **arguments)


def _side_stream(buffer: Mapping) -> torch.cuda.Stream | None:
    """A stream to read the buffer's device by: on the default one every block would wait for the queued steps."""
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
    """The checkpoint of a step, by default the newest, checked against the sizes and checksums it was saved with.

    weights_only: leave optimizer and buffer, which older checkpoints lack.
    Raises PenstockError when there is none, or it is damaged, or of another format.
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


def recover(folder: Path) -> None:
    """Takes back what a writer had moved aside that was killed between its two renames. No writer may be at work."""
    for replaced in Path(folder).glob(f"{REPLACED}*"):
        path = Path(folder) / replaced.name.removeprefix(REPLACED)
        if not path.exists():
            replaced.rename(path)


def latest(folder: Path) -> int | None:
    """The newest checkpoint's step; None when there is none."""
    steps = _steps(Path(folder))
    return steps[-1] if steps else None


def best(folder: Path) -> int | None:
    """The step of the checkpoint with the least validation error; None when none was validated.

    Damaged ones are passed over, so that export and predict work with what is left. Raises PenstockError when all are.
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


def _thin(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` and the best, and what only the newest needs of those that stay."""
    *older, newest = _steps(folder)
    staying = {newest, *older[max(0, len(older) + 1 - keep) :], best(folder)}
    for step in older:
        if step not in staying:
            # Renamed first: a removal that is cut short must not leave half a checkpoint.
            doomed = folder / f"{TEMPORARY}{step}"
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
        raise _damaged(path, f"its {META} is of step {contents['step']}")
    return contents


def _read_tensors(path: Path, part: str, expected: dict) -> dict[str, Tensor]:
    _check(path, part, expected)
    file = path / f"{part}.safetensors"
    try:
        return load_file(file)
    except OSError as error:
        raise PenstockError(f"can't read {file}: {error.strerror}", exit_code=1) from error
    except SafetensorError as error:
        raise _damaged(path, f"{file.name} is no safetensors file") from error


def _write_tensors(folder: Path, part: str, contents: Mapping) -> dict:
    """Writes <part>.safetensors: the header's length as 8 bytes, the header as JSON, the tensors' bytes without gaps.

    The format is https://github.com/huggingface/safetensors. Returns the file's size and checksum.
    """
    tensors = {name: v if isinstance(v, Rows) else Rows(v) for name, v in contents.items() if _is_tensor(v)}
    # The widest items first, so that each tensor begins at a multiple of its own in a memory map.
    tensors = dict(sorted(tensors.items(), key=lambda named: -named[1].dtype.itemsize))
    header, end = {}, 0
    for name, rows in tensors.items():
        if rows.dtype not in DTYPE_NAMES:
            raise PenstockError(f"{name} is {str(rows.dtype).removeprefix('torch.')}, which safetensors can't hold")
        begin, end = end, end + rows.nbytes
        header[name] = {"dtype": DTYPE_NAMES[rows.dtype], "shape": list(rows.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    checksum = 0
    with (folder / f"{part}.safetensors").open("wb") as file:
        for block in chain([len(text).to_bytes(8, "little"), text], *map(_blocks, tensors.values())):
            file.write(block)
            checksum = zlib.crc32(block, checksum)
        return {"bytes": file.tell(), "crc32": checksum}


def _blocks(rows: Rows) -> Iterator[np.ndarray]:
    """The rows' bytes, uint8, a block at a time; without an index they are read where they lie."""
    if not rows.nbytes:
        return
    tensor = rows.tensor.detach().contiguous()
    if rows.index is None:
        for block in tensor.view(-1).view(torch.uint8).split(BLOCK_BYTES):
            yield block.cpu().numpy()
    elif (row_bytes := rows.nbytes // len(rows.index)) > BLOCK_BYTES:
        for row in rows.index.tolist():
            yield from _blocks(Rows(tensor[row]))
    else:
        bytes_by_row = tensor.view(len(tensor), -1).view(torch.uint8)
        for index in rows.index.split(BLOCK_BYTES // row_bytes):
            if tensor.is_cuda:
                yield bytes_by_row[index.to(tensor.device)].view(-1).cpu().numpy()
            else:  # NumPy gathers in this thread alone and leaves the other cores to training
                yield np.take(bytes_by_row.numpy(), index.numpy(), axis=0).reshape(-1)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor | Rows)


def _check(path: Path, part: str, expected: dict) -> None:
    file = path / f"{part}.safetensors"
    try:
        what = _fault(file, expected)
    except OSError as error:
        raise PenstockError(f"can't read {file}: {error.strerror}", exit_code=1) from error
    if what is not None:
        raise _damaged(path, what)


def _fault(file: Path, expected: dict) -> str | None:
    """What differs from the size and checksum that were written down; None when nothing does."""
    try:
        num_bytes = file.stat().st_size
        if num_bytes != expected["bytes"]:
            return f"{file.name} has {num_bytes} bytes, not {expected['bytes']}"
        return f"{file.name} was changed" if _crc32(file) != expected["crc32"] else None
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


def _crc32(file: Path) -> int:
    checksum, block = 0, memoryview(bytearray(BLOCK_BYTES))
    with file.open("rb", buffering=0) as stream:
        while num_bytes := stream.readinto(block):
            checksum = zlib.crc32(block[:num_bytes], checksum)
    return checksum


def _crc32_of(contents: dict) -> int:
    return zlib.crc32(json.dumps(contents, sort_keys=True).encode())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if path.is_file() and hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # advice: drop it from memory, so that reading it back reads the disk
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
