"""Where a learner receives samples, and the keys to it."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Endpoint:
    """An address of ZeroMQ and, where a network lies between, keys of CURVE.

    A socket file is protected by its folder, which its user alone may enter. On a network both sides have a pair of
    keys: the learner accepts one client key, which only the solvers of its run are given, and all that travels is
    encrypted (RFC 26/CurveZMQ).
    """

    address: str
    """ipc://<path> or tcp://<host>:<port>."""
    server_key: bytes | None = None
    """The learner's public key; None for a socket file."""
    client_key: bytes | None = None
    """The solvers' public key."""
    client_secret: bytes | None = field(default=None, repr=False)
    """The solvers' secret key."""


def this_host() -> tuple[str, str]:
    """What two processes share that can map each other's memory.

    That is a boot of a machine, and a namespace of process ids.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot}", str(Path("/proc/self/ns/pid").readlink())
