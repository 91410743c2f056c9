"""What ranks say arrives at all of them alike, and a rank that ends or hangs is no secret for long."""

import os
import signal

import numpy as np
import pytest
import torch

from penstock.learner.ranks.group import ALONE, RankLost
from tests.support.ranks import Ranks, on_ranks


def say(group):
    branch = group.branch()
    total = [torch.full((2, 3), 1.0 + group.rank), torch.tensor([group.rank], dtype=torch.float64)]
    group.add_up(total)
    first = [torch.full((2,), 1j * (1 + group.rank)), torch.tensor([group.rank == 0])]
    group.copy_first(first)
    return {
        "numbers": group.gather([group.rank, 0.1]),
        "texts": branch.gather_json({"ü" * (1 + 2 * group.rank): group.rank}),
        "sums": [tensor.numpy() for tensor in total],
        "first": [tensor.numpy() for tensor in first],
    }


def test_all_ranks_get_the_same(tmp_path):
    said = on_ranks(tmp_path, say, size=3)
    np.testing.assert_equal(said[1], said[0])
    np.testing.assert_equal(said[2], said[0])
    np.testing.assert_array_equal(said[0]["numbers"], [[0, 0.1], [1, 0.1], [2, 0.1]])
    assert said[0]["texts"] == [{"ü": 0}, {"üüü": 1}, {"üüüüü": 2}]
    np.testing.assert_array_equal(said[0]["sums"][0], np.full((2, 3), 6.0))
    np.testing.assert_array_equal(said[0]["sums"][1], [3.0])
    np.testing.assert_array_equal(said[0]["first"][0], [1j, 1j])
    assert said[0]["first"][1].item()


def test_alone_there_is_nobody_to_ask():
    tensor = torch.ones(2)
    ALONE.add_up([tensor])
    ALONE.copy_first([tensor])
    assert ALONE.branch() is ALONE
    np.testing.assert_array_equal(ALONE.gather([1, 2]), [[1, 2]])
    assert ALONE.gather_json("x") == ["x"] and ALONE.together(lambda: 3) == [3]
    assert torch.equal(tensor, torch.ones(2)) and not torch.distributed.is_initialized()
    ALONE.close()


def fail_on_one(group):
    def work():
        if group.rank == 1:
            raise OSError(28, "the disk is full")
        return group.rank

    try:
        group.together(work)
    except OSError as error:
        return error.strerror, error.errno, group.together(lambda: group.rank)  # the group is still of use


def test_what_fails_on_one_rank_fails_on_all(tmp_path):
    assert on_ranks(tmp_path, fail_on_one) == [
        ("rank 1: the disk is full", 28, [0, 1]),
        ("the disk is full", 28, [0, 1]),
    ]


def end_on_one(group, how):
    group.gather([0.0])
    if group.rank == 1:
        if how == "raise":
            raise ValueError("a bug")
        os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)
    try:
        group.gather([0.0])
    except RankLost as error:
        return str(error)


@pytest.mark.parametrize("how", ["raise", "kill", "hang"])
def test_a_rank_that_ends_or_hangs_ends_the_others(tmp_path, how):
    ranks = Ranks(tmp_path, end_on_one, how, timeout_s=5.0)
    line = ranks.said(0)
    assert line.startswith("learner rank 0 of 2 ends, because another rank has ended or has said nothing for 5 s (")
    assert "\n" not in line
    if how == "hang":
        os.kill(ranks.processes[1].pid, signal.SIGKILL)
    ranks.end()
