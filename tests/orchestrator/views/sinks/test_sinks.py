"""What sinks get of a run's records, and that none can hold it up or end it."""

import json
import threading

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.views.sinks import sinks as module
from penstock.orchestrator.views.sinks.by_name import SINKS, require_packages
from penstock.orchestrator.views.sinks.guarded import Guarded
from penstock.orchestrator.views.sinks.scalars import scalars_of, scalars_of_errors
from penstock.orchestrator.views.sinks.sink import Point, Sink
from tests.support.waiting import wait_until
from tests.support.watched_runs import Run, errors, record, worst_case


class Notes(Sink):
    """A sink that notes what it is asked for."""

    package = "json"
    install = "notes"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.calls = []
        self.points = []
        self.made.append(self)

    def begin(self, step):
        self.calls.append(("begin", step))

    def take(self, point):
        self.calls.append(("take", point.step))
        self.points.append(point)

    def end(self, *, has_failed):
        self.calls.append(("end", has_failed))


class Raises(Notes):
    def take(self, point):
        raise SystemExit("no more room")


class Blocks(Notes):
    def begin(self, step):
        super().begin(step)
        self.goes_on.wait()


@pytest.fixture(autouse=True)
def made(monkeypatch):
    Notes.made = []
    Blocks.goes_on = threading.Event()
    monkeypatch.setitem(SINKS, "tensorboard", Notes)
    yield Notes.made
    Blocks.goes_on.set()


def events(run):
    path = run.folder.events
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_there_is_one_point_per_step_with_the_last_that_is_known_at_it(tmp_path, made):
    run = Run(tmp_path / "run")
    with run.sinks("tensorboard") as sinks:
        sinks.take(record(0, loss=None), ())
        sinks.take(record(0, loss=None, unique=0, workers=2), ())
        sinks.take(record(10), ())
        sinks.take(record(20, validation=errors(0.5)), (worst_case(15),))
        sinks.take(record(20, validation=errors(0.4), loss=0.25), ())
        sinks.take(record(30, validation=errors(0.4)), ())
    (notes,) = made
    assert notes.calls == [("begin", 0), *(("take", step) for step in (0, 10, 20, 30)), ("end", False)]
    first, second, third, fourth = notes.points
    assert first.scalars["stream/workers"] == 2 and not {"training/loss", "training/reuse"} & first.scalars.keys()
    assert second.scalars == scalars_of(record(10)) and second.time_s == 1.8e9 + 10
    assert second.scalars["training/reuse"] == 10 and second.scalars["training/loss"] == pytest.approx(1 / 11)
    assert third.scalars == scalars_of(record(20, loss=0.25)) | scalars_of_errors(errors(0.4))
    assert third.picture.step == 15 and fourth.picture is None
    assert not any(name.startswith(("errors/", "rollout/")) for name in fourth.scalars)  # they were not measured again
    assert run.said == [] and events(run) == []


def test_the_errors_have_a_name_each():
    named = scalars_of_errors(errors(0.1))
    assert named["errors/relative_l2/mean"] == named["errors/u/relative_l2/mean"] == 0.1
    assert named["errors/vrmse"] == pytest.approx(0.15) and named["rollout/relative_l2"] == pytest.approx(0.4)
    assert not any("h1" in name or "correlation" in name or "constants" in name for name in named)


def test_a_learner_that_goes_back_to_a_checkpoint_takes_the_sinks_along(tmp_path, made):
    with Run(tmp_path / "run").sinks("tensorboard") as sinks:
        for step in (0, 10, 20, 10, 20):
            sinks.take(record(step, validation=errors(0.5)), ())
    (notes,) = made
    steps = [("begin", 0), ("take", 0), ("take", 10), ("take", 20), ("begin", 10), ("take", 10), ("take", 20)]
    assert notes.calls == [*steps, ("end", False)]
    assert ["errors/vrmse" in point.scalars for point in notes.points] == [True, False, False, True, False]


def test_points_of_a_long_run_lie_apart_but_errors_and_the_end_are_never_left_out(tmp_path, made):
    day = 86400.0
    with Run(tmp_path / "run").sinks("tensorboard") as sinks:
        for step in range(200):
            known = {"time": day + step, "train_seconds": day + step, "validation": errors(0.5 if step < 50 else 0.4)}
            sinks.take(record(step, **known), (worst_case(step),) if step in (0, 50, 198) else ())
    (notes,) = made
    steps = [point.step for point in notes.points]
    assert steps == [0, 50, 137, 199]  # 86.4 s apart, after that with the errors too
    assert [point.picture and point.picture.step for point in notes.points] == [0, None, None, 198]


