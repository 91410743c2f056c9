"""A run for MLflow."""

from __future__ import annotations

import logging
import os
from io import BytesIO
from typing import Any

from PIL import Image

from penstock.orchestrator.views.sinks.sink import Point, Sink

MOST_CHARACTERS = 500  # of a parameter, in older servers


class MlflowSink(Sink):
    """Logs to the MLflow server or database of MLFLOW_TRACKING_URI.

    Without that variable it is `mlflow.db` in the run folder. A resumed run goes on in the run of its name there. What
    was logged after its checkpoint stays.
    """

    package = "mlflow"
    install = "mlflow"

    _client: Any = None

    def begin(self, step: int) -> None:
        if self._client is not None:  # what was logged can't be taken back
            return
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        for chatty in ("mlflow", "alembic"):  # they would write to the run's terminal
            logging.getLogger(chatty).setLevel(logging.WARNING)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{self.folder / 'mlflow.db'}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "penstock")
        if (experiment := self._client.get_experiment_by_name(name)) is not None:
            experiment_id = experiment.experiment_id
        else:
            artifacts = None if uri else (self.folder / "mlflow").as_uri()
            experiment_id = self._client.create_experiment(name, artifact_location=artifacts)
        found = self._client.search_runs([experiment_id], f"attributes.run_name = '{self.folder.name}'")
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(experiment_id, run_name=self.folder.name).info.run_id
        parameters = [Param(key, str(value)[:MOST_CHARACTERS]) for key, value in self.parameters.items()]
        for start in range(0, len(parameters), 100):  # a call takes 100
            self._client.log_batch(self._id, params=parameters[start : start + 100])

    def take(self, point: Point) -> None:
        from mlflow.entities import Metric

        milliseconds = round(1000 * point.time_s)
        metrics = [Metric(name, value, milliseconds, point.step) for name, value in point.scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)
        if point.picture is not None:
            image = Image.open(BytesIO(point.picture.png()))
            self._client.log_image(self._id, image, artifact_file=f"worst_case/{point.picture.step:09}.png")

    def end(self, *, has_failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if has_failed else "FINISHED")
