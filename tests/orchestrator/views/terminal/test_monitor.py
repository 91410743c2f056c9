"""What the views of a run say of its errors."""

import io
import json
import os
import signal
from dataclasses import replace

import pytest
from rich.console import Console

from penstock.errors import PenstockError
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.numbers import digits
from penstock.orchestrator.views.terminal.monitor import (
    TAIL_BYTES,
    _line,
    _table,
    explained_lines,
    last_record,
    summary_lines,
)
from penstock.orchestrator.views.terminal.monitor import monitor as watch
from penstock.orchestrator.views.terminal.screen import Form, Screen
from penstock.record import Ahead, Bottleneck, Record, Summary
from penstock.status import Silence

RECORD = Record.from_json(
    {
        "state": "training",
        "elapsed_seconds": 65.2,
        "train_seconds": 60.0,
        "progress": 0.5,
        "delivered": 9,
        "failed": 0,
        "retried": 0,
        "dropped": 0,
        "workers": 1,
        "unique": 12,
        "trained": 40,
        "unique_per_s": 0.2,
        "trained_per_s": 20.0,
        "buffer_samples": 5,
        "buffer_capacity": 8,
        "iterations_per_system": 0.0,
        "seconds_per_system": 0.0012,
        "learner_wait_seconds": 0.31,
        "solver_blocked_seconds": 0.0,
        "bias": None,
        "step": 7,
        "loss": 1.234e-6,
        "learning_rate": 1e-3,
        "warning": None,
        "validation": None,
    }
)
STATISTICS = {"mean": 3.2e-5, "median": 3e-5, "p99": 8e-5, "max": 1.5e-4}
FIELD = {"relative_l2": STATISTICS, "h1": STATISTICS}
VALIDATION = FIELD | {
    "vrmse": 0.5,
    "fields": {"u": FIELD | {"vrmse": 0.1}, "v": FIELD | {"vrmse": 0.7}},
    "constants": {"p": 101325.0},
}

BOTTLENECK = Bottleneck(
    side="solvers",
    certainty=0.99,
    sentence="solvers limit: 12 workers more would feed this learner, which waits 75 % of its time",
    learner_per_s=160.0,
    solvers_per_s=40.0,
    transport_per_s=None,
)

AHEAD = Ahead(until="steps", done=700, total=2000, seconds=130.0)


def shown(record, *, is_terminal):
    console = Console(file=io.StringIO(), width=120)
    console.print(_table("run", record) if is_terminal else _line(record), soft_wrap=True)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (1e-9, "1e-09"),
        (3.21e-5, "3.21e-05"),
        (0.016949, "0.0169"),
        (0.99999, "1"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (-101325.0, "-101325"),
        (2.5e7, "2.5e+07"),
    ],
)
def test_three_significant_digits(value, expected):
    assert digits(value) == expected


@pytest.mark.parametrize("is_terminal", [True, False])
def test_small_numbers_are_shown_and_so_is_what_an_offset_hides(is_terminal):
    text = shown(replace(RECORD, validation=VALIDATION, dropped=3), is_terminal=is_terminal)
    for part in ("1.23e-06", "3.2e-05", "VRMSE", "0.5", "0.2 unique", "0.31 s", "3 second copies"):
        assert part in text
    assert "0.0000" not in text
    if is_terminal:
        assert "worst 0.7 of v" in text and "p = 101325" in text


@pytest.mark.parametrize("validation", [None, FIELD | {"fields": {"u": FIELD}}])
def test_records_without_a_validation_and_of_an_earlier_penstock_are_shown(validation):
    for is_terminal in (True, False):
        assert "1.23e-06" in shown(replace(RECORD, validation=validation), is_terminal=is_terminal)


def test_lines_of_the_end_say_what_is_explained():
    assert explained_lines(VALIDATION) == [
        "VRMSE 0.5, worst 0.7 of v: 75 % of the variance is explained",
        "constant outputs, left out of all errors: p = 101325",
    ]
    assert explained_lines(FIELD) == []
    (line,) = explained_lines(FIELD | {"vrmse": 1.11, "fields": {"u": FIELD | {"vrmse": 1.11}}})
    assert line == "VRMSE 1.11: no better than predicting the mean"  # and no share of -0.23
    said = "mean error of the forecast that nothing changes in a step: "
    mean = FIELD["relative_l2"]["mean"]
    assert explained_lines(FIELD | {"persistence": 2 * mean}) == [f"{said}{2 * mean:g}"]
    assert explained_lines(FIELD | {"persistence": mean}) == [f"{said}{mean:g}, which the surrogate does not beat"]
    assert explained_lines(FIELD | {"persistence": None}) == []


