"""The group of learner ranks, and what its members say to each other.

Axes:  R ranks, K values.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from penstock.errors import PenstockError

TIMEOUT_S = 600.0  # to compile a step, or to evaluate a whole validation set, takes one rank minutes
WRITE_TIMEOUT_S = 7200.0  # a buffer of 100 GB on a slow disk

T = TypeVar("T")


def keep_to_this_machine() -> None:
    """Have groups that this process joins connect through the loopback alone.

    Neither gloo nor NCCL authenticates who connects.
    """
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}


class RankLost(PenstockError):
    """Another rank has ended, or says nothing."""


class Group:
    """The ranks of a learner.

    Alone, with `size` 1, nothing is sent and no process group exists.

    Every rank calls the same methods in the same order. What a method returns is the same on all ranks to the bit,
    because it is put together from the same values in the order of the ranks. Values for decisions travel by gloo, from
    host to host, so that no rank waits for its GPU to decide; tensors on GPUs travel by NCCL.

    A rank that ends closes its connections, of which the others hear at once. One that hangs is given up after a
    timeout. Both raise RankLost, after which the group is of no use.

    Args:
        rank: number of this process, from 0.
        size: number of ranks.
        process_group: torch's group; None for its default group, or if alone.
        timeout_s: how long it waits for a rank, for messages.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, process_group: dist.ProcessGroup | None = None, timeout_s: float = TIMEOUT_S
    ):
        self.rank = rank
        self.size = size
        self._process_group = process_group
        self._timeout_s = timeout_s

    @classmethod
    def join(
        cls, address: str, rank: int, size: int, device: torch.device | str = "cpu", timeout_s: float = TIMEOUT_S
    ) -> Group:
        """Meet the other ranks. A process can be in one such group at a time.

        Args:
            address: where they meet, a new one for each group: file:///path of a file that does not exist yet, or
                tcp://host:port of rank 0.
            rank: number of this process, from 0.
            size: number of ranks, at least 2.
            device: the training device, for each rank another one if it is a GPU.
            timeout_s: how long to wait for a rank that says nothing.

        Returns:
            The group.

        Raises:
            RankLost: the others did not come in time.
        """
        device = torch.device(device)
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        group = cls(rank, size, timeout_s=timeout_s)
        with group._watched():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                init_method=address,
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=timeout_s),
            )
        return group

    def branch(self) -> Group:
        """Return a group of the same ranks for another thread.

        It waits for WRITE_TIMEOUT_S.
        """
        if self.size == 1:
            return self
        with self._watched():
            process_group = dist.new_group(backend="gloo", timeout=timedelta(seconds=WRITE_TIMEOUT_S))
        return Group(self.rank, self.size, process_group, WRITE_TIMEOUT_S)

    def close(self) -> None:
        """Leave: ranks that wait for this one raise RankLost. It ends the branches too."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    # What the ranks say

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Return the values of all ranks.

        Args:
            values: K values of this rank; every rank gives as many.

        Returns:
            The values, float64 [R, K].

        Raises:
            RankLost: a rank is gone.
        """
        own = torch.tensor([values], dtype=torch.float64)
        return self._gathered(own).numpy()

    def gather_json(self, value: Any) -> list:
        """Return a value of each rank.

        Args:
            value: this rank's, as JSON.

        Returns:
            The values by rank.

        Raises:
            RankLost: a rank is gone.
        """
        if self.size == 1:
            return [value]
        text = json.dumps(value).encode()
        sizes = self.gather([len(text)])[:, 0].astype(int)
        own = torch.zeros(1, sizes.max(), dtype=torch.uint8)
        own[0, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        rows = self._gathered(own).numpy()
        return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def together(self, action: Callable[[], T]) -> list[T]:
        """Do something on each rank. Where it fails on one it fails on all.

        Args:
            action: what to do; it returns JSON.

        Returns:
            What it returned, by rank.

        Raises:
            Exception: what the action raised on this rank.
            OSError: it raised something on another rank.
            RankLost: a rank is gone.
        """
        if self.size == 1:
            return [action()]
        try:
            answer, error = action(), None
        except Exception as raised:  # the others wait for an answer
            answer, error = None, raised
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        said = self.gather_json([answer, error is not None, getattr(error, "errno", None), what])
        if error is not None:
            raise error
        for rank, (_, failed, number, what) in enumerate(said):
            if failed:
                raise OSError(number, f"rank {rank}: {what}")
        return [answer for answer, *_ in said]

    # Tensors

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over the ranks.

        Args:
            tensors: real tensors, of the same shapes and types on each rank; they are changed in place.

        Raises:
            RankLost: a rank is gone.
        """
        if self.size == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            own = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in own])
            with self._watched():
                dist.all_reduce(flat, group=self._process_group)
            parts = flat.split([tensor.numel() for tensor in own])
            for tensor, part in zip(own, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of rank 0.

        Args:
            tensors: dense tensors, of the same shapes and types on each rank; they are changed in place.

        Raises:
            RankLost: a rank is gone.
        """
        if self.size == 1:
            return
        for tensor in tensors:
            whole = tensor.contiguous()
            with self._watched():
                dist.broadcast(torch.view_as_real(whole) if whole.is_complex() else whole, 0, self._process_group)
            tensor.copy_(whole)

    def _gathered(self, own: Tensor) -> Tensor:
        """Rows of all ranks, [R, K], of this rank's, [1, K]."""
        if self.size == 1:
            return own
        rows = [torch.empty_like(own) for _ in range(self.size)]
        with self._watched():
            dist.all_gather(rows, own, self._process_group)
        return torch.cat(rows)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:  # ValueError: the group was closed by this rank
            line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            reason = re.sub(r"^\[[^]]*\] ", "", line).partition(". ")[0]  # without place in gloo's code and its advice
            raise RankLost(
                f"learner rank {self.rank} of {self.size} ends, because another rank has ended or has said nothing for "
                f"{self._timeout_s:g} s ({reason})",
                exit_code=1,
            ) from error


ALONE = Group()
"""The only rank there is."""
