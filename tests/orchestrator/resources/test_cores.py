"""How CPUs are shared, counted by hand."""

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.resources.cores import Node, Split, listed, solves_here


def config(workers="auto", ranks=1, device="auto", address="head:1", **solver) -> Config:
    return Config(
        problem="darcy",
        solver={"workers": workers, "ranks": ranks} | solver,
        training={"stop_after": {"steps": 1}, "device": device},
        cluster={"address": address},
    )


def node(name: str, cpus: int, gpus: int = 0, free: int | None = None, **more) -> Node:
    return Node(name, cpus, cpus if free is None else free, gpus, gpus, node_id=name, **more)


SMALL = (node("a", 4), node("b", 6), node("g", 8, gpus=2))


@pytest.mark.parametrize(
    ("nodes", "asked", "workers", "learner", "cpus", "threads"),
    [
        ((node("a", 1),), {}, 1, "a", 1, 1),
        ((node("a", 4),), {}, 3, "a", 1, 2),
        ((node("a", 1), node("b", 1, is_here=True)), {}, 1, "b", 1, 1),
        (SMALL, {}, 17, "g", 1, 2),
        (SMALL, {"device": "cpu"}, 17, "g", 1, 2),
        (SMALL, {"workers": 3}, 3, "g", 8, 8),  # all of them elsewhere
        (SMALL, {"workers": 13}, 13, "g", 5, 5),  # three beside the learner
        (SMALL, {"workers": 100}, 100, "g", 1, 2),  # some wait for nodes
        (SMALL, {"ranks": 4}, 1 + 1 + 1, "g", 4, 4),  # of 4, 6 and the 7 that the learner leaves
        (SMALL, {"ranks": 7}, 1, "g", 1, 2),
        (SMALL, {"ranks": 9}, 1, "g", 1, 2),  # such a node may come
        ((node("a", 4), node("b", 6, free=1)), {"workers": 1}, 1, "a", 4, 4),
        ((node("b", 6, free=2),), {"workers": 1}, 1, "b", 2, 2),  # what others have is not asked for
        ((*SMALL, node("k", 1, kept=12)), {"device": "cpu"}, 18, "k", 1, 12),  # it has one CPU, and is kept
        (SMALL, {"workers": {"max": 12, "min": 2}}, 2, "g", 6, 6),
    ],
)
def test_the_learner_gets_what_the_solvers_leave_of_its_node(nodes, asked, workers, learner, cpus, threads):
    split = Split.of(config(**asked), nodes)
    assert (split.workers, split.learner.name) == (workers, learner)
    assert (split.learner_cpus, split.learner_threads) == (cpus, threads)
    assert split.needs_gpu == (asked.get("device") != "cpu" and any(node.gpus for node in nodes))
    assert split.most == (12 if isinstance(asked.get("workers"), dict) else workers)
    assert not Split.of(config(**asked), nodes, has_learner=False).needs_gpu


@pytest.mark.parametrize(("cores", "workers", "threads"), [(1, 1, 1), (2, 1, 2), (4, 3, 2), (16, 15, 2)])
def test_this_machine_alone(cores, workers, threads):
    here = Node("here", cores, cores, is_here=True)
    split = Split.of(config(address=None), [here])
    assert (split.workers, split.learner_threads, str(split)) == (workers, threads, f"{cores} cores")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, True),
        ({"workers": 2}, False),
        ({"address": "head:1"}, False),
        ({"timeout_s": 5}, False),  # somebody has to watch it
        ({"memory_mb": 500}, False),
    ],
)
def test_a_single_worker_that_nobody_watches_is_this_process(asked, expected):
    assert solves_here(config(**{"workers": 1, "address": None} | asked)) == expected


@pytest.mark.parametrize(
    ("nodes", "device", "expected"),
    [
        (SMALL[:2], "cuda", "the learner asks for 1 CPU and 1 GPU (training.device: cuda), which no node of the"),
        ((), "auto", "the learner asks for 1 CPU, which no node of the cluster has: no node has any CPU"),
        (SMALL, "cuda:1", "training.device: 'cuda:1': in a cluster Ray chooses the GPU: give cuda"),
    ],
)
def test_a_learner_without_a_place_is_refused(nodes, device, expected):
    with pytest.raises(PenstockError) as caught:
        Split.of(config(device=device), nodes)
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


def test_a_line_names_what_each_node_has():
    assert listed(SMALL) == ("g has 8 of 8 CPUs and 2 of 2 GPUs free, b has 6 of 6 CPUs free, a has 4 of 4 CPUs free")
    many = [node(f"n{i}", 4, free=i % 3) for i in range(20)]
    assert listed(many).count("has 2 of 4 CPUs free") == 6  # of the 8 that are named
    assert listed(many).endswith(", n10 has 1 of 4 CPUs free, 12 more have no more")


def test_what_the_learner_has_is_recorded():
    split = Split.of(config(workers=3), SMALL)
    assert split.learner_part("NVIDIA H200, 2 ranks", 2) == {"device": "NVIDIA H200, 2 ranks", "cores": 8, "gpus": 2}
    kept = Split.of(config(device="cpu"), (*SMALL, node("k", 1, kept=12)))
    assert kept.learner_part("the CPU", 1) == {"device": "the CPU", "cores": 12, "gpus": 0}
