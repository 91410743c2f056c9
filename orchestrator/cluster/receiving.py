"""Where the process that takes the samples is reached by the workers."""

from __future__ import annotations

import os
from pathlib import Path

from penstock.transport.receiver import Receiver


def receiver_on(session_folder: Path | None) -> Receiver:
    """A receiver that the run's workers can reach.

    Args:
        session_folder: Ray's session folder if the run started Ray, which its user alone may enter; None in a cluster,
            where it takes a free port of this node's address.

    Returns:
        The receiver.
    """
    import ray  # here, because Ray reads its environment when it is first imported

    if session_folder is None:
        return Receiver(f"tcp://{ray.util.get_node_ip_address()}")
    # ZeroMQ reconnects by itself: a worker's last words to a learner that died must not reach the next one.
    return Receiver(f"ipc://{session_folder / f'samples-{os.getpid()}'}")
