"""Ingest: from a chunk's NumPy arrays into slots, against a plain copy of the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from penstock.learner.bench.cases import CHUNK_BYTES
from penstock.learner.bench.section import Section, Target
from penstock.learner.bench.timing import MIN_ROUNDS, spread
from penstock.learner.buffers import Reservoir
from penstock.report import markdown
from penstock.sample import FieldSpec, Layout

ROW_BYTES = (4_000_000, 400_000, 32_768)
BUFFER_BYTES = 1 << 28
LEAST = 0.8


def ingest(device: torch.device, seconds: float, buffer_bytes: int = BUFFER_BYTES) -> Section:
    """Chunks of 1 MB, or of one row where that is larger, replace seen samples of a full reservoir."""
    rows, targets = [], []
    for place, placement in _placements(device).items():
        for row_bytes in ROW_BYTES:
            put, copied = _rates(row_bytes, max(2, buffer_bytes // row_bytes), placement, seconds)
            ratio = spread([one / other for one, other in zip(put, copied, strict=True)])
            rows.append([f"{row_bytes:,}", place, f"{median(put):.3g}", f"{median(copied):.3g}", str(ratio)])
            targets.append(Target(what=f"rows of {row_bytes:,} bytes, {place}", measured=ratio, least=LEAST))
    table = markdown(rows, ["bytes a row", "buffer in", "put_now, GB/s", "copy, GB/s", "put_now against it"])
    return Section("Ingest", table, tuple(targets))


def _placements(device: torch.device) -> dict[str, dict]:
    pageable: dict[str, dict] = {"pageable memory": {}}
    if device.type == "cpu":
        return pageable
    return pageable | {"pinned memory": {"pin_memory": True}, "device memory": {"device": device}}


def _rates(row_bytes: int, num_slots: int, placement: dict, seconds: float) -> tuple[list[float], list[float]]:
    """GB/s of put_now through all slots, and of copies of the same chunks to memory of the same kind, round by round.

    The copies go to places one after another, which is the easiest way through memory.
    """
    layout = Layout((), (FieldSpec(name="field", shape=(row_bytes // 4,)),))
    buffer = Reservoir(layout, capacity=num_slots, watermark=1, seed=0, **placement)
    num_rows = min(num_slots, max(1, CHUNK_BYTES // row_bytes))
    starts = range(0, num_slots - num_rows + 1, num_rows)
    pool = np.ones((num_slots, *layout.shapes["targets"]), np.float32)
    chunks = [pool[start : start + num_rows] for start in starts]
    numbers = np.arange(num_rows)

    def put() -> None:
        for chunk in chunks:
            buffer.put_now({"targets": chunk}, numbers, numbers)

    if placement:
        target = torch.empty(pool.shape, **placement)

        def copy() -> None:
            for start, chunk in zip(starts, chunks, strict=True):
                target[start : start + num_rows].copy_(torch.from_numpy(chunk))
    else:
        host = np.empty_like(pool)

        def copy() -> None:
            for start, chunk in zip(starts, chunks, strict=True):
                np.copyto(host[start : start + num_rows], chunk)

    amount = len(chunks) * num_rows * row_bytes / 1e9
    put_rates, copy_rates = [], []
    end = time.perf_counter() + 2 * seconds
    while len(put_rates) <= MIN_ROUNDS or time.perf_counter() < end:
        buffer.draw(num_slots, 0.0)  # marks all as seen, so that each may be replaced
        put_rates.append(amount / _seconds(put, placement))
        copy_rates.append(amount / _seconds(copy, placement))
    return put_rates[1:], copy_rates[1:]  # the first round is the first to touch the memory


def _seconds(work: Callable[[], None], placement: dict) -> float:
    start = time.perf_counter()
    work()
    if "device" in placement:
        torch.cuda.synchronize()
    return time.perf_counter() - start
