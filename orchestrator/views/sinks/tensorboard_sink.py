"""A run for TensorBoard: event files in its folder."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from penstock.orchestrator.views.sinks.sink import RESULTS, WORST_CASE, Point, Sink

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardSink(Sink):
    """Writes event files into the folder `tensorboard` of the run folder.

    A resumed run writes a further file there, whose first step purges later steps of the earlier files.
    """

    package = "tensorboard"
    install = "penstock[tensorboard]"

    _writer: SummaryWriter | None = None

    def begin(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        if self._writer is not None:
            self._writer.close()
        self._writer = SummaryWriter(self.folder / "tensorboard", purge_step=step)
        parameters = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in self.parameters.items()
        }
        # add_hparams would make another run for them
        experiment, start, self._hparams_end = hparams(parameters, dict.fromkeys(RESULTS))
        for summary in (experiment, start):
            self._writer.file_writer.add_summary(summary)

    def take(self, point: Point) -> None:
        for name, value in point.scalars.items():
            self._writer.add_scalar(name, value, point.step, point.time_s)
        if point.picture is not None:
            self._writer.file_writer.add_summary(_image(point.picture.png()), point.picture.step, point.time_s)
        self._writer.flush()

    def end(self, *, has_failed: bool) -> None:
        self._writer.file_writer.add_summary(self._hparams_end)
        self._writer.close()


def _image(png: bytes):
    """A summary with a PNG as it is, where `add_image` takes pixels."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = struct.unpack(">II", png[16:24])  # of its first chunk, IHDR
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=WORST_CASE, image=image)])
