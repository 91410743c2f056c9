"""What a surrogate of a step in time predicts becomes what it is given next.

Axes:  B rows, C channels, * the shape of a geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import Tensor

from penstock.layout import Block, Layout

Arrays = Mapping[str, Tensor]


class Feedback:
    """The way from the quantities of a row to the inputs of the row where it ends.

    Args:
        layout: layout of batches, whose `feeds` say which input is which quantity.
    """

    def __init__(self, layout: Layout):
        self.fed: dict[str, list[tuple[slice, str, slice]]] = {}
        """Channels of each array of inputs that are fed, with the array and the channels that feed them."""
        for block in layout.input_blocks:
            places = [
                (_channels(block, spec.name), *place_of(layout, layout.feeds[spec.name]))
                for spec in block.specs
                if spec.name in layout.feeds
            ]
            if places:
                self.fed[block.name] = places

    def next_inputs(self, given: Arrays, before: Arrays) -> dict[str, Tensor]:
        """Return the next rows' arrays, with predictions as the fed inputs.

        Args:
            given: the next rows' arrays, [B, C, *] by name; those without fed inputs are returned as they are.
            before: the arrays of the rows before, inputs as the surrogate was given them and outputs as it predicted.

        Returns:
            The arrays by name.
        """
        arrays = dict(given)
        for name, places in self.fed.items():
            arrays[name] = given[name].clone()
            for channels, source, source_channels in places:
                arrays[name][:, channels] = before[source][:, source_channels]
        return arrays


def roll_out(
    predict: Callable[[Arrays], dict[str, Tensor]], layout: Layout, rows: Iterable[Arrays]
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Apply a surrogate again and again, from the known inputs of the first rows on.

    Args:
        predict: `Surrogate.predict`, or another function from a batch to its outputs in physical units.
        layout: layout of batches.
        rows: arrays of the rows, [B, C, *] by name, each where the one before ends. Of all but the first only the
            inputs that are not fed are taken, such as constants and time.

    Yields:
        The arrays that the surrogate was given, with the true outputs, and what it predicted.
    """
    feedback, before = Feedback(layout), None
    for given in rows:
        arrays = dict(given) if before is None else feedback.next_inputs(given, before)
        predicted = predict(arrays)
        before = {**arrays, **predicted}
        yield arrays, predicted


def place_of(layout: Layout, name: str) -> tuple[str, slice]:
    """The array and the channels of a quantity, by its name."""
    (block,) = (b for b in (*layout.input_blocks, *layout.output_blocks) if name in b.channels)
    return block.name, _channels(block, name)


def _channels(block: Block, name: str) -> slice:
    channels = block.channels[name]
    return channels if isinstance(channels, slice) else slice(channels, channels + 1)
