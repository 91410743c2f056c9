"""Packing samples into the arrays of a chunk, one by one.

Axes:  N rows, C channels, * the shape of a geometry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.arrays.brought_along import brought_along
from penstock.arrays.conversion import DTYPE, as_numbers, require_kept
from penstock.arrays.ragged import Ragged, Rows
from penstock.errors import Refused

if TYPE_CHECKING:
    from penstock.layout import Block, Layout, Sample


class Room:
    """Arrays that samples are packed into, each value converted once and in its place.

    Args:
        layout: layout of the samples.
        num_rows: the most samples.
    """

    def __init__(self, layout: Layout, num_rows: int):
        self._layout = layout
        self._arrays: dict[str, np.ndarray | list[np.ndarray]] = {  # lists of arrays [C, L] where points vary
            name: [] if block.is_ragged else np.empty((num_rows, *block.shape), block.dtype)
            for name, block in layout.blocks.items()
        }
        self._bytes: list[int] = []  # of each sample
        self.num_bytes = 0
        """Bytes of the samples."""

    def __len__(self) -> int:
        return len(self._bytes)

    def arrays(self) -> dict[str, Rows]:
        """The samples' arrays by name, [N, C, *] as views, or ragged."""
        if not len(self):
            return self._layout.empty()
        return {
            name: Ragged.of(rows) if isinstance(rows, list) else rows[: len(self)]
            for name, rows in self._arrays.items()
        }

    def keep(self, numbers: Sequence[int]) -> None:
        """Keep some of the samples.

        Args:
            numbers: their numbers, in order.
        """
        for rows in self._arrays.values():
            if isinstance(rows, list):
                rows[:] = [rows[number] for number in numbers]
            else:
                rows[: len(numbers)] = rows[list(numbers)]
        self._bytes = [self._bytes[number] for number in numbers]
        self.num_bytes = sum(self._bytes)

    @np.errstate(over="ignore")  # a value beyond float32 becomes infinite, and is refused
    def add(self, sample: Sample) -> None:
        """Pack a sample.

        Args:
            sample: the sample.

        Raises:
            Refused: as by `Layout.pack`; the sample is not in then.
        """
        layout, number, travelling = self._layout, len(self), {}
        for geometry in layout.travelling:
            travelling |= brought_along(geometry, sample.geometry)
        if surplus := sample.geometry.keys() - travelling.keys():
            known = ", ".join(travelling) or "none"
            raise Refused(f"the sample's geometry has {sorted(surplus)}, and its fields' geometries take {known}")
        if both := sample.inputs.keys() & sample.outputs.keys():
            raise Refused(f"{', '.join(sorted(both))} is among both the inputs and the outputs of the sample")
        # By name, because `problem.swap` changes roles and leaves the samples as they are.
        values = {**({} if sample.time is None else {"time": sample.time}), **sample.inputs, **sample.outputs}
        if values.keys() != layout.names:
            _require_names(layout.names, values.keys(), sample)
        ragged, num_bytes = {}, 0
        for name, block in layout.blocks.items():
            rows = self._arrays[name]
            if block.role == "geometry":
                array = travelling[name]
                if not block.is_ragged:
                    rows[number] = array
            else:
                array = None if block.is_ragged else rows[number]
                array = _packed(block, values, travelling, array)
            if block.is_ragged:
                ragged[name] = array
            num_bytes += array.nbytes
        for name, array in ragged.items():  # now that the whole sample is good
            self._arrays[name].append(array)
        self._bytes.append(num_bytes)
        self.num_bytes += num_bytes


def _require_names(expected: Set[str], names: Set[str], sample: Sample) -> None:
    """Raise Refused unless these are the names of the FieldSpecs.

    `Sample.time` may be there beside them.
    """
    missing, surplus = expected - names, (sample.inputs.keys() | sample.outputs.keys()) - expected
    faults = []
    if missing:
        faults.append(f"lacks {', '.join(map(repr, sorted(missing)))}")
    if surplus:
        faults.append(f"has {', '.join(map(repr, sorted(surplus)))}, which no FieldSpec names")
    if faults:
        raise Refused(f"the sample {', and '.join(faults)}")


def _packed(
    block: Block, values: Mapping[str, Any], travelling: Mapping[str, np.ndarray], out: np.ndarray | None
) -> np.ndarray:
    """A block's quantities in `out`, or in a new array where points vary.

    They are 0 outside of a mask.
    """
    shape, outside = block.shape[1:], None
    if travelling and block.on is not None and block.on.travelling:
        weights = travelling[block.on.named("weights")][0]
        shape, outside = weights.shape, None if block.is_ragged else weights == 0
    packed = np.empty((block.shape[0], *shape), DTYPE) if out is None else out
    for spec in block.specs:
        value = values[spec.name]
        if type(value) is not np.ndarray or value.dtype.kind != "f":
            value = as_numbers(spec.name, value)
        expected = shape if spec.components == 1 else (spec.components, *shape)
        if value.shape != expected:
            is_turned = spec.components > 1 and value.shape == (*shape, spec.components)
            hint = ": components come first" if is_turned else ""
            raise Refused(f"{spec.name!r} has shape {value.shape}, its FieldSpec says {expected}{hint}")
        if outside is not None:
            value = np.where(outside, 0, value)
        channel = block.channels[spec.name]
        packed[channel] = value
        kept = packed[channel]
        if outside is not None:
            value, kept = value[..., ~outside], kept[..., ~outside]
        require_kept(spec.name, value, kept)
    return packed
