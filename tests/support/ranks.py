"""Learner ranks in processes, for tests."""

import itertools
import multiprocessing
import pickle
from pathlib import Path

import torch

from penstock.learner.ranks.group import Group

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "penstock.learner.learner", "tests.support.ranks"])  # imported once
NUMBERS = itertools.count()


class Ranks:
    """Processes that run function(group, *arguments) each, and give what it returned or raised.

    Args:
        folder: an empty folder, where they meet.
        function: a module's function.
        arguments: the same for each.
        size: number of ranks.
        timeout_s: of the group.
    """

    def __init__(self, folder: Path, function, *arguments, size=2, timeout_s=120.0):
        self._ends, ends = zip(*(CONTEXT.Pipe(duplex=False) for _ in range(size)), strict=True)
        address = f"file://{folder}/meet-{next(NUMBERS)}"
        self.processes = [
            CONTEXT.Process(target=_run, args=(end, address, rank, size, timeout_s, function, arguments))
            for rank, end in enumerate(ends)
        ]
        for process, end in zip(self.processes, ends, strict=True):
            process.start()
            end.close()

    def said(self, rank: int):
        """What the rank has returned, or the exception that it raised."""
        assert self._ends[rank].poll(120), f"rank {rank} says nothing"
        return pickle.loads(self._ends[rank].recv_bytes())

    def end(self) -> None:
        """Wait until they have ended."""
        for process in self.processes:
            process.join()


def on_ranks(folder: Path, function, *arguments, **options) -> list:
    """What function(group, *arguments) returns on each rank.

    Raises:
        Exception: what it raised on one.
    """
    ranks = Ranks(folder, function, *arguments, **options)
    said = [ranks.said(rank) for rank in range(len(ranks.processes))]
    ranks.end()
    for answer in said:
        if isinstance(answer, Exception):
            raise answer
    return said


def _run(end, address, rank, size, timeout_s, function, arguments):
    torch.set_num_threads(1)
    try:
        group = Group.join(address, rank, size, timeout_s=timeout_s)
        try:
            answer = function(group, *arguments)
        finally:
            group.close()
    except Exception as error:
        answer = error
    end.send_bytes(pickle.dumps(answer))
