"""The limit ladder of a case: the step alone, fed, and fed beside ingestion.

It is measured beside torch's DataLoader over the same buffer and the device's copy rate.

    L1   the step on one batch that lies on the device
    L2   the step, fed from a full buffer without producers
    L2p  as L2, while a thread ingests as fast as the buffer's policy admits

A run reaches at most L2. L2 / L1 shows what feeding costs, and L2p / L2 what ingestion costs beside it.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from penstock.layout import Layout
from penstock.learner.buffers.buffer import Batch, Buffer
from penstock.learner.feed.feed import Feed
from penstock.learner.ladder.samples import LEARNING_RATE, chunks
from penstock.learner.ladder.section import Section, Target
from penstock.learner.ladder.timing import Arm, Rounds, Spread, measure, synchronize
from penstock.learner.optimization import Optimization
from penstock.learner.stream.ingest import Ingest
from penstock.messages import Chunk
from penstock.report import markdown

BYTES_PER_PARAMETER = 40
"""Bytes that a float32 step must move per parameter, at 4 bytes per access.

The weight is read forward and backward, and its gradient written. Adam reads weight, gradient and two moments, and
writes weight and moments.
"""
COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}
LEAST = {"cpu": {"L2": 0.95, "L2p": None, "roofline": None}, "cuda": {"L2": 0.98, "L2p": 0.95, "roofline": 0.7}}

L1, COPY = "L1: the step alone", "copy"
ITEMS, BATCHES = "DataLoader, item by item", "DataLoader, batched"


class Case(Protocol):
    """What is trained, and on which samples."""

    title: str
    """Title of its section."""
    layout: Layout
    """Layout of the samples."""
    batch_size: int
    """Rows per batch."""
    counts_bytes: bool
    """Whether to compare the step with the device's copy rate, because it mainly reads and writes its weights."""

    def step(self, device: torch.device) -> Optimization:
        """Return a new step on a device."""
        ...

    def full_reservoir(self, **placement: Any) -> Buffer:
        """Return a reservoir whose slots are all taken.

        Args:
            placement: `device` and `pin_memory` of the buffer.
        """
        ...


def ladder(
    case: Case, device: torch.device, seconds: float, show: Callable[[int, int], None] = lambda *_: None
) -> Section:
    """Measure all arms of a case in one run.

    Args:
        case: the case.
        device: the training device.
        seconds: how long each arm runs, about.
        show: shows how many turns of arms are done, and how many there are.

    Returns:
        The section, in which ratios of arms are medians over rounds, with quartiles.
    """
    step = case.step(device)
    with ExitStack() as stack:
        arms: dict[str, Arm] = {}
        producers: dict[str, Producer] = {}
        for place, placement in _placements(device).items():
            buffer, refilled = case.full_reservoir(**placement), case.full_reservoir(**placement)
            feed, live_feed = (
                stack.enter_context(closing(_started(Feed(one, device, case.batch_size)))) for one in (buffer, refilled)
            )
            producer = stack.enter_context(closing(Producer(refilled, case.layout)))
            if not arms:
                arms[L1] = _on_one_batch(step, _next(feed))
            arms[f"L2{place}"] = _fed(step, feed)
            arms[f"L2p{place}"] = _beside(producer, _fed(step, live_feed), device)
            arms[f"feed{place}"] = _feeding(feed)
            producers[f"L2p{place}"] = producer
        for name, loader in _loaders(buffer, case.batch_size, device).items():  # the last buffer lies in host memory
            arms[name] = _loaded(step, loader, device)
            arms[f"{name}, alone"] = _loading(loader, device)
        if case.counts_bytes:
            arms[COPY] = _copying(COPY_BYTES[device.type], device)
        rounds = measure(arms, seconds, device, show)
    return _section(case, device, step, rounds, producers)


def _placements(device: torch.device) -> dict[str, dict[str, Any]]:
    """The places where a buffer may lie, by the suffix of an arm's name."""
    if device.type == "cpu":
        return {"": {}}
    return {", device memory": {"device": device}, ", pinned memory": {"pin_memory": True}}


# Arms


def _on_one_batch(step: Optimization, batch: Batch) -> Arm:
    def run(count: int) -> None:
        for _ in range(count):
            step(batch.arrays, LEARNING_RATE)

    return run


def _fed(step: Optimization, feed: Feed) -> Arm:
    def run(count: int) -> None:
        for _ in range(count):
            step(_next(feed).arrays, LEARNING_RATE)

    return run


def _feeding(feed: Feed) -> Arm:
    def run(count: int) -> None:
        for _ in range(count):
            _next(feed)

    return run


def _loaded(step: Optimization, loader: Iterator[dict[str, Tensor]], device: torch.device) -> Arm:
    def run(count: int) -> None:
        for _ in range(count):
            step(_to(device, next(loader)), LEARNING_RATE)

    return run


def _loading(loader: Iterator[dict[str, Tensor]], device: torch.device) -> Arm:
    def run(count: int) -> None:
        for _ in range(count):
            _to(device, next(loader))

    return run


def _copying(num_bytes: int, device: torch.device) -> Arm:
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)

    def run(count: int) -> None:
        for _ in range(count):
            target.copy_(source)

    return run


def _beside(producer: Producer, arm: Arm, device: torch.device) -> Arm:
    def run(count: int) -> None:
        with producer:
            arm(count)
            synchronize(device)  # steps that are still queued must have the producer beside them too

    return run


def _started(feed: Feed) -> Feed:
    feed.start()
    return feed


def _next(feed: Feed) -> Batch:
    while (batch := feed.next(lambda: False)) is None:
        pass
    return batch


def _to(device: torch.device, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: array.to(device, non_blocking=True) for name, array in arrays.items()}


