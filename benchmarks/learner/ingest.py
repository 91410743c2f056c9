"""Ingest of a chunk's NumPy arrays into slots, against a copy of the same bytes."""

from __future__ import annotations

import time

import numpy as np
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Reservoir
from penstock.learner.ladder.section import Section, Target
from penstock.learner.ladder.timing import MIN_ROUNDS, Rounds, seconds_of
from penstock.messages import CHUNK_BYTES
from penstock.report import markdown

ROW_BYTES = (4_000_000, 400_000, 32_768)
BUFFER_BYTES = 1 << 28
LEAST = 0.8


def ingest(device: torch.device, seconds: float, buffer_bytes: int = BUFFER_BYTES) -> Section:
    """The section on ingest.

    Chunks of 1 MB, or of one row where that is larger, replace seen samples of a full reservoir.
    """
    rows, targets = [], []
    for place, placement in _placements(device).items():
        for row_bytes in ROW_BYTES:
            rounds, amount = _rounds(row_bytes, max(2, buffer_bytes // row_bytes), placement, device, seconds)
            ratio = rounds.speed("put_now", "copy")
            rates = [f"{rounds.rate(arm, amount / 1e9).median:.3g}" for arm in ("put_now", "copy")]
            rows.append([f"{row_bytes:,}", place, *rates, str(ratio)])
            targets.append(Target(what=f"rows of {row_bytes:,} bytes, {place}", measured=ratio, least=LEAST))
    table = markdown(rows, ["bytes per row", "buffer in", "put_now, GB/s", "copy, GB/s", "put_now against it"])
    return Section("Ingest", table, tuple(targets))


def _placements(device: torch.device) -> dict[str, dict]:
    pageable: dict[str, dict] = {"pageable memory": {}}
    if device.type == "cpu":
        return pageable
    return pageable | {"pinned memory": {"pin_memory": True}, "device memory": {"device": device}}


def _rounds(
    row_bytes: int, num_slots: int, placement: dict, device: torch.device, seconds: float
) -> tuple[Rounds, float]:
    """Times of put_now through all slots and of copies of the same chunks.

    The copies go to memory of the same kind, to places one after another, which is the easiest way through memory.

    Returns:
        The times, and the bytes of either.
    """
    layout = Layout((), (FieldSpec(name="field", on=Grid((row_bytes // 4,))),))
    (field,) = layout.output_blocks
    buffer = Buffer(layout, Reservoir(), capacity=num_slots, watermark=1, seed=0, **placement)
    num_rows = min(num_slots, max(1, CHUNK_BYTES // row_bytes))
    starts = range(0, num_slots - num_rows + 1, num_rows)
    pool = np.ones((num_slots, *field.shape), np.float32)
    chunks = [pool[start : start + num_rows] for start in starts]
    numbers = np.arange(num_rows)

    def put() -> None:
        for chunk in chunks:
            buffer.put_now({field.name: chunk}, numbers, numbers)

    if "device" in placement:
        target = torch.empty(pool.shape, **placement)

        def copy() -> None:
            for start, chunk in zip(starts, chunks, strict=True):
                target[start : start + num_rows].copy_(torch.from_numpy(chunk))
    else:  # by one thread, as puts are: torch's copy_ would take all cores
        host = torch.empty(pool.shape, **placement).numpy() if placement else np.empty_like(pool)

        def copy() -> None:
            for start, chunk in zip(starts, chunks, strict=True):
                np.copyto(host[start : start + num_rows], chunk)

    times: dict[str, list[float]] = {"put_now": [], "copy": []}
    end = time.perf_counter() + 2 * seconds
    while len(times["copy"]) <= MIN_ROUNDS or time.perf_counter() < end:
        buffer.draw(num_slots, 0.0)  # marks all samples as seen, so that each may be replaced
        times["put_now"].append(seconds_of(put, device))
        times["copy"].append(seconds_of(copy, device))
    # The first round is left out, because it is the first to touch the memory.
    return Rounds({arm: values[1:] for arm, values in times.items()}), len(chunks) * num_rows * row_bytes
