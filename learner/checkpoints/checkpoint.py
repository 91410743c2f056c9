"""Checkpoints on disk: one folder per saved step, either complete or absent.

    <folder>/<step>/weights.safetensors      the surrogate's state: weights and normalisation
                    optimizer.safetensors    newest only: moments and random states
                    buffer.safetensors       newest only: samples
                    optimizer-<r>, buffer-<r>.safetensors    newest only: random state and samples of ranks r >= 1
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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from penstock.errors import PenstockError
from penstock.learner.checkpoints.staging import DOOMED, REPLACED, clear, grant, revoke, taken_over
from penstock.learner.checkpoints.tensors import checksum_of, is_tensor, write_tensors
from penstock.learner.checkpoints.weights import load_weights
from penstock.learner.ranks.group import ALONE, Group

FORMAT = 2
META = "meta.json"


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
    group: Group = ALONE,
) -> Path:
    """Write a checkpoint, read it back, make it the newest, and thin the older ones.

    A step that was saved before is replaced, because samples may have arrived since. Several ranks save together, each
    into the same folder: it holds all of them or none.

    Args:
        folder: folder of the checkpoints.
        step: number of the step.
        weights: tensors, `Rows` and JSON values by name; those of rank 0 are saved.
        optimizer: the same, of the optimizer. What other ranks give replaces for them what rank 0 gives by that name.
        buffer: the same, of this rank's buffer; None to save none.
        meta: JSON of this rank. `validation.relative_l2.mean` of rank 0, if any, decides which checkpoint is the best.
        keep: number of newest checkpoints that stay, besides the best.
        staging: what `grant` has given to the writer; None takes the right to write for this call.
        release: called once, as soon as the buffer may change again.
        group: the ranks that save.

    Returns:
        The folder of the checkpoint, <folder>/<step>.

    Raises:
        PenstockError: the disk refuses or returns something else, on this rank or another, or another writer has the
            right to write. The older checkpoints are then as they were.
    """
    folder, path, is_first = Path(folder), Path(folder) / str(step), group.rank == 0
    granted = staging

    def begin() -> str | None:
        nonlocal granted
        if not is_first:
            return None
        granted = staging or grant(folder)
        clear(granted, folder)  # of a write that failed
        (granted / str(step)).mkdir()
        return str(granted / str(step))

    def write() -> dict:
        parts = {"weights": weights, "optimizer": optimizer} if is_first else {"optimizer": optimizer}
        parts = {_name(part, group.rank): contents for part, contents in parts.items()}
        try:
            files = {} if buffer is None else _written(temporary, {_name("buffer", group.rank): buffer})
        finally:
            release()
        files |= _written(temporary, parts)
        if buffer is not None:
            parts[_name("buffer", group.rank)] = buffer
        values = {
            part: {name: value for name, value in contents.items() if not is_tensor(value)}
            for part, contents in parts.items()
        }
        for part in files:
            _flush(temporary / f"{part}.safetensors")
        answer = {"files": files, "values": values, "meta": dict(meta)}
        for part, expected in files.items():
            if what := _fault(temporary / f"{part}.safetensors", expected):
                raise OSError(what)
        return answer

    def publish() -> None:
        if not is_first:
            return
        text = _text_of(step, said)
        (temporary / META).write_text(text)
        _flush(temporary / META)
        _flush(temporary)
        if (temporary / META).read_text() != text:
            raise OSError(f"{META} was changed")
        if path.exists():
            path.rename(granted / f"{REPLACED}{step}")
        temporary.rename(path)
        _flush(folder)
        shutil.rmtree(granted / f"{REPLACED}{step}", ignore_errors=True)
        _thin(folder, granted, keep)

    try:
        try:
            temporary = Path(group.together(begin)[0])
        except BaseException:
            release()
            raise
        said = group.together(write)
        group.together(publish)
    except OSError as error:
        if staging is not None and not staging.is_dir():
            raise taken_over(folder) from error
        if staging is not None and is_first:
            with suppress(OSError):
                clear(staging, folder)
        reason = error.strerror or error
        raise PenstockError(
            f"can't write the checkpoint of step {step} in {folder}: {reason}; the last one written is still valid",
            exit_code=1,
        ) from error
    finally:
        if staging is None and is_first:
            with suppress(OSError):
                revoke(folder)
    return path


def _name(part: str, rank: int) -> str:
    """The name of a rank's part, and of its file."""
    return part if rank == 0 else f"{part}-{rank}"


def _written(folder: Path, parts: Mapping[str, Mapping]) -> dict[str, dict]:
    return {part: write_tensors(folder, part, contents) for part, contents in parts.items()}


def _text_of(step: int, said: list[dict]) -> str:
    """The JSON of a checkpoint, of what each rank has written."""
    contents = {
        "step": step,
        **{key: {part: value for each in said for part, value in each[key].items()} for key in ("files", "values")},
        "meta": said[0]["meta"],
        "other_ranks": [each["meta"] for each in said[1:]],
    }
    return json.dumps({"format": FORMAT, "crc32": _crc32_of(contents), "contents": contents})


def load(folder: Path, step: int | None = None, *, weights_only: bool = False, group: Group = ALONE) -> Checkpoint:
    """Read a checkpoint and check it against its recorded sizes and checksums.

    Args:
        folder: folder of the checkpoints.
        step: number of the step; None for the newest checkpoint.
        weights_only: whether to leave out optimizer and buffer, which older checkpoints lack.
        group: the ranks that resume, unless it is for the weights only.

    Returns:
        The checkpoint, as it is for this rank.

    Raises:
        PenstockError: there is no such checkpoint, it is damaged, has another format, is of another number of ranks, or
            holds weights alone.
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
    if weights_only:
        weights = _read_part(path, "weights", contents)
        return Checkpoint(path=path, step=step, weights=weights, optimizer=None, buffer=None, meta=contents["meta"])
    metas = [contents["meta"], *contents.get("other_ranks", ())]
    if len(metas) != group.size:
        raise PenstockError(
            f"the checkpoint {path} is of {len(metas)} learner ranks and can't be resumed by {group.size}: resume with "
            "as many"
        )
    if not any((path / f"{part}.safetensors").exists() for part in ("optimizer", "buffer")):
        raise PenstockError(f"the checkpoint {path} holds weights alone: export and predict work, resuming does not")
    optimizer = _read_part(path, "optimizer", contents)
    if group.rank:
        optimizer |= _read_part(path, _name("optimizer", group.rank), contents)
    buffer = _name("buffer", group.rank)
    return Checkpoint(
        path=path,
        step=step,
        weights=_read_part(path, "weights", contents),
        optimizer=optimizer,
        buffer=_read_part(path, buffer, contents) if buffer in contents["files"] else None,
        meta=metas[group.rank],
    )


def _read_part(path: Path, part: str, contents: dict) -> dict:
    return _read_tensors(path, part, contents["files"][part]) | contents["values"][part]


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
    """Keep the newest `keep` and the best; of all but the newest the weights."""
    *older, newest = _steps(folder)
    staying = {newest, *older[max(0, len(older) + 1 - keep) :], best(folder)}
    for step in older:
        if step not in staying:
            # Renamed first, because a removal that is cut short must not leave half a checkpoint.
            doomed = staging / f"{DOOMED}{step}"
            (folder / str(step)).rename(doomed)
            shutil.rmtree(doomed)
        else:
            for file in (folder / str(step)).glob("*.safetensors"):
                if file.stem != "weights":
                    file.unlink()


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