class Producer:
    """An ingest thread with free samples, which it takes only inside `with`.

    Args:
        buffer: where the samples go.
        layout: layout of the samples.
    """

    def __init__(self, buffer: Buffer, layout: Layout):
        self.seconds = 0.0
        """Time in which it was allowed to ingest."""
        self._chunks = chunks(layout)
        self._may_produce, self._stopped = threading.Event(), threading.Event()
        self._ingest = Ingest(self, buffer, layout)
        self._ingest.start(self._stopped.is_set)

    @property
    def num_unique(self) -> int:
        """Number of samples that it has put into the buffer."""
        return self._ingest.counts.unique

    def next(self, timeout_s: float) -> Chunk | None:
        """Return the next chunk: the producer is the stream of its ingest.

        Args:
            timeout_s: how long to wait, in seconds.

        Returns:
            The chunk; None if the producer may not produce.
        """
        return next(self._chunks) if self._may_produce.wait(timeout_s) else None

    def __enter__(self) -> None:
        self._entered = time.perf_counter()
        self._may_produce.set()

    def __exit__(self, *_: object) -> None:
        self._may_produce.clear()
        self.seconds += time.perf_counter() - self._entered

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._ingest.join()


# torch's DataLoader over the buffer's arrays, at its best: it takes no lock and keeps no account of what was seen


class Items(Dataset):
    """One sample per index, as in the loaders of the SC 2023 paper's artefact."""

    def __init__(self, arrays: dict[str, Tensor]):
        self.arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, slot: int) -> dict[str, Tensor]:
        return {name: array[slot] for name, array in self.arrays.items()}


class Batches(Items):
    """One gather per batch, by the hook that DataLoader has for it."""

    def __getitems__(self, slots: list[int]) -> dict[str, Tensor]:
        index = torch.tensor(slots)
        return {name: array.index_select(0, index) for name, array in self.arrays.items()}


def _loaders(buffer: Buffer, batch_size: int, device: torch.device) -> dict[str, Iterator[dict[str, Tensor]]]:
    def without_end(dataset: Items, **options: Any) -> Iterator[dict[str, Tensor]]:
        sampler = RandomSampler(dataset, replacement=True, num_samples=sys.maxsize)
        return iter(DataLoader(dataset, batch_size, sampler=sampler, **options))

    state = buffer.state()  # of a full buffer this holds the arrays themselves, [slots, 1, C, *grid]
    arrays = {name: state[f"arrays.{name}"].tensor.flatten(0, 1) for name in buffer.layout.shapes}
    return {
        ITEMS: without_end(Items(arrays)),
        BATCHES: without_end(Batches(arrays), collate_fn=_unchanged, pin_memory=device.type == "cuda"),
    }


def _unchanged(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return arrays


# The section


def _section(
    case: Case, device: torch.device, step: Optimization, rounds: Rounds, producers: dict[str, Producer]
) -> Section:
    places = _placements(device)
    feeds = [f"feed{place}" for place in places]
    fastest = min(feeds, key=lambda arm: rounds.time(arm).median)
    ours = fastest.replace("feed", "L2")
    steps = [L1, *(f"{rung}{place}" for place in places for rung in ("L2", "L2p")), ITEMS, BATCHES]
    table = markdown(
        [
            [
                arm,
                f"{1e3 * rounds.time(arm).median:.3g}",
                f"{rounds.rate(arm, case.batch_size).median:.0f}",
                str(rounds.speed(arm, L1)),
                str(rounds.speed(ours, arm)),
            ]
            for arm in steps
        ],
        ["with the step", "ms per step", "samples/s", "speed against L1", f"{ours} against it"],
    )
    batch_bytes = case.batch_size * case.layout.sample_bytes
    feed_table = markdown(
        [
            [
                arm,
                f"{rounds.rate(arm, 1).median:.0f}",
                f"{rounds.rate(arm, batch_bytes / 1e9).median:.3g}",
                str(rounds.speed(fastest, arm)),
            ]
            for arm in (*feeds, f"{ITEMS}, alone", f"{BATCHES}, alone")
        ],
        ["without it", "batches/s", "GB/s", f"{fastest} against it"],
    )
    lines = []
    for arm, producer in producers.items():
        unique = producer.num_unique / producer.seconds
        reuse = rounds.rate(arm, case.batch_size).median / unique if unique else math.inf  # in a very short run
        lines.append(
            f"- {arm}: the producer put {unique:.0f} unique samples/s, {unique * case.layout.sample_bytes / 1e9:.3g} "
            f"GB/s, a reuse of {reuse:.2f}."
        )
    targets = [
        Target(
            what=f"{rung}{place} / L1",
            measured=rounds.speed(f"{rung}{place}", L1),
            least=LEAST[device.type][rung],
        )
        for rung in ("L2", "L2p")
        for place in places
    ]
    if case.counts_bytes:
        step_bytes = BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in step.surrogate.parameters())
        copied_bytes = 2 * COPY_BYTES[device.type]
        fraction = Spread(*(step_bytes / copied_bytes * ratio for ratio in rounds.speed(L1, COPY)))
        lines.append(
            f"- Roofline: the step must move {step_bytes / 1e9:.3g} GB ({BYTES_PER_PARAMETER} bytes per parameter) and "
            f"does {rounds.rate(L1, step_bytes / 1e9).median:.3g} GB/s; a copy on this device reads and writes "
            f"{rounds.rate(COPY, copied_bytes / 1e9).median:.3g} GB/s."
        )
        what = "L1, fraction of the roofline"
        targets.append(Target(what=what, measured=fraction, least=LEAST[device.type]["roofline"]))
    return Section(case.title, "\n\n".join([table, feed_table, "\n".join(lines)]), tuple(targets))
