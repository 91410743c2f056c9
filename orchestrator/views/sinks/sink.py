"""The interface of a program that shows runs, and what it is given."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import ClassVar

from penstock.arrays import zarr_store
from penstock.layout import Layout
from penstock.orchestrator.views.pictures.samples import draw_comparison
from penstock.status import WorstCase

WORST_CASE = "worst case"
"""What the pictures are called."""
RESULTS = ("errors/relative_l2/mean", "errors/vrmse", "training/loss")
"""The scalars by which runs are compared."""
_DRAWING = threading.Lock()  # matplotlib's pyplot is for one thread at a time


class Picture:
    """The worst case of a validation beside its prediction, drawn when asked for.

    Args:
        worst: the worst case.
        layout: layout of its arrays, of which an output is a field.
    """

    def __init__(self, worst: WorstCase, layout: Layout):
        self.step = worst.step
        """Number of optimizer steps up to these weights."""
        self._worst = worst
        self._layout = layout
        self._png: bytes | None = None

    def png(self) -> bytes:
        """The picture as a PNG."""
        with _DRAWING:
            if self._png is None:
                self._png = self._draw()
            return self._png

    def _draw(self) -> bytes:
        worst, arrays = self._worst, zarr_store.by_name(self._worst.arrays, self._layout)
        outputs = [block.by_name(worst.predictions[block.name]) for block in self._layout.output_blocks]
        predictions = {name: values for quantities in outputs for name, values in quantities.items()}
        errors = {name: [error] for name, error in worst.errors.items()}
        file = BytesIO()
        draw_comparison(file, arrays, predictions, errors, self._layout, [f"validation row {worst.row}"])
        return file.getvalue()


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is shown of a run at one step."""

    step: int
    time_s: float
    """Seconds since 1970-01-01 UTC."""
    scalars: Mapping[str, float]
    """By names in which slashes make groups."""
    picture: Picture | None = None


class Sink(ABC):
    """A program that shows runs.

    One thread makes all calls. They may raise anything, or hang: see `Guarded`.

    Args:
        folder: the run folder, whose name is that of the run.
        parameters: the configuration by dotted keys.
    """

    package: ClassVar[str]
    """Name by which its package is imported."""
    install: ClassVar[str]
    """What pip is asked for."""

    def __init__(self, folder: Path, parameters: Mapping[str, object]):
        self.folder = folder
        self.parameters = parameters

    @abstractmethod
    def begin(self, step: int) -> None:
        """Begin, or go on from a checkpoint.

        Args:
            step: the first that will come. Points of this and later steps that came before are void.
        """

    @abstractmethod
    def take(self, point: Point) -> None:
        """Show a point.

        Args:
            point: the point, of a higher step than the one before since `begin`.
        """

    @abstractmethod
    def end(self, *, has_failed: bool) -> None:
        """End after the last point.

        Args:
            has_failed: whether the run did.
        """
