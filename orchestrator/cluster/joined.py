"""Checks of a cluster that a run joins.

What would fail later, in an actor of one node or another, is refused in one line.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from penstock import __version__
from penstock.errors import PenstockError, text_of
from penstock.orchestrator.cluster.nodes import on
from penstock.orchestrator.resources.cores import Node

CONNECT_WITHIN_S = 5.0
ANSWERS_WITHIN_S = 60.0  # a node may be slow to start a process


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


def require_nodes(ray, nodes: Iterable[Node], folder: Path, tell: Callable[[str], None]) -> None:
    """Check that every node has penstock and sees the run folder.

    Args:
        ray: the module, connected.
        nodes: the nodes.
        folder: the run folder.
        tell: prints a line for the user.

    Raises:
        PenstockError: something is missing; the message names the node.
    """
    probe = ray.remote(num_cpus=0, max_retries=0)(make_probe())
    waiting = {probe.options(scheduling_strategy=on(node.node_id)).remote(str(folder)): node for node in nodes}
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while waiting and (left := deadline - time.monotonic()) > 0:
        for answered in ray.wait(list(waiting), timeout=left)[0]:
            node = waiting.pop(answered)
            if fault := _fault_of(ray, answered, folder):
                raise PenstockError(f"{node.name} {fault}")
    for node in waiting.values():
        tell(f"{node.name} has not answered within {ANSWERS_WITHIN_S:.0f} s: is it overloaded?")


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