def test_points_go_on_where_the_clock_was_set_back(tmp_path, made):
    with Run(tmp_path / "run").sinks("tensorboard") as sinks:
        for step in range(4):
            sinks.take(record(step, time=1.8e9 + step - 3600 * (step > 1)), ())
    assert [point.step for point in made[0].points] == [0, 1, 2, 3]


def test_a_sink_that_raises_is_reported_once_and_the_others_go_on(tmp_path, made, monkeypatch):
    monkeypatch.setitem(SINKS, "wandb", Raises)
    run = Run(tmp_path / "run")
    with run.sinks("wandb", "tensorboard") as sinks:
        for step in (0, 10):
            sinks.take(record(step), ())
        wait_until(sinks._sinks["wandb"].fault)
        for step in (20, 30, 40):
            sinks.take(record(step), ())
    raises, notes = made
    assert raises.calls == [("begin", 0)] and notes.calls[-2:] == [("take", 40), ("end", False)]
    (line,), (event,) = run.said, events(run)
    assert line.startswith("wandb gets no more of this run, which goes on: SystemExit: no more room (")
    assert event["event"] == "sink failed" and event["sink"] == "wandb" and "no more room" in event["reason"]


def test_a_sink_that_hangs_is_reported_once_and_the_others_go_on(tmp_path, made, monkeypatch):
    monkeypatch.setitem(SINKS, "wandb", Blocks)
    hang_s = {Notes: 60.0, Blocks: 0.0}
    monkeypatch.setattr(module, "Guarded", lambda sink: Guarded(sink, hang_s=hang_s[type(sink)]))
    run = Run(tmp_path / "run")
    with run.sinks("wandb", "tensorboard") as sinks:
        for step in (0, 10):
            sinks.take(record(step), ())
        wait_until(lambda: made[0].calls)
        for step in (20, 30, 40):
            sinks.take(record(step), ())
    blocks, notes = made
    assert blocks.calls == [("begin", 0)] and notes.calls[-2:] == [("take", 40), ("end", False)]
    assert run.said == ["wandb gets no more of this run, which goes on: it has not answered for 0 s"]
    assert [event["sink"] for event in events(run)] == ["wandb"]
    Blocks.goes_on.set()
    wait_until(lambda: blocks.calls[-1][0] == "end")  # and what was queued is not shown


def test_a_sink_that_does_not_end_is_not_waited_for(tmp_path, made, monkeypatch):
    monkeypatch.setitem(SINKS, "tensorboard", Blocks)
    monkeypatch.setattr(module, "END_WITHIN_S", 0.0)
    run = Run(tmp_path / "run")
    with run.sinks("tensorboard") as sinks:
        sinks.take(record(0), ())
    (line,) = run.said
    assert "may lack its last points" in line and len(events(run)) == 1


def test_a_full_queue_drops_the_oldest_points(made):
    sink = Blocks(None, {})
    guarded = Guarded(sink, held_points=3)
    guarded.put(Point(step=0, time_s=0.0, scalars={}))
    wait_until(lambda: sink.calls)
    for step in range(1, 10):
        guarded.put(Point(step=step, time_s=0.0, scalars={}))
    guarded.end(has_failed=True)
    Blocks.goes_on.set()
    assert guarded.wait(60.0) and guarded.fault() is None
    assert sink.calls == [("begin", 0), *(("take", step) for step in (0, 7, 8, 9)), ("end", True)]


@pytest.mark.parametrize(("error", "has_failed"), [(PenstockError("it diverged"), True), (SystemExit(143), False)])
def test_a_sink_hears_whether_the_run_failed(tmp_path, made, error, has_failed):
    with pytest.raises(type(error)), Run(tmp_path / "run").sinks("tensorboard") as sinks:
        sinks.take(record(0), ())
        raise error
    assert made[0].calls == [("begin", 0), ("take", 0), ("end", has_failed)]


def test_a_package_that_is_missing_is_named_before_the_run(monkeypatch):
    monkeypatch.setattr(Notes, "package", "no_such_package")
    require_packages([])
    with pytest.raises(PenstockError, match=r"monitor: .* no_such_package is .* pip install 'notes', or leave"):
        require_packages(["tensorboard"])