@pytest.mark.parametrize(
    ("correlation", "expected"),
    [
        ({"correlation_time": None, "lost": None}, ""),
        ({"correlation_time": 4.0, "lost": 0.0}, "; the correlation stays above 0.8"),
        (
            {"correlation_time": 2.25, "lost": 0.6},
            "; the correlation is above 0.8 for 2.25 steps, and 60 % of them lose it",
        ),
    ],
)
def test_what_is_said_of_rollouts(correlation, expected):
    rollout = {"steps": [1, 2, 4], "relative_l2": [0.01, 0.02, 0.5], **correlation}
    errors = "rollouts: relative L2 error 0.01 after 1, 0.5 after 4 steps"
    assert explained_lines(FIELD | {"rollout": rollout}) == [errors + expected]
    text = shown(replace(RECORD, validation=VALIDATION | {"rollout": rollout}), is_terminal=True)
    assert "rollouts" in text and "0.5 after 4 steps" in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_side_that_limits_is_named(is_terminal):
    assert "limit" not in shown(RECORD, is_terminal=is_terminal)
    record = replace(RECORD, bottleneck=BOTTLENECK)
    expected = BOTTLENECK.sentence if is_terminal else "| solvers limit"  # a line has no room for what would help
    assert expected in " ".join(shown(record, is_terminal=is_terminal).replace("│", " ").split())


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (AHEAD, "35 % of 2000 steps, 2:10 left"),
        (replace(AHEAD, at_most=True), "35 % of 2000 steps, at most 2:10 left"),
        (replace(AHEAD, seconds=None), "35 % of 2000 steps, time left -"),
        (replace(AHEAD, until="minutes", done=9.99, total=10, seconds=3725), "99 % of 10 minutes, 1:02:05 left"),
        (replace(AHEAD, until="walltime", seconds=0.0), "35 % of 2000 minutes of cluster.walltime, 0:00 left"),
        (replace(AHEAD, until="validation set"), "35 % of 2000 simulations of the validation set, 2:10 left"),
        (replace(AHEAD, until="validation set", done=0, total=0), "100 % of 0 simulations of the validation set"),
    ],
)
def test_the_time_left_is_shown_and_a_dash_where_it_is_not_known(ahead, expected, is_terminal):
    assert expected in shown(replace(RECORD, ahead=ahead), is_terminal=is_terminal)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_time_is_left_of_a_run_that_is_over_however_far_it_has_come(is_terminal):
    text = shown(replace(RECORD, state="ended", ahead=AHEAD), is_terminal=is_terminal)
    assert "35 % of 2000 steps" in text and "left" not in text


