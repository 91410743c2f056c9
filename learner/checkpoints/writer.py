"""Checkpoints written beside training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from penstock.learner.checkpoints.checkpoint import save
from penstock.learner.checkpoints.rows import Rows
from penstock.learner.ranks.group import ALONE, Group


class Writer:
    """Saves checkpoints in a separate thread, one at a time, while training goes on.

    Args:
        staging: see `save`.
        group: the ranks that save, for the thread alone.
    """

    def __init__(self, staging: Path | None = None, group: Group = ALONE):
        self._staging = staging
        self._group = group
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
                group=self._group,
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
