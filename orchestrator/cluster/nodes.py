"""The nodes of a running Ray, and who gets a place on which."""

from __future__ import annotations

from typing import Any

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.resources.cores import Node, Split, listed

PLACE_WITHIN_S = 25.0  # after which a process that Ray has not started is reported


def nodes_of(ray) -> tuple[Node, ...]:
    """The living nodes that have CPUs.

    Args:
        ray: the module, connected.

    Returns:
        The nodes, with what is free of each as Ray last heard.
    """
    from ray._private.state import available_resources_per_node

    free, here = available_resources_per_node(), ray.get_runtime_context().get_node_id()
    nodes = []
    for node in ray.nodes():
        total, left = node["Resources"], free.get(node["NodeID"], {})
        if node["Alive"] and total.get("CPU"):
            counts = [int(amount.get(kind, 0)) for kind in ("CPU", "GPU") for amount in (total, left)]
            name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            kept = int(total.get("learner", 0))
            nodes.append(Node(name, *counts, kept, is_here=node["NodeID"] == here, node_id=node["NodeID"]))
    return tuple(nodes)


def renewed(ray, split: Split, config: Config) -> Split:
    """The split for a learner that is started again, whose node may be gone.

    Args:
        ray: the module, connected.
        split: the split so far.
        config: the configuration.

    Returns:
        The same split, or one for the nodes that there are now.

    Raises:
        PenstockError: there is no place for it, or none with a GPU where it had one.
    """
    nodes = nodes_of(ray)
    if split.learner.node_id in {node.node_id for node in nodes}:
        return split
    renewed = Split.of(config, nodes)
    if split.needs_gpu and not renewed.needs_gpu:
        raise PenstockError(f"its node is gone, and no other has a GPU: {listed(nodes)}")
    return renewed


def on(node_id: str, *, soft: bool = False) -> Any:
    """The scheduling strategy of what is to run on a node.

    Args:
        node_id: Ray's id of the node.
        soft: whether it may run elsewhere if the node is gone, or lacks what is asked for.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=soft)


def learner_options(split: Split, num_ranks: int = 1) -> dict[str, Any]:
    """What Ray is asked for a learner's process.

    Args:
        split: the learner's share.
        num_ranks: number of processes that share it.
    """
    if split.learner.node_id is None:  # Ray's CPUs on this machine are asked for by nobody
        return {"num_cpus": 0}
    gpus = {"num_gpus": 1} if split.needs_gpu else {}
    return gpus | {
        "num_cpus": max(1, split.learner_cpus // num_ranks),
        "scheduling_strategy": on(split.learner.node_id, soft=True),
    }


def solver_options(ranks: int, *, is_joined: bool) -> dict[str, Any]:
    """What Ray is asked for a solver's process.

    Ray itself takes nodes without GPUs first for what asks for none, and all CPUs of a process from one node.

    Args:
        ranks: MPI ranks of the worker.
        is_joined: whether the run joined a cluster; on this machine the number of workers is not bounded by CPUs.
    """
    return {"num_cpus": ranks if is_joined else 0}


def is_placed(ray, actor: Any) -> bool:
    """Whether an actor has a process, perhaps still in its constructor, or has died."""
    from ray._private.state import actors

    info = actors(actor._actor_id.hex())
    return info.get("Pid", 0) > 0 or info.get("State") == "DEAD"


def waits_for(ray, options: dict[str, Any], who: str = "it") -> str:
    """What a process waits for that Ray has not placed, as a clause for people.

    Args:
        ray: the module, connected.
        options: what Ray was asked for.
        who: subject of the clause, for one process or for several.
    """
    asked = " and ".join(
        f"{number} {kind}{'s' if number > 1 else ''}"
        for kind, number in (("CPU", options["num_cpus"]), ("GPU", options.get("num_gpus", 0)))
        if number
    )
    if not asked:
        return "Ray has not started its process yet"
    return f"{who} asks for {asked}, and {listed(nodes_of(ray))}"
