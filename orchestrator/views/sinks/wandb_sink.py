"""A run for Weights & Biases."""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any

from PIL import Image

from penstock.orchestrator.views.sinks.sink import WORST_CASE, Point, Sink


class WandbSink(Sink):
    """Logs to Weights & Biases, as its environment variables say.

    Where no key is configured the run is kept in the folder `wandb` of the run folder, for `wandb sync`, and no
    key is asked for. A resumed run has the same id there. What was logged after its checkpoint stays.
    """

    package = "wandb"
    install = "wandb"

    _run: Any = None

    def begin(self, step: int) -> None:
        if self._run is not None:  # what was logged can't be taken back
            return
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "penstock"),
            id=self.folder.name,
            name=self.folder.name,
            dir=self.folder,
            config=dict(self.parameters),
            resume="allow",
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def take(self, point: Point) -> None:
        values: dict[str, Any] = {"step": point.step, **point.scalars}
        if point.picture is not None:
            import wandb

            image, caption = Image.open(BytesIO(point.picture.png())), f"step {point.picture.step}"
            values[WORST_CASE] = wandb.Image(image, caption=caption)
        self._run.log(values)

    def end(self, *, has_failed: bool) -> None:
        self._run.finish(exit_code=int(has_failed))
