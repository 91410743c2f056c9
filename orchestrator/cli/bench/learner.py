"""`penstock bench learner`: what limits the training of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from penstock.layout import Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.ladder.ladder import ladder
from penstock.learner.ladder.samples import full_reservoir
from penstock.learner.optimization import Optimization
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import Plan, resolve
from penstock.orchestrator.resources.placement import pick_device
from penstock.orchestrator.views.terminal.screen import Form, Screen

LEGEND = """L1 is the step on one batch that stays on the device, L2 the step fed from a full buffer, L2p the
same while a thread puts samples into the buffer as fast as the buffer accepts them, "feed" the batches without a step.
The gap from L1 to L2 is the cost of feeding, the gap from L2 to L2p the cost of ingestion; a run reaches L2 at most.
DataLoader is torch's, over the same buffer. Ratios are medians over rounds, with quartiles in brackets."""


@dataclass(frozen=True)
class _OwnRun:
    """A configuration's model and data, in the form that `ladder` takes."""

    plan: Plan
    counts_bytes: bool = False

    @property
    def title(self) -> str:
        config = self.plan.config
        return f"{config.model.name} on {config.problem.name}, batch {self.batch_size}"

    @property
    def layout(self) -> Layout:
        return self.plan.batch_layout

    @property
    def batch_size(self) -> int:
        return self.plan.config.training.batch_size

    def step(self, device: torch.device) -> Optimization:
        return self.plan.step(self.plan.surrogate().to(device))

    def full_reservoir(self, **placement: Any) -> Buffer:
        return full_reservoir(self.layout, self.plan.config.buffer.capacity, **placement)


def bench_learner(config: Config, seconds: float, form: Form = Form.PEOPLE) -> None:
    """Measure a training step alone, fed from a full buffer, and beside ingestion.

    Args:
        config: the run's configuration.
        seconds: time for each measurement.
        form: what is printed.

    Raises:
        PenstockError: the configuration can't be resolved.
    """
    device = pick_device(config.training.device)
    screen, run = Screen(form), _OwnRun(resolve(config))
    with screen.progress("measurements") as progress:
        section = ladder(run, device, seconds, progress.show)
    screen.say(f"## {section.title}\n\n{section.text}\n\n{LEGEND}")
    ratios = {target.what: target.measured._asdict() for target in section.targets}
    screen.give("result", {"title": section.title, "ratios": ratios, "text": section.text})
    screen.drain()
