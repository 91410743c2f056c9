"""The learner's end of the stream: leases go out, chunks come in."""

from __future__ import annotations

import struct
import threading
import time
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from penstock.messages import Chunk, Lease, LeaseEnd
from penstock.transport.endpoint import Endpoint, this_host
from penstock.transport.items import packed, unpacked
from penstock.transport.ring import memory_of, places
from penstock.transport.sender import FAREWELL_MS, GOES_ON, HELLO, IN_FRAMES, LEASE, STOP, TAKEN, WAITS, WELCOME
from penstock.transport.waits import Waits

IO_THREADS = 4  # of ZeroMQ, each for a part of the connections: to decrypt takes longer than to copy into the buffer
MAX_WAITING = 1024  # workers that connect at once: one that is turned away takes its learner for dead
STOOD_STILL_S = 5.0  # a longer pause between looks at the socket is no silence of the workers


@dataclass(eq=False)
class _Peer:
    """A worker, as the learner's end knows it."""

    lane: int = 0
    memory: memoryview | None = None
    """Its shared memory; None where there is none."""
    is_here: bool = False
    """Whether it has said hello; its leases are sent from then on."""
    leases: deque[Lease] = field(default_factory=deque)
    """Its open leases, the current one first."""
    inbox: deque[list[zmq.Frame]] = field(default_factory=deque)
    """What has come and was not taken, as it came."""
    error: str | None = None
    """How it died; None while it lives."""
    heard: float = field(default_factory=time.monotonic)
    """When something came last, or its first lease was submitted, as of the last look at the socket."""

    @property
    def has_something(self) -> bool:
        """Whether something waits to be taken."""
        return bool(self.inbox) or (self.error is not None and bool(self.leases))


class _Bell:
    """Wakes the thread that waits for items, as what comes at a socket does.

    It is rung under a lock.
    """

    def __init__(self, context: zmq.Context, socket: zmq.Socket):
        self._heard, self._rung = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        self._heard.bind("inproc://bell")
        self._rung.connect("inproc://bell")
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._heard, zmq.POLLIN)

    def wait(self, seconds: float) -> None:
        self._poller.poll(1000 * seconds)

    def ring(self) -> None:
        with suppress(zmq.Again):  # it has rung often enough
            self._rung.send(b"", zmq.NOBLOCK)

    def hush(self) -> None:
        while self._heard.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            self._heard.recv()


