"""The solver's end of the stream: leases come in, chunks go out."""

from __future__ import annotations

import os
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from penstock.errors import ConnectionLost
from penstock.messages import BLOCKED, CHUNKS_UNDER_WAY, UNLEASED, Chunk, Lease, LeaseEnd
from penstock.transport.endpoint import Endpoint, this_host
from penstock.transport.items import packed, unpacked
from penstock.transport.ring import Ring, SharedMemory, places

FAREWELL_MS = 500  # for the last words to leave
# On a network, where a lost host resets no connection. After a partition of 30 s TCP, whose pauses double, tries again
# 51 s after its beginning; Ray takes about 65 s to give up a node.
HEARTBEAT_MS, LOST_AFTER_MS = 5_000, 75_000
HELLO, IN_FRAMES, IN_MEMORY = b"h", b"f", b"m"
"""What a solver says: where its memory is; an item with its arrays, or with their places in that memory."""
WAITS, GOES_ON = b"b", b"g"
"""And that it begins to wait, for what; that it goes on, after how many seconds."""
WELCOME, LEASE, TAKEN, STOP = b"w", b"l", b"t", b"s"
"""What the learner says: whether it maps that memory; a lease; that the oldest chunk was taken; the end."""


class Sender:
    """Sends the chunks of one worker, a bounded number of them at a time.

    On the learner's machine the arrays are written into shared memory, and elsewhere into the socket. Either way a
    chunk takes its place in a ring until the learner has taken it, and the worker waits where there is none.

    Args:
        endpoint: where the learner receives.
        name: name of the worker, which no other one of the run has.
        num_bytes: bound on the bytes of chunks under way.

    Raises:
        ConnectionLost: nobody receives there, or no longer; raised by any method. What was said may be lost.
    """

    def __init__(self, endpoint: Endpoint, name: str, num_bytes: int):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, name.encode())
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)  # the ring is the bound
        self._socket.setsockopt(zmq.RCVHWM, 0)
        if endpoint.server_key is not None:
            self._socket.curve_serverkey = endpoint.server_key
            self._socket.curve_publickey, self._socket.curve_secretkey = endpoint.client_key, endpoint.client_secret
            self._socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, LOST_AFTER_MS)
        self._breaks = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._breaks, zmq.POLLIN)
        self._socket.connect(endpoint.address)
        self._ring = Ring(num_bytes, CHUNKS_UNDER_WAY)
        self._memory = SharedMemory(num_bytes)
        self._is_shared: bool | None = None
        self._leases: deque[Lease] = deque()
        self._has_stopped = False
        where = (this_host(), os.getpid(), self._memory.descriptor, num_bytes, self._memory.mark)
        self._socket.send_multipart([HELLO, packed(where)[0]])

    def leases(self) -> Iterator[Lease]:
        """Wait for leases, until the learner ends the stream.

        Yields:
            The leases in the order in which they were submitted.
        """
        while not self._has_stopped:
            if self._leases:
                yield self._leases.popleft()
            else:
                with self._waiting(UNLEASED):
                    while not (self._leases or self._has_stopped):
                        self._hear()

    def send(self, item: Chunk | LeaseEnd) -> bool:
        """Send an item, once there is room for its arrays.

        Args:
            item: a chunk, or the end of a lease.

        Returns:
            False if the learner has ended the stream.
        """
        header, arrays = packed(item)
        # Places are found free before they are needed, and the end is heard.
        while not self._has_stopped and self._poller.poll(0):
            self._hear()
        if isinstance(item, LeaseEnd):
            self._socket.send_multipart([IN_FRAMES, header])
            return not self._has_stopped
        sizes = [array.nbytes for array in arrays]
        starts, num_bytes = places(sizes)
        # The header travels beside the ring, and takes its room there all the same.
        if (place := self._ring.take(num_bytes + len(header))) is None:
            with self._waiting(BLOCKED):
                while (place := self._ring.take(num_bytes + len(header))) is None and not self._has_stopped:
                    self._hear()
        if self._has_stopped:
            return False
        if self._is_shared and place + num_bytes <= self._ring.num_bytes:
            for start, array in zip(starts, arrays, strict=True):
                self._memory.view[place + start : place + start + array.nbytes] = array
            self._socket.send_multipart([IN_MEMORY, header, struct.pack(f"<{1 + len(sizes)}q", place, *sizes)])
        else:
            self._socket.send_multipart([IN_FRAMES, header, *arrays])  # a copy: the problem may overwrite them
        return True

    def __enter__(self) -> Sender:
        try:
            while self._is_shared is None:
                self._hear()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.destroy(linger=FAREWELL_MS)
        self._memory.close()

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        """Say that the worker waits in the block, and for how long it did."""
        began = time.perf_counter()
        self._socket.send_multipart([WAITS, what.encode()])
        yield
        self._socket.send_multipart([GOES_ON, struct.pack("<d", time.perf_counter() - began)])

    def _hear(self) -> None:
        """Wait for a word of the learner, and follow it."""
        if any(socket is self._breaks for socket, _ in self._poller.poll()) and not self._socket.poll(0):
            raise ConnectionLost("its connection to the learner broke")
        word, *frames = self._socket.recv_multipart()
        if word == TAKEN:
            self._ring.give_back()
        elif word == LEASE:
            self._leases.append(unpacked(frames[0]))
        elif word == WELCOME:
            self._is_shared = bool(unpacked(frames[0]))
        else:
            self._has_stopped = True
