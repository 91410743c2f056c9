"""Chunks from solver processes to a receiver: whole, in order, bounded, and lost with a dead worker alone."""

import multiprocessing
import os
import signal
import threading
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import zmq

from penstock.arrays.ragged import Ragged
from penstock.errors import ConnectionLost
from penstock.messages import Chunk, Lease, LeaseEnd
from penstock.transport.receiver import Receiver
from penstock.transport.sender import Sender
from tests.support.waiting import wait_until

ROWS = 8
RING = 3 * (ROWS * 40_000 + 10_000)  # with headers


def chunk_of(simulation: int, size: int = 10_000) -> Chunk:
    """A chunk whose every number tells its simulation."""
    values = np.arange(ROWS * size, dtype=np.float32).reshape(ROWS, size) + simulation
    points = Ragged.of([np.full((2, length), simulation, np.float32) for length in range(1, ROWS + 1)])
    simulations = np.full(ROWS, simulation)
    return Chunk(
        arrays={"fields": values, "points": points},
        simulations=simulations,
        steps=np.arange(ROWS),
        finished=(simulation,),
    )


def serve(endpoint, name, num_made):
    """A worker: one chunk per simulation of its leases."""
    with Sender(endpoint, name, RING) as sender:
        for lease in sender.leases():
            for simulation in lease.simulations:
                with num_made.get_lock():
                    num_made.value += 1
                if not sender.send(chunk_of(simulation)):
                    return
            sender.send(LeaseEnd(lease.number))


@pytest.fixture(params=["shared memory", "network"])
def receiver(request, tmp_path):
    if request.param == "network":
        receiver = Receiver("tcp://127.0.0.1", host=("elsewhere", ""))
    else:
        receiver = Receiver(f"ipc://{tmp_path}/samples")
    yield receiver
    receiver.close()


@pytest.fixture
def start(receiver):
    """A function that starts a worker, and returns its process and its count of chunks."""
    context, processes = multiprocessing.get_context("spawn"), []

    def start(name):
        num_made = context.Value("i", 0)
        process = context.Process(target=serve, args=(receiver.endpoint, name, num_made), daemon=True)
        process.start()
        processes.append((process, num_made))
        return process, num_made

    yield start
    for process, _ in processes:
        process.kill()
        process.join()


def items_of(receiver, lane=None):
    """The items of a stream, each copied before the next one is taken."""
    while True:
        item = receiver.next(30.0, lane)
        assert item is not None
        yield item


