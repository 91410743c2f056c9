"""Which channels of a layout are frames: one state of a system at several times.

Axes:  C channels, m predicted frames.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from penstock.layout import Block, FieldSpec, Layout

NUMBERED = re.compile(r"(.+)_(\d+)")


@dataclass(frozen=True)
class FrameLayout:
    """The frames among the input fields and the outputs of one geometry.

    Windows and trajectories name the quantities of frame i `<name>_i`, with all quantities of a frame before those of
    the next. Given frames are the inputs that are fed, see `Layout.feeds`; predicted ones are the outputs. A layout
    whose names do not say so has one frame of each. Without fed inputs all input fields are the given frame.
    """

    given: tuple[tuple[int, ...], ...]
    """Channels of the input fields that make up each given frame, in the order of time."""
    others: tuple[int, ...]
    """Channels of the input fields that are in no frame."""
    num_predicted: int
    """Number m of frames among the outputs, [m, C] in the order of the channels."""
    carried: tuple[int | None, ...]
    """For each channel of a predicted frame, the same quantity's in the last given frame; None if it is not given."""

    @classmethod
    def of(cls, layout: Layout) -> FrameLayout:
        """Read a layout.

        Args:
            layout: layout of batches, all of whose outputs are fields on one geometry.

        Returns:
            Its frames.
        """
        (outputs,) = layout.output_blocks
        fields = next((block for block in layout.input_blocks if block.on == outputs.on), None)
        specs = () if fields is None else fields.specs
        fed = [spec for spec in specs if spec.name in layout.feeds]
        states = _frames_of(fed or specs)
        given = tuple(tuple(c for spec in state for c in _channels(fields, spec.name)) for state in states)
        in_frames = {channel for frame in given for channel in frame}
        others = tuple(
            channel for spec in specs for channel in _channels(fields, spec.name) if channel not in in_frames
        )
        predicted = _frames_of(outputs.specs)
        source = {layout.feeds[spec.name]: spec.name for spec in states[-1]} if fed else {}
        carried: list[int | None] = []
        for spec in predicted[-1]:
            carried += _channels(fields, source[spec.name]) if spec.name in source else [None] * spec.components
        return cls(given, others, len(predicted), tuple(carried))


def numbers(channels: Sequence[int]) -> Tensor:
    """Return channels as int64, for a buffer: a list would be copied at each step."""
    return torch.tensor(channels, dtype=torch.long, device="cpu")


class Persistence(nn.Module):
    """The forecast that all stays as it is, to which a model adds the change: a u + b.

    a and b are numbers for each channel of each predicted frame, 1 and 0 at first: what a model is given and what it
    predicts are normalised apart, so the same state has other values in each frame.

    Args:
        frames: the frames.
    """

    def __init__(self, frames: FrameLayout):
        super().__init__()
        places = [place for place, source in enumerate(frames.carried) if source is not None]
        self.register_buffer("sources", numbers([frames.carried[place] for place in places]), persistent=False)
        identity = torch.eye(len(frames.carried), device="cpu")
        self.register_buffer("places", identity.index_select(0, numbers(places)), persistent=False)
        self.weight = nn.Parameter(torch.ones(frames.num_predicted, len(places)))
        self.bias = nn.Parameter(torch.zeros(frames.num_predicted, len(places)))

    @property
    def is_carried(self) -> Tensor:
        """Whether there is a forecast for each channel of a frame, [C], 1 or 0."""
        return self.places.sum(dim=0)

    def forward(self, fields: Tensor) -> Tensor:
        """Return the forecast of every predicted frame.

        Args:
            fields: input fields, channels last [..., C].

        Returns:
            [..., m, C], 0 for quantities that are not given.
        """
        last = fields.index_select(-1, self.sources)
        return (last[..., None, :] * self.weight + self.bias) @ self.places


def _frames_of(specs: Sequence[FieldSpec]) -> list[list[FieldSpec]]:
    """The quantities of each frame, all in one unless windows number names so."""
    found = [NUMBERED.fullmatch(spec.name) for spec in specs]
    if not specs or not all(found):
        return [[*specs]] if specs else []
    states: dict[str, list[FieldSpec]] = {}
    for match, spec in zip(found, specs, strict=True):
        states.setdefault(match[2], []).append(spec)
    if [*states] != [str(number) for number in range(len(states))]:
        return [[*specs]]
    first = [replace(spec, name=spec.name.removesuffix("0")) for spec in states["0"]]
    expected = [replace(spec, name=f"{spec.name}{number}") for number in states for spec in first]
    return [*states.values()] if expected == [*specs] else [[*specs]]


def _channels(block: Block, name: str) -> list[int]:
    channels = block.channels[name]
    return [channels] if isinstance(channels, int) else [*range(channels.start, channels.stop)]