@pytest.mark.parametrize("width", [20, 40, 79, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_cut_off(width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(_table("run", replace(RECORD, validation=VALIDATION, ahead=AHEAD, bottleneck=BOTTLENECK)))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    if width >= 40:
        flat = " ".join(text.replace("│", " ").split())
        for part in ("35 % of 2000 steps, 2:10 left", "0.2 unique,", "3.2e-05 mean", "p = 101325"):
            assert part in flat


def test_scripts_get_each_record_once_and_the_summary(tmp_path, capfd):
    folder = RunFolder(tmp_path)
    folder.write("run.json", {"state": "ended", "cause": "steps"})
    folder.append("metrics.jsonl", replace(RECORD, ahead=AHEAD).to_json())
    folder.write("summary.json", Summary(cause="steps", step=7).to_json())
    assert watch(folder, Screen(Form.JSON)) == 0
    record, summary = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert record.pop("kind") == "record" and Record.from_json(record) == replace(RECORD, ahead=AHEAD)
    assert summary["kind"] == "summary" and summary["step"] == 7


def test_a_view_that_nobody_reads_ends_before_the_run(tmp_path, monkeypatch):
    """As of `penstock monitor --json | head -1`."""
    folder = RunFolder(tmp_path)
    folder.write("run.json", {"state": "submitted"})
    reading, writing = os.pipe()
    os.close(reading)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it, unless a test before has loaded PETSc
    with os.fdopen(writing, "w") as file:
        monkeypatch.setattr("sys.stdout", file)
        monkeypatch.setattr("time.sleep", lambda seconds: screen.drain())
        screen = Screen(Form.JSON)
        assert watch(folder, screen) == 0


def test_errors_are_on_standard_error_with_quiet_and_for_scripts(tmp_path, capfd):
    folder = RunFolder(tmp_path)
    folder.append("metrics.jsonl", RECORD.to_json())
    folder.write("summary.json", Summary(cause="steps", step=7).to_json())
    for state, code, said in (("ended", 0, ""), ("failed", 1, "penstock: the run failed: torn\n")):
        folder.write("run.json", {"state": state, "cause": "torn"})
        assert watch(folder, Screen(Form.QUIET)) == code
        assert capfd.readouterr() == ("", said)
        assert watch(folder, Screen(Form.JSON)) == code
        assert capfd.readouterr().err == said


def test_a_record_comes_back_from_its_line_whatever_version_wrote_it():
    record = replace(RECORD, silent=(Silence("solver-1", 12.0, 3),), validation=VALIDATION, bottleneck=BOTTLENECK)
    record = replace(record, ahead=AHEAD)
    line = json.loads(json.dumps(record.to_json()))
    assert Record.from_json(line) == record
    assert (
        Record.from_json(
            line | {"later": 1, "silent": [{"worker": "solver-1", "seconds": 12.0, "simulation": 3, "x": 0}]}
        )
        == record
    )
    later = ("warning", "silent", "bias", "bottleneck", "ahead")
    earlier = {name: value for name, value in line.items() if name not in later}
    assert "solver blocked" in shown(Record.from_json(earlier), is_terminal=True)
    assert Summary.from_json({"cause": "steps", "step": 7, "later": 1}).to_json()["step"] == 7


def test_the_end_names_its_two_times_and_a_strategy_that_left_systems_to_others(tmp_path):
    folder = RunFolder(tmp_path)
    # A resume begins the first time again, and not the second.
    summary = Summary(cause="minutes", elapsed_seconds=69.5, train_seconds=90.0, solved_by={"cg": 12, "direct": 884})
    folder.write("summary.json", summary.to_json())
    lines = summary_lines(folder)
    assert (
        lines[0]
        == "ended 1:09 after its start or last resume, 1:30 of training in all: training.stop_after.minutes is reached"
    )
    assert "cg solved 12 of 896 systems, direct the rest" in lines
    for usual in ({"cg": 12}, {"auto": 3, "direct (petsc)": 99}):
        folder.write("summary.json", replace(summary, solved_by=usual).to_json())
        assert not any("systems" in line for line in summary_lines(folder))


def test_the_end_says_why_most_of_the_failed_simulations_failed(tmp_path):
    inside_out, torn = (
        {"count": c, "simulation": i, "reason": r} for c, i, r in ((3, 4, "inside out"), (1, 2, "torn"))
    )
    validation = VALIDATION | {"simulations": 17, "failed": 3, "failed_reasons": [inside_out]}
    summary = Summary(delivered=221, failed=4, failed_reasons=[inside_out, torn], validation=validation)
    folder = RunFolder(tmp_path)
    folder.write("summary.json", summary.to_json())
    lines = summary_lines(folder)
    of_all = (
        "4 of 225 simulations failed, 3 of them like simulation 4: inside out; what is missing may bias the surrogate"
    )
    assert lines[lines.index(of_all) - 1].startswith("221 simulations delivered, 4 failed, ")
    assert (
        "validation: 3 of 20 simulations failed, all of them like simulation 4: inside out; what is missing may bias "
        "the errors" in lines
    )
    earlier = {"delivered": 221, "failed": 4, "validation": VALIDATION | {"simulations": 17}}
    folder.write("summary.json", earlier)
    assert not any("like simulation" in line for line in summary_lines(folder))


def test_the_end_says_in_one_line_which_side_limited_the_run(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write("summary.json", Summary(cause="steps", bottleneck=BOTTLENECK).to_json())
    assert BOTTLENECK.sentence in summary_lines(folder)
    folder.write("summary.json", Summary(cause="steps").to_json())  # or one of an earlier penstock
    assert not any("limit" in line for line in summary_lines(folder))


def written(step, size=0):
    return json.dumps({"step": step, "warning": "x" * size}).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "step"),
    [
        (b"", None),
        (b'{"step": 1', None),
        (written(1), 1),
        (written(1) + b'{"step": 2', 1),
        (written(1) + written(2, 3 * TAIL_BYTES), 2),
        (written(1, 20 * TAIL_BYTES) + b'{"step": 2' + written(3), 1),
        (written(1) + b"[]\n5\nnull\n\0\0\n\xff\n", 1),
        (b'{"st\n', None),
    ],
    ids=["empty", "begun", "one", "the next begun", "large", "torn", "odd", "torn alone"],
)
def test_the_last_record_is_found_whatever_comes_after_it(tmp_path, content, step):
    folder = RunFolder(tmp_path)
    assert last_record(folder) is None
    folder.metrics.write_bytes(content)
    record = last_record(folder)
    assert (record and record.step) == step


def test_records_that_can_not_be_read_are_told_in_a_line(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(PenstockError, match=r"metrics.jsonl can't be read: Is a directory"):
        last_record(RunFolder(tmp_path))


def test_the_line_names_the_side_however_certain_it_is():
    for reserve, expected in (("", "solvers limit"), ("not certain (60 %): ", "not certain (60 %): solvers limit")):
        bottleneck = Bottleneck(side="solvers", certainty=0.6, sentence=f"{reserve}solvers limit: 2 workers more: no")
        assert _line(replace(RECORD, bottleneck=bottleneck)).endswith(f"| {expected}")
