"""Checks of a cluster that a run joins.

What would fail later, in an actor of one node or another, is refused in one line.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock import __version__
from penstock.errors import PenstockError, text_of

CONNECT_WITHIN_S = 5.0
ANSWERS_WITHIN_S = 60.0  # a node may be slow to start a process
LEARNER = "learner"  # a resource of Ray's


def require_head(address: str) -> None:
    """Check that a Ray head answers and accepts this run's token.

    Args:
        address: host:port, or `auto`, which is not checked.

    Raises:
        PenstockError: it does not.
    """
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        raise PenstockError(f"cluster.address: {address!r} is neither host:port, that of `ray start --head`, nor auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise PenstockError(
            f"cluster.address: can't join a Ray cluster at {address!r}: nothing answers there ({error}); "
            "`ray start --head` prints its address"
        ) from error
    import ray
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient

    try:
        ensure_token_if_auth_enabled(create_token_if_missing=False)  # without a token GcsClient ends the process
        GcsClient(address=address)
    except ray.exceptions.AuthenticationError as error:
        raise PenstockError(
            f"cluster.address: our token is missing or not that of the cluster at {address!r}: set RAY_AUTH_TOKEN to "
            "the one that it was started with"
        ) from error
    except ray.exceptions.RayError as error:
        raise PenstockError(
            f"cluster.address: can't join a Ray cluster at {address!r}: what answers there is no Ray head ({error})"
        ) from error


def require_nodes(ray, folder: Path, num_cpus: int, tell: Callable[[str], None]) -> None:
    """Check that the cluster has the CPUs, and every node penstock and the run folder.

    Nodes without CPUs are left out.

    Args:
        ray: the module, connected.
        folder: the run folder.
        num_cpus: CPUs that the run needs.
        tell: prints a line for the user.

    Raises:
        PenstockError: something is missing; the message names the node.
    """
    have = int(ray.cluster_resources().get("CPU", 0))
    if have < num_cpus:
        raise PenstockError(
            f"the cluster has {have} CPUs, the run needs {num_cpus} ({num_cpus - 1} for solvers, 1 for the learner): "
            "lower solver.workers or solver.ranks, or add nodes"
        )
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
    probe = ray.remote(num_cpus=0, max_retries=0)(make_probe())
    waiting = {
        probe.options(scheduling_strategy=_on(node_id)).remote(str(folder)): node for node_id, node in nodes.items()
    }
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while waiting and (left := deadline - time.monotonic()) > 0:
        for answered in ray.wait(list(waiting), timeout=left)[0]:
            node = waiting.pop(answered)
            if fault := _fault_of(ray, answered, folder):
                raise PenstockError(f"{_name_of(node)} {fault}")
    for node in waiting.values():
        tell(f"{_name_of(node)} has not answered within {ANSWERS_WITHIN_S:.0f} s: is it overloaded?")


def cores_kept_for_learner(ray) -> int:
    """The cores of a node that is kept for the learner.

    One that was started with `--num-cpus=1 --resources='{"learner": 8}'` keeps 8, and its one CPU admits no solver.

    Args:
        ray: the module, connected.

    Returns:
        Their number; 0 if no node is.
    """
    return int(max((node["Resources"].get(LEARNER, 0) for node in ray.nodes() if node["Alive"]), default=0))


def _name_of(node: dict[str, Any]) -> str:
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _on(node_id: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def make_probe() -> Callable[[str], dict[str, Any]]:
    """The function that looks at a node.

    Ray sends a function within a function by value; one of a module would need penstock on the node.
    """

    def look(folder: str) -> dict[str, Any]:
        import os

        try:
            from penstock import __version__ as version
        except ImportError:
            version = None
        return {
            "version": version,
            "sees": os.path.isfile(os.path.join(folder, "config.yaml")),
            "writes": os.access(os.path.join(folder, "logs"), os.W_OK),
        }

    return look


def _fault_of(ray, answered: Any, folder: Path) -> str | None:
    try:
        return fault_in(ray.get(answered), folder)
    except ray.exceptions.RayError as error:
        return f"can't run a task: {text_of(error)}"


def fault_in(facts: dict[str, Any], folder: Path) -> str | None:
    """What is wrong with a node.

    Args:
        facts: what the probe found there.
        folder: the run folder.

    Returns:
        The end of a sentence that begins with the node's name; None if nothing is wrong.
    """
    if facts["version"] is None:
        return f"has no penstock: install {__version__} in the Python that its Ray was started with"
    if facts["version"] != __version__:
        return f"has penstock {facts['version']}, and here it is {__version__}: use one version"
    if not facts["sees"]:
        return f"does not see {folder}: start the run in a folder that every node has at one path"
    if not facts["writes"]:
        return f"can't write to {folder}: start its Ray as the user that runs penstock"
    return None