def test_chunks_come_whole_and_in_order_and_each_lease_ends_after_them(receiver, start):
    start("one")
    start("two")
    for number in range(4):
        receiver.submit(
            Lease(number=number, simulations=tuple(range(10 * number, 10 * number + 10)), lane=number % 2),
            ("one", "two")[number % 2],
        )
    come: dict[int, list] = {0: [], 1: []}
    items = items_of(receiver)
    while sum(isinstance(item, LeaseEnd) for each in come.values() for item in each) < 4:
        item = next(items)
        if isinstance(item, LeaseEnd):
            come[item.lease_number % 2].append(item)
            continue
        simulation = item.finished[0]
        expected = chunk_of(simulation)
        assert np.array_equal(item.arrays["fields"], expected.arrays["fields"])
        assert np.array_equal(item.arrays["points"].padded(), expected.arrays["points"].padded())
        assert np.array_equal(item.simulations, expected.simulations)
        come[simulation // 10 % 2].append(simulation)
    assert come[0] == [*range(10), LeaseEnd(0), *range(20, 30), LeaseEnd(2)]
    assert come[1] == [*range(10, 20), LeaseEnd(1), *range(30, 40), LeaseEnd(3)]


def test_one_lane_at_a_time(receiver, start):
    start("one")
    start("two")
    for lane, name in enumerate(("one", "two")):
        receiver.submit(Lease(number=lane, simulations=tuple(range(10 * lane, 10 * lane + 10)), lane=lane), name)
    items = items_of(receiver, 1)
    assert [next(items).finished[0] for _ in range(10)] == [*range(10, 20)] and next(items) == LeaseEnd(1)
    assert receiver.next(0.01, 1) is None
    items = items_of(receiver, 0)
    assert [next(items).finished[0] for _ in range(10)] == [*range(10)]


def test_a_worker_waits_for_the_learner(receiver, start):
    """The ring has room for three chunks; one more is made and waits for its place."""
    _, num_made = start("one")
    receiver.submit(Lease(number=0, simulations=tuple(range(100))), "one")
    items = items_of(receiver)
    next(items)
    most = 1 + 3
    wait_until(lambda: num_made.value == most)
    assert receiver.next(30.0) is not None  # taken: the one before is acknowledged
    wait_until(lambda: num_made.value == most + 1)
    assert [next(items).finished[0] for _ in range(98)] == [*range(2, 100)] and next(items) == LeaseEnd(0)


def test_waits_are_seen_before_they_end_and_then_counted_as_long_as_they_were(receiver, start):
    """For room while nobody takes; then for a lease once all was taken."""
    start("one")
    receiver.submit(Lease(number=0, simulations=tuple(range(6))), "one")
    assert receiver.next(30.0).finished == (0,)
    wait_until(lambda: receiver.waits()["blocked"] > 0.1)  # of 6 chunks 1 is held, 2 have come, 1 waits for its place
    before = receiver.waits()
    wait_until(lambda: receiver.waits()["blocked"] > 2 * before["blocked"])
    assert receiver.waits()["unleased"] == before["unleased"]
    items = items_of(receiver)
    assert [next(items).finished[0] for _ in range(5)] == [*range(1, 6)] and next(items) == LeaseEnd(0)
    wait_until(lambda: receiver.waits()["unleased"] > before["unleased"] + 0.1)
    after = receiver.waits()
    assert after["blocked"] > 2 * before["blocked"]
    wait_until(lambda: receiver.waits()["unleased"] > after["unleased"] + 0.1)
    receiver.bury("one", "dead")
    assert receiver.waits()["blocked"] == after["blocked"] and not receiver._waits._open


def test_a_dead_worker_ends_its_lease_alone_behind_what_had_come(receiver, start):
    process, _ = start("dies")
    start("lives")
    receiver.submit(Lease(number=0, simulations=(0, 1), lane=0), "dies")
    receiver.submit(Lease(number=3, simulations=tuple(range(2, 100)), lane=0), "dies")
    receiver.submit(Lease(number=1, simulations=tuple(range(100, 120)), lane=1), "lives")
    wait_until(lambda: receiver.next(0.0, 9) is None and len(receiver._peers["dies"].inbox) == 4)  # 3 and an end
    held = receiver.next(30.0, 0)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert np.array_equal(held.arrays["fields"], chunk_of(0).arrays["fields"])  # its memory outlives it
    receiver.bury("dies", "by SIGKILL")
    items = items_of(receiver, 0)
    assert next(items).finished == (1,) and next(items) == LeaseEnd(0)
    rest = []
    while not isinstance(item := next(items), LeaseEnd):
        rest.append(item.finished[0])
    assert item == LeaseEnd(3, "by SIGKILL") and rest == [*range(2, 2 + len(rest))] and len(rest) >= 1
    items = items_of(receiver)
    assert [next(items).finished[0] for _ in range(20)] == [*range(100, 120)] and next(items) == LeaseEnd(1)
    start("dies again")
    receiver.submit(Lease(number=2, simulations=(7,), lane=0), "dies again")
    items = items_of(receiver, 0)
    assert next(items).finished == (7,) and next(items) == LeaseEnd(2)


def test_a_worker_that_was_taken_for_dead_and_lives_brings_nothing_more(receiver, start):
    """Stopped past its replacement: what it then sends of its leases is dropped, whatever the new one does."""
    process, _ = start("out of reach")
    receiver.submit(Lease(number=0, simulations=tuple(range(100)), lane=0), "out of reach")
    items = items_of(receiver, 0)
    assert next(items).finished == (0,)
    os.kill(process.pid, signal.SIGSTOP)
    receiver.bury("out of reach", "not heard of")
    before = []
    while not isinstance(item := next(items), LeaseEnd):
        before.append(item.finished[0])
    assert item == LeaseEnd(0, "not heard of") and before == [*range(1, 1 + len(before))]
    start("another")
    receiver.submit(Lease(number=1, simulations=tuple(range(1 + len(before), 100)), lane=0), "another")
    os.kill(process.pid, signal.SIGCONT)
    after = [next(items).finished[0] for _ in range(99 - len(before))]
    assert after == [*range(1 + len(before), 100)] and next(items) == LeaseEnd(1)
    assert receiver.next(0.2) is None and receiver.silences() == {}


def test_any_number_of_leases_may_wait_while_nobody_takes(receiver, start):
    start("one")
    receiver.submit(Lease(number=0, simulations=()), "one")
    assert next(items_of(receiver)) == LeaseEnd(0)
    for number in range(1, 3001):
        receiver.submit(Lease(number=number, simulations=()), "one")
    items = items_of(receiver)
    assert [next(items) for _ in range(3000)] == [LeaseEnd(number) for number in range(1, 3001)]


def test_a_worker_whose_learner_has_gone_hears_so_and_can_connect_to_the_next_one(receiver, start, tmp_path):
    """Where nobody receives any more it does not wait; its name is as good as new at another address."""
    gone = Receiver(
        receiver.endpoint.address.rpartition(":")[0] if receiver.endpoint.server_key else f"ipc://{tmp_path}/2"
    )
    gone.close()
    for _ in range(2):
        with pytest.raises(ConnectionLost), Sender(gone.endpoint, "one", RING):
            pass
    open_files = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert not [file for file in open_files if "memfd:penstock" in file]
    start("one")
    receiver.submit(Lease(number=7, simulations=(3,)), "one")
    items = items_of(receiver)
    assert next(items).finished == (3,) and next(items) == LeaseEnd(7)


def test_a_broken_connection_ends_the_stream_of_the_worker(tmp_path):
    receiver = Receiver(f"ipc://{tmp_path}/samples")
    ends = []

    def work():
        with pytest.raises(ConnectionLost, match="connection"), Sender(receiver.endpoint, "one", RING) as sender:
            ends.append("connected")
            for _ in sender.leases():
                pass
        ends.append("broken")

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: receiver.next(0.0) is None and ends)
    receiver._peers.clear()  # without a farewell, as where the learner is killed
    receiver.close()
    thread.join(30.0)
    assert ends == ["connected", "broken"]


