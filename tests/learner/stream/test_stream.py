"""The stream inside one process: the order of chunks, how far workers run ahead, and lanes."""

import itertools
import threading
import time

import numpy as np
import pytest

from penstock.learner.stream.stream import CHUNKS_AHEAD, InProcessStream
from penstock.messages import Chunk, Lease, LeaseEnd


class CountingWorker:
    """Sends a chunk a simulation, and counts them."""

    def __init__(self):
        self.num_made = 0

    def stream(self, lease):
        for simulation in lease.simulations:
            self.num_made += 1
            yield Chunk(
                arrays={"targets": np.full((1, 1, 2), float(simulation), np.float32)},
                simulations=np.array([simulation]),
                steps=np.array([0]),
                finished=(simulation,),
            )


@pytest.fixture
def stream():
    stream = InProcessStream()
    yield stream
    stream.close()


def test_chunks_come_in_order_and_every_lease_ends(stream):
    worker = CountingWorker()
    stream.submit(Lease(number=0, simulations=(3, 1)), worker)
    stream.submit(Lease(number=1, simulations=(2,)), worker)
    items = [stream.next(5.0) for _ in range(5)]
    seen = [item.lease_number if isinstance(item, LeaseEnd) else f"chunk {item.simulations[0]}" for item in items]
    assert seen == ["chunk 3", "chunk 1", 0, "chunk 2", 1]
    assert stream.next(0.01) is None


def test_a_worker_runs_a_bounded_way_ahead(stream):
    worker = CountingWorker()
    stream.submit(Lease(number=0, simulations=tuple(range(100))), worker)
    time.sleep(0.5)
    assert worker.num_made <= CHUNKS_AHEAD + 1
    assert stream.next(5.0).simulations[0] == 0
    time.sleep(0.5)
    assert worker.num_made <= CHUNKS_AHEAD + 2


def test_a_worker_in_process_is_never_silent(stream):
    stream.submit(Lease(number=0, simulations=(0,)), CountingWorker())
    assert stream.silences() == {}


def test_a_lane_can_be_asked_for_alone_and_others_wait(stream):
    workers = [CountingWorker() for _ in range(3)]
    for lane, worker in enumerate(workers):
        stream.submit(Lease(number=lane, simulations=tuple(range(10 * lane, 10 * lane + 8)), lane=lane), worker)
    assert [stream.next(5.0, 2).simulations[0] for _ in range(8)] == list(range(20, 28))
    assert stream.next(5.0, 2) == LeaseEnd(2) and stream.next(0.01, 2) is None
    assert workers[0].num_made <= CHUNKS_AHEAD + 1
    rest = list(itertools.takewhile(lambda item: item is not None, iter(lambda: stream.next(0.5), ...)))
    assert sorted(item.simulations[0] for item in rest if isinstance(item, Chunk)) == [*range(8), *range(10, 18)]


def test_one_worker_solves_at_a_time(stream):
    inside = threading.Semaphore(1)

    class Alone:
        def stream(self, lease):
            for _ in lease.simulations:
                assert inside.acquire(blocking=False)
                time.sleep(0.001)
                inside.release()
                yield "chunk"

    for lane in range(3):
        stream.submit(Lease(number=lane, simulations=tuple(range(20)), lane=lane), Alone())
    assert len([stream.next(5.0) for _ in range(3 * 21)]) == 63


def test_what_a_lease_raises_reaches_who_takes_from_the_stream(stream):
    class Broken:
        def stream(self, lease):
            yield "chunk"
            raise RuntimeError("the worker broke")

    stream.submit(Lease(number=0, simulations=(0,)), Broken())
    assert stream.next(5.0) == "chunk"
    with pytest.raises(RuntimeError, match="the worker broke"):
        stream.next(5.0)
