"""The numbers of a report against sums that are known, and whatever is left of a run."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from penstock.errors import PenstockError
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.trained import load_surrogate
from penstock.orchestrator.views.report import cases
from penstock.orchestrator.views.report.cost import Cost, break_even
from penstock.orchestrator.views.report.page import SECTIONS, page, sections_of
from penstock.orchestrator.views.report.past import Past
from penstock.orchestrator.views.report.trial import try_out
from penstock.orchestrator.views.report.writing import write


@pytest.fixture
def left(folder, tmp_path):
    """A folder that holds the configuration alone."""
    (tmp_path / "run").mkdir()
    shutil.copy(folder.path / "config.yaml", tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_lives_add_up(folder):
    """What begins at zero goes on; what a checkpoint carries counts from there, done again or not."""
    past = Past.of(folder)
    assert past.seconds[-1] == 40
    assert (np.diff(past.seconds) == 1).all()
    assert past.total("worker_seconds")[-1] == 80
    assert past.total("learner_wait_seconds")[-1] == pytest.approx(0.25 * 20 + 0.25 * 19)  # it is 19 of them again
    assert [number for number, _ in past.validations()] == [4, 9, 14, 19, 24, 29, 34, 39]


def test_cost_and_break_even(folder):
    found = Cost.of(Past.of(folder))
    assert found.core_seconds == 80 + 3 * 40
    assert found.gpu_seconds == 40
    assert found.watt_hours == pytest.approx(90 * 40 / 3600)
    assert found.solver_seconds == 40 / (8 * 38)
    calls = break_even(found, 0.01)
    assert found.core_seconds + 0.01 * calls == pytest.approx(found.solver_seconds * calls)  # both ways cost the same
    assert break_even(found, 1.0) is None


def test_the_trial_has_the_errors_of_its_predictions(folder):
    trial = try_out(folder)
    true, predicted = (arrays["solution"].reshape(5, -1) for arrays in (trial.named, trial.predicted))
    errors = np.linalg.norm(predicted - true, axis=1) / np.linalg.norm(true, axis=1)
    np.testing.assert_allclose(trial.errors, errors, rtol=1e-4)
    assert all(values.shape == (5,) and ((values > 0) & (values < 1)).all() for values in trial.parameters.values())
    assert trial.sample_bytes == 2 * 4 * 16**2  # a coefficient and a solution, in float32
    assert try_out(folder) is trial  # a page that is open asks again and again


def test_a_view_writes_nothing(folder, tmp_path):
    """What a killed writer has moved aside stays there: only a command that loads a surrogate puts it back."""
    copy = RunFolder(shutil.copytree(folder.path, tmp_path / "run"))
    aside = copy.checkpoints / ".writing-x"
    aside.mkdir()
    (newest,) = (path for path in copy.checkpoints.iterdir() if path.name.isdigit())
    newest.rename(aside / f"replaced-{newest.name}")
    before = {path: path.lstat().st_mtime_ns for path in copy.path.rglob("*")}
    texts = {section.key: section.html for section in sections_of(copy)}
    assert "has no checkpoint" in texts["cases"]
    assert {path: path.lstat().st_mtime_ns for path in copy.path.rglob("*")} == before
    load_surrogate(copy, resolve(copy.config()))
    assert newest.exists()


def test_pictures_of_many_dots_are_made_coarser(folder, monkeypatch):
    (whole,) = sections_of(folder, ("cases",))
    monkeypatch.setattr(cases, "MOST_BYTES", len(whole.html) // 2)
    (coarse,) = sections_of(folder, ("cases",))
    assert len(coarse.html) < len(whole.html)
    assert coarse.html.count("<image") == whole.html.count("<image") > 0


def test_a_run_that_has_just_begun(left):
    text = page("run", sections_of(left))
    assert "broken: too little of the folder can be read" in text
    assert "There is no record yet" in text and "there is no validation set yet" in text
    assert "<figure" not in text


def test_a_run_of_an_older_version(folder, left):
    """Columns that it did not record are named; what can't be read is said where it would be."""
    new = ("solved_by", "worker_seconds", "solver_seconds", "aside_seconds", "energy_joules", "bottleneck", "bias")
    for line in folder.metrics.read_text().splitlines():
        left.append("metrics.jsonl", {key: value for key, value in json.loads(line).items() if key not in new})
    texts = {section.key: section.html for section in sections_of(left)}
    assert "did not record what the workers" in texts["throughput"]
    assert "not recorded by the version that ran it" in texts["cost"]
    left.append("metrics.jsonl", {"step": 7, "validation": {"mean": 0.5}})
    texts = {section.key: section.html for section in sections_of(left, ("losses", "configuration"))}
    assert "A record is damaged or of another version (KeyError: &#x27;relative_l2&#x27;)" in texts["losses"]
    assert list(texts) == ["losses", "configuration"]


def test_what_is_damaged_is_named(folder, left):
    (left.path / "strategies.json").write_text('{"darcy": {"famil')
    left.metrics.write_bytes(folder.metrics.read_bytes()[:-30])  # a crash left half of the last line
    sections = sections_of(left)
    assert [section.key for section in sections] == list(SECTIONS)
    assert "strategies.json is damaged" in sections[0].html
    assert len(Past.of(left).records) == 39


def test_a_folder_that_is_being_deleted(left):
    shutil.rmtree(left.path)
    assert "it is gone: it was deleted just now" in sections_of(left, ("overview",))[0].html
    with pytest.raises(PenstockError, match=r"can't write report\.html to .*run: there is no such folder"):
        write([left], None)


def test_the_command(left, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [str(left.path), str(left.path)]
    result = CliRunner().invoke(app, ["report", *runs])
    assert result.exit_code == 0 and result.output.startswith("wrote report.html (")
    assert "2 runs compared" in (tmp_path / "report.html").read_text()
    for output, expected in (("/proc/it.html", "give --output a file elsewhere"), (str(tmp_path), "is a folder")):
        error = CliRunner().invoke(app, ["report", runs[0], "--output", output]).exception
        assert isinstance(error, PenstockError) and expected in str(error)
    assert isinstance(CliRunner().invoke(app, ["report", str(tmp_path)]).exception, PenstockError)