class Receiver:
    """The stream of a run's workers.

    It has the methods of `Stream` (learner/stream/stream.py). One thread calls `next`, any thread the other methods.
    Taking the next item acknowledges the one before, whose arrays may then be overwritten.

    Args:
        address: `ipc://<path>`, or `tcp://<host>` for a free port of a network.
        host: sets this machine apart, whose workers share their memory; None for its true identity.
    """

    def __init__(self, address: str, host: tuple[str, str] | None = None):
        self._context = zmq.Context(io_threads=IO_THREADS)
        self._socket = self._context.socket(zmq.ROUTER)
        for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):  # the workers' rings are the bound
            self._socket.setsockopt(option, 0)
        self._socket.setsockopt(zmq.BACKLOG, MAX_WAITING)
        self._authenticator: ThreadAuthenticator | None = None
        self.endpoint = self._bind(address)
        """What workers need to connect."""
        self._host = host or this_host()
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._is_closed = False
        self._peers: dict[str, _Peer] = {}
        self._line: OrderedDict[str, _Peer] = OrderedDict()  # those that have something, in the order of their turns
        self._taken: str | None = None  # the worker of the chunk that was passed on last
        self._unsent: deque[tuple[str, Lease]] = deque()  # to be sent by the thread that owns the socket
        self._looked = time.monotonic()
        self._waits = Waits()
        self._bell = _Bell(self._context, self._socket)

    def _bind(self, address: str) -> Endpoint:
        if address.startswith("ipc://"):
            self._socket.bind(address)
            return Endpoint(address)
        (server_key, server_secret), (client_key, client_secret) = zmq.curve_keypair(), zmq.curve_keypair()
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback("*", _Only(client_key))
        self._socket.curve_publickey, self._socket.curve_secretkey = server_key, server_secret
        self._socket.curve_server = True
        port = self._socket.bind_to_random_port(address)
        return Endpoint(f"{address}:{port}", server_key, client_key, client_secret)

    # For any thread

    def submit(self, lease: Lease, worker: str) -> None:
        """Queue a lease at a worker; returns at once.

        Args:
            lease: the lease.
            worker: name of the worker.
        """
        with self._lock:
            peer = self._peers.setdefault(worker, _Peer())
            if not peer.leases:
                peer.heard = time.monotonic()
            peer.lane = lease.lane
            peer.leases.append(lease)
            if peer.is_here and not self._is_closed:
                self._unsent.append((worker, lease))
                self._bell.ring()

    def bury(self, worker: str, error: str) -> None:
        """Let the stream of a dead worker end.

        The end of its current lease comes behind what has come of it.

        Args:
            worker: name of the worker.
            error: how it died.
        """
        with self._lock:
            peer = self._peers.get(worker)
            if peer is not None and peer.leases and not self._is_closed:
                peer.error = error
                self._line.setdefault(worker, peer)
                self._bell.ring()
            elif peer is not None:
                self._forget(worker)

    def silences(self) -> dict[int, float]:
        """How long each worker at work has given nothing.

        Returns:
            Seconds by the number of the worker's current lease, as of the last look at the socket.
        """
        with self._lock:
            return {
                peer.leases[0].number: 0.0 if peer.inbox or name == self._taken else max(0.0, self._looked - peer.heard)
                for name, peer in self._peers.items()
                if peer.leases
            }

    def waits(self) -> dict[str, float]:
        """How long workers have waited, up to now, see `Waits.seconds`."""
        if self._taking.acquire(blocking=False):  # else the thread that takes looks at the socket
            try:
                if not self._is_closed:
                    self._look()
            finally:
                self._taking.release()
        with self._lock:
            return self._waits.seconds(time.monotonic())

    def close(self) -> None:
        """Take no more, and end the workers' streams."""
        if self._is_closed:
            return
        self._is_closed = True
        with self._taking, self._lock:
            for name in self._peers:
                self._socket.send_multipart([name.encode(), STOP])
            self._peers.clear()
            self._line.clear()
            if self._authenticator is not None:
                self._authenticator.stop()
            self._context.destroy(linger=FAREWELL_MS)

    # For the thread that takes

    def next(self, timeout_s: float, lane: int | None = None) -> Chunk | LeaseEnd | None:
        """The next item of any worker, or of the worker on a lane.

        Args:
            timeout_s: how long to wait, in seconds.
            lane: the lane; None for any worker.

        Returns:
            A chunk, or the end of a lease; None if nothing came in time.
        """
        with self._taking:
            with self._lock:
                taken, self._taken = self._taken, None
                if taken in self._peers:  # it may have waited for this, and is silent from now on
                    self._peers[taken].heard = time.monotonic()
            if taken is not None and not self._is_closed:
                self._socket.send_multipart([taken.encode(), TAKEN])
            deadline = time.monotonic() + timeout_s
            while not self._is_closed:
                self._look()
                if (item := self._pick(lane)) is not None:
                    return item
                if (left := deadline - time.monotonic()) <= 0:
                    return None
                self._bell.wait(left)
        return None

    def _look(self) -> None:
        """Say what is to be said, and take in what has come."""
        with self._lock:
            now = time.monotonic()
            stood_still, self._looked = max(0.0, now - self._looked - STOOD_STILL_S), now
            for peer in self._peers.values() if stood_still else ():
                peer.heard = min(now, peer.heard + stood_still)
            self._bell.hush()
            while self._unsent:
                worker, lease = self._unsent.popleft()
                self._socket.send_multipart([worker.encode(), LEASE, packed(lease)[0]])
            with suppress(zmq.Again):
                while True:
                    self._arrive(*self._socket.recv_multipart(zmq.NOBLOCK, copy=False))

    def _arrive(self, sender: zmq.Frame, kind: zmq.Frame, *frames: zmq.Frame) -> None:
        name = sender.bytes.decode()
        if kind.bytes == HELLO:
            peer = self._peers.setdefault(name, _Peer())
            peer.is_here, peer.memory = True, self._memory_of(*unpacked(frames[0].buffer))
            self._socket.send_multipart([sender, WELCOME, packed(peer.memory is not None)[0]])
            for lease in peer.leases:
                self._socket.send_multipart([sender, LEASE, packed(lease)[0]])
            return
        if name not in self._peers:  # a worker that was given up for dead
            return
        peer = self._peers[name]
        peer.heard = self._looked
        if kind.bytes == WAITS:
            self._waits.begin(name, frames[0].bytes.decode(), self._looked)
        elif kind.bytes == GOES_ON:
            self._waits.end(name, self._looked, *struct.unpack("<d", frames[0].buffer))
        else:
            self._line.setdefault(name, peer).inbox.append([kind, *frames])

    def _forget(self, name: str) -> None:
        """Let go of a worker that has died."""
        del self._peers[name]
        self._line.pop(name, None)
        self._waits.end(name, self._looked)

    def _memory_of(self, host: tuple[str, str], *where: Any) -> memoryview | None:
        return memory_of(*where) if host == self._host else None

    def _pick(self, lane: int | None) -> Chunk | LeaseEnd | None:
        with self._lock:
            name = next((name for name, peer in self._line.items() if lane in (None, peer.lane)), None)
            if name is None:
                return None
            peer = self._line.pop(name)
            peer.heard = self._looked
            if not peer.inbox:
                self._forget(name)
                return LeaseEnd(peer.leases[0].number, peer.error)
            kind, header, *frames = peer.inbox.popleft()
            arrays = [frame.buffer for frame in frames] if kind.bytes == IN_FRAMES else _placed(peer.memory, *frames)
            item = unpacked(header.buffer, arrays)
            if isinstance(item, LeaseEnd):
                peer.leases.popleft()
            else:
                self._taken = name
            if peer.has_something:
                self._line[name] = peer  # behind the others
            return item


def _placed(memory: memoryview, marks: zmq.Frame) -> list[memoryview]:
    """The arrays in a worker's memory, from where they begin and their sizes."""
    begin, *sizes = struct.unpack(f"<{len(marks) // 8}q", marks.buffer)
    starts, _ = places(sizes)
    return [memory[begin + start : begin + start + size] for start, size in zip(starts, sizes, strict=True)]


class _Only:
    """Lets in the clients of one key."""

    def __init__(self, key: bytes):
        self._key = key

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._key
