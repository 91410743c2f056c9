"""Windows of a simulation: frames at some times that lead to frames at later ones.

Axes:  B rows of a batch, T steps, C channels, k frames before, m frames after, * the shape of a geometry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from penstock.layout import Block, FieldSpec, Layout
from penstock.learner.buffers.units import Frames, Part, Unit, check_num_steps


@dataclass(frozen=True)
class Windows(Unit):
    """Frames of a simulation, k stride apart, that lead to the m frames after them.

    A frame is the state at one time: the outputs of a step. Where `Layout.feeds` says which input x of a step is an
    output u of the step before, frames begin with the x of step 0, k frames are the inputs x_0, ..., x_{k-1} (x alone
    if k = 1) in place of x, and outputs that feed no input are no part of them. Elsewhere they are u_before_0, ...,
    u_before_{k-1} (or u_before), of every output u. The m frames after are the outputs u_0, ..., u_{m-1} (or u). All
    other inputs are those of the step that leads away from the last of the k frames or, where no input is fed, to it.

    A unit gives its windows one after another, starting with a random one. A frame is stored once: of an array whose
    inputs are all fed, only step 0 is kept.

    Args:
        num_steps: number T > 1 of samples in a simulation, given by the problem.
        inputs: number of frames k that the surrogate is given. Good values: 1 where the state at one time determines
            the next, 2 to 10 where it doesn't.
        outputs: number of frames m that it predicts at once: temporal bundling (Brandstetter, Worrall and Welling, ICLR
            2022, arXiv 2202.03376). Good values: 1 to 25.
        stride: number of steps between frames.

    Raises:
        ValueError: a simulation has too few samples, or an option is below 1.
    """

    num_steps: int
    inputs: int = 1
    outputs: int = 1
    stride: int = 1
    num_unrolled: int = field(default=1, init=False, repr=False)
    follows_feeds: bool = field(default=False, init=False, repr=False)
    """Whether fed inputs are frames, of which that of step 0 is one more than there are steps."""

    def __post_init__(self):
        check_num_steps("windows", self.num_steps)
        for name in ("inputs", "outputs", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of windows must be at least 1, not {getattr(self, name)}")

    def fitted(self, layout: Layout) -> Windows:
        return self._changed(follows_feeds=bool(layout.feeds))

    def unrolled(self, num: int) -> Windows:
        return self._changed(num_unrolled=num)

    def _changed(self, **changes: int | bool) -> Windows:
        unit = replace(self)
        for name, value in {"num_unrolled": self.num_unrolled, "follows_feeds": self.follows_feeds, **changes}.items():
            object.__setattr__(unit, name, value)
        if unit.num_choices < 1:
            num_frames = self.inputs + self.outputs * unit.num_unrolled
            raise ValueError(
                f"{num_frames} frames {self.stride} apart are more than a simulation has, which is "
                f"{self.num_steps + unit.follows_feeds}: give it more steps, or ask for fewer frames"
            )
        return unit

    @property
    def num_windows(self) -> int:
        return self.num_steps + self.follows_feeds - (self.inputs + self.outputs - 1) * self.stride

    @property
    def num_choices(self) -> int:
        return self.num_windows - (self.num_unrolled - 1) * self.outputs * self.stride

    def frames(self, layout: Layout) -> Frames:
        names = [[_numbered(spec.name, j, self.outputs) for spec in layout.outputs] for j in range(self.outputs)]
        return Frames(tuple(map(tuple, names)), self.stride)

    def layout(self, layout: Layout) -> Layout:
        fed, k, m = self._fed(layout), self.inputs, self.outputs
        others = [spec for spec in layout.inputs if spec.name not in fed]
        before = [replace(spec, name=_numbered(name, i, k)) for i in range(k) for name, spec in fed.items()]
        after = [replace(spec, name=_numbered(spec.name, j, m)) for j in range(m) for spec in layout.outputs]
        feeds = {
            _numbered(name, i, k): _numbered(name, i + m, k) if i + m < k else _numbered(spec.name, i + m - k, m)
            for i in range(k)
            for name, spec in fed.items()
        }
        return Layout((*others, *before), tuple(after), feeds)

    def num_kept(self, block: Block) -> int:
        return 1 if block.is_fed and self.follows_feeds else super().num_kept(block)

    def parts(self, layout: Layout) -> dict[str, list[Part]]:
        # with feeds the frame at step t is an input of step t, and an output of step t - 1
        fed, k, stride = self._fed(layout), self.inputs, self.stride
        last = (k - 1) * stride
        before = {
            _numbered(name, i, k): _part_of(name if self.follows_feeds else spec.name, layout, i * stride, spec.name)
            for i in range(k)
            for name, spec in fed.items()
        }
        parts = {spec.name: _part_of(spec.name, layout, last) for spec in layout.inputs if spec.name not in fed}
        parts |= before
        for j in range(self.outputs):
            after = last + (j + 1) * stride - self.follows_feeds
            for spec in layout.outputs:
                parts[_numbered(spec.name, j, self.outputs)] = _part_of(spec.name, layout, after)
        batch = self.layout(layout)
        return {
            name: [Part(name)] if block.role == "geometry" else _joined([parts[spec.name] for spec in block.specs])
            for name, block in batch.blocks.items()
        }

    def _fed(self, layout: Layout) -> dict[str, FieldSpec]:
        """The outputs that become inputs, by the input's name without a number."""
        outputs = {spec.name: spec for spec in layout.outputs}
        if self.follows_feeds:
            return {name: outputs[source] for name, source in layout.feeds.items()}
        return {f"{name}_before": spec for name, spec in outputs.items()}

    def merged(self, stored: Tensor) -> Tensor:
        return stored.flatten(0, 1)

    def rows(self, units: np.ndarray, choices: np.ndarray) -> np.ndarray:
        return units * self.num_steps + choices

    def drawn_rows(self, units: np.ndarray, choices: np.ndarray) -> np.ndarray:
        advance = self.outputs * self.stride
        return np.concatenate([self.rows(units, choices + n * advance) for n in range(self.num_unrolled)])

    def gather_part(self, part: Part, merged: Mapping[str, Tensor], layout: Layout, rows: Tensor, out: Tensor) -> None:
        if self.num_kept(layout.blocks[part.array]) > 1:
            super().gather_part(replace(part, earlier=None), merged, layout, rows + part.steps_after, out)
            return
        if part.earlier is None:
            super().gather_part(part, merged, layout, rows // self.num_steps, out)
            return
        # of a fed input step 0 alone is kept
        super().gather_part(part.earlier, merged, layout, (rows + part.steps_after - 1).clamp(min=0), out)
        if part.steps_after == 0:
            first = torch.empty_like(out)
            super().gather_part(part, merged, layout, rows // self.num_steps, first)
            is_first = (rows % self.num_steps == 0).reshape(-1, *[1] * (out.dim() - 1))
            torch.where(is_first, first, out, out=out)


@dataclass(frozen=True)
class Pairs(Windows):
    """Two frames of a simulation, k steps apart.

    They are windows with one frame before and one after. So they lead from the inputs and outputs at step t to the
    outputs at step t + k, and an output u is the input u_before at step t; or, where inputs are fed, from the inputs of
    a step to the state k steps later.

    Args:
        num_steps: number T > 1 of samples in a simulation, given by the problem.
        stride: number of steps k between the two, at least 1 and less than the number of samples in a simulation.

    Raises:
        ValueError: a simulation has only one sample, or k is out of range.
    """

    inputs: int = field(default=1, init=False, repr=False)
    outputs: int = field(default=1, init=False, repr=False)
    stride: int = 1

    def __post_init__(self):
        check_num_steps("pairs", self.num_steps)
        if not 1 <= self.stride < self.num_steps:
            raise ValueError(f"the stride of pairs must be between 1 and {self.num_steps - 1}, not {self.stride}")


def _numbered(name: str, number: int, count: int) -> str:
    return name if count == 1 else f"{name}_{number}"


def _part_of(name: str, layout: Layout, steps_after: int, stored_as: str | None = None) -> Part:
    """The part that is one quantity of samples.

    `stored_as` is the output that holds it one step before.
    """
    role = "input" if any(spec.name == name for spec in layout.inputs) else "output"
    (block,) = (b for b in layout.blocks.values() if b.role == role and name in b.channels)
    channels = block.channels[name]
    channels = channels if isinstance(channels, slice) else slice(channels, channels + 1)
    earlier = _part_of(stored_as, layout, steps_after) if role == "input" and stored_as is not None else None
    return Part(block.name, channels, steps_after, earlier)


def _joined(parts: list[Part]) -> list[Part]:
    """The parts, with neighbours of one array and step as one."""
    joined = parts[:1]
    for part in parts[1:]:
        last = joined[-1]
        is_next = (last.array, last.steps_after, last.channels.stop) == (
            part.array,
            part.steps_after,
            part.channels.start,
        )
        if is_next and last.earlier is None and part.earlier is None:
            joined[-1] = replace(last, channels=slice(last.channels.start, part.channels.stop))
        else:
            joined.append(part)
    return joined
