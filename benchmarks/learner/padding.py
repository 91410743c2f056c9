"""The cost of padding where points vary from sample to sample."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.learner.cases import LEARNING_RATE, Case, mesh
from benchmarks.report import paragraph
from penstock.learner.buffers.storage import counted_by
from penstock.learner.ladder.section import Section, Target
from penstock.learner.ladder.timing import Arm, measure
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.report import markdown

INTRODUCTION = """
Samples of {least} to {most} points, {mean:.0f} on average. In the buffer each takes room for {slot} points: {in_slots:.3g}
MB for {of_data:.3g} MB of data, {share:.3g} times as much. A batch is cut to the longest of its samples, rounded up.
"without a mask" is the same model on a mesh of {mean:.0f} points that all samples share, so that there is neither
padding nor a weight that travels; "uncut" is a batch with all the padding of its slots.
"""  # noqa: E501


def padding(case: Case, device: torch.device, seconds: float) -> Section:
    """The section on padding, for a case on points that vary."""
    buffer = case.full_reservoir()
    batch = buffer.draw(case.batch_size, 0.0)
    (block,) = case.layout.output_blocks
    counts = np.count_nonzero(buffer.storage.arrays[counted_by(block)][:, 0, -1].numpy(), axis=-1)
    same = mesh(round(counts.mean()), batch_size=case.batch_size)
    arms = {
        "with masks, cut": _steps(case, {name: array.to(device) for name, array in batch.arrays.items()}, device),
        "with masks, uncut": _steps(case, free_samples(case.layout, case.batch_size, device), device),
        "without a mask": _steps(same, free_samples(same.layout, case.batch_size, device), device),
    }
    rounds = measure(arms, seconds, device)
    table = markdown(
        [[arm, f"{1e3 * rounds.time(arm).median:.3g}", str(rounds.speed("without a mask", arm))] for arm in arms],
        ["step", "ms", "time against that without a mask"],
    )
    text = paragraph(
        INTRODUCTION.format(
            least=counts.min(),
            most=counts.max(),
            mean=counts.mean(),
            slot=block.shape[-1],
            in_slots=buffer.storage.num_bytes / 1e6,
            of_data=buffer.storage.num_bytes / 1e6 * counts.mean() / block.shape[-1],
            share=block.shape[-1] / counts.mean(),
        )
    )
    ratio = rounds.speed("without a mask", "with masks, cut")
    return Section(
        "Padding",
        f"{text}\n\n{table}",
        (Target(what="a step with masks, in times of one without", measured=ratio),),
    )


def _steps(case: Case, arrays: dict[str, torch.Tensor], device: torch.device) -> Arm:
    step = case.step(device)

    def run(count: int) -> None:
        for _ in range(count):
            step(arrays, LEARNING_RATE)

    return run