def test_what_waits_to_be_taken_is_no_silence_nor_is_a_time_in_which_nobody_looked(receiver, start, monkeypatch):
    start("waits")
    start("solves")
    clock = count(0.0, 0.0)
    now = [0.0]
    monkeypatch.setattr("penstock.transport.receiver.time.monotonic", lambda: next(clock) + now[0])
    receiver._looked = 0.0
    receiver.submit(Lease(number=0, simulations=tuple(range(100)), lane=0), "waits")
    receiver.submit(Lease(number=1, simulations=(), lane=1), "solves")  # ends at once
    assert next(items_of(receiver, 1)) == LeaseEnd(1)
    receiver.submit(Lease(number=2, simulations=(), lane=2), "not started")
    wait_until(lambda: receiver.next(0.0, 3) is None and receiver._peers["waits"].inbox)
    for now[0] in (1.0, 4.0):
        assert receiver.next(0.0, 3) is None
        assert receiver.silences() == {0: 0.0, 2: now[0]}
    now[0] = 104.0  # nobody looked, for 95 s more than a look may take
    assert receiver.next(0.0, 3) is None and receiver.silences() == {0: 0.0, 2: 9.0}
    assert receiver.next(0.0, 0).finished == (0,)
    now[0] = 105.0
    receiver.next(0.0, 3)
    assert receiver.silences()[2] == 10.0


def test_after_its_end_a_stream_gives_nothing_and_its_workers_end(receiver, start):
    process, _ = start("one")
    receiver.submit(Lease(number=0, simulations=tuple(range(1000))), "one")
    next(items_of(receiver))
    receiver.close()
    assert receiver.next(0.0) is None and receiver.silences() == {}
    receiver.submit(Lease(number=1, simulations=(1,)), "one")
    receiver.bury("one", "dead")
    process.join(30.0)
    assert process.exitcode == 0


def test_a_stranger_on_the_network_is_not_let_in():
    receiver = Receiver("tcp://127.0.0.1")
    context = zmq.Context()
    try:
        for with_key in (False, True):
            socket = context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            if with_key:  # it knows the learner's public key, and has a pair of its own
                socket.curve_serverkey = receiver.endpoint.server_key
                socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            monitor = socket.get_monitor_socket(
                zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
                | zmq.EVENT_HANDSHAKE_FAILED_AUTH
                | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
                | zmq.EVENT_DISCONNECTED
            )
            socket.connect(receiver.endpoint.address)
            socket.send_multipart([b"h", b""])
            assert monitor.poll(30_000)
            assert receiver.next(0.0) is None and not receiver._peers
    finally:
        context.destroy(linger=0)
        receiver.close()


def test_no_secret_is_printed(receiver):
    secret = receiver.endpoint.client_secret
    assert secret is None or secret.decode() not in repr(receiver.endpoint)
