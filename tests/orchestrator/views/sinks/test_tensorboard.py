"""Event files, read back by TensorBoard's own reader."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from penstock.orchestrator.views.sinks.scalars import scalars_of, scalars_of_errors
from penstock.orchestrator.views.sinks.sink import RESULTS
from tests.support.watched_runs import Run, errors, record, worst_case


def read(run):
    reader = EventAccumulator(str(run.folder.path / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0})
    return reader.Reload()


def shown(reader):
    """By name the steps and values."""
    return {name: {event.step: event.value for event in reader.Scalars(name)} for name in reader.Tags()["scalars"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two lives, of which the first went further than its checkpoint at step 20, and the records that hold."""
    run = Run(tmp_path_factory.mktemp("runs") / "run")
    lives = [[record(step) for step in (0, 10, 20, 30, 40)], [record(step, loss=0.5 / step) for step in (20, 25, 35)]]
    lives[0][1] = record(10, validation=errors(0.5))
    lives[1][-1] = record(35, loss=0.1, validation=errors(0.2))
    for life in lives:
        with run.sinks("tensorboard") as sinks:
            for each in life:
                sinks.take(each, (worst_case(each.step),) if each.validation else ())
    assert run.said == []
    return run, [*lives[0][:2], *lives[1]]


def test_scalars_are_those_of_the_records_once_per_step(run):
    folder, records = run
    reader = read(folder)
    expected = {}
    for each in records:
        values = scalars_of(each) | (scalars_of_errors(each.validation) if each.validation else {})
        for name, value in values.items():
            expected.setdefault(name, {})[each.step] = pytest.approx(value, rel=1e-6)  # they are stored as float32
    assert shown(reader) == expected
    assert all(len(reader.Scalars(name)) == len(steps) for name, steps in expected.items())
    assert [event.wall_time for event in reader.Scalars("training/learning_rate")] == [each.time for each in records]


def test_the_worst_cases_are_pictures(run):
    events = read(run[0]).Images("worst case")
    assert [event.step for event in events] == [10, 35]
    for event in events:
        pixels = np.asarray(Image.open(BytesIO(event.encoded_image_string)).convert("RGB"))
        assert pixels.shape == (event.height, event.width, 3) and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_the_configuration_is_there_as_hyperparameters_with_the_errors_as_metrics(run):
    metadata = read(run[0]).summary_metadata
    content = {
        name.rpartition("/")[2]: HParamsPluginData.FromString(each.plugin_data.content)
        for name, each in metadata.items()
        if each.plugin_data.plugin_name == "hparams"
    }
    given = content["session_start_info"].session_start_info.hparams
    assert given["problem.name"].string_value == "darcy" and given["training.batch_size"].number_value == 8
    assert not any(key.startswith(("launch", "cluster", "metrics", "monitor")) for key in given)
    assert [info.name.tag for info in content["experiment"].experiment.metric_infos] == list(RESULTS)
    assert set(RESULTS) <= shown(read(run[0])).keys()
    assert "session_end_info" in content


def test_a_learner_that_dies_leaves_no_points_behind_its_checkpoint(tmp_path):
    run = Run(tmp_path / "run")
    with run.sinks("tensorboard") as sinks:
        for each in (*(record(step) for step in (0, 10, 20)), record(10, loss=0.5), record(15)):
            sinks.take(each, ())
    assert {step: round(loss, 4) for step, loss in shown(read(run))["training/loss"].items()} == {
        **{0: 1.0, 10: 0.5},
        15: 0.0625,
    }
