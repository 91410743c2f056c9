"""The process that tries a surrogate out."""

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.dashboard import trial
from penstock.orchestrator.views.dashboard.trial import EARLY, KEYS, Trier, seconds_so_far, source_of


def test_it_gives_sections_or_a_reason(runs):
    (path,) = runs.iterdir()
    folder, trier = RunFolder(path), Trier()
    before, began = source_of(folder), seconds_so_far()
    early = list(trier.sections(folder))
    assert [section.key for section in early] == list(KEYS) and all(EARLY in section.html for section in early)
    assert seconds_so_far() == began
    (path / "checkpoints" / "10").mkdir(parents=True)
    assert source_of(folder) != before
    made = {section.key: section.html for section in trier.sections(folder)}
    assert set(made) == set(KEYS) and "there is no validation set yet" in made["cases"]
    assert seconds_so_far() > began


def test_a_process_that_fails_or_is_to_end_is_a_line(runs, monkeypatch):
    (path,) = runs.iterdir()
    (path / "checkpoints" / "10").mkdir(parents=True)
    (path / "metrics.jsonl").unlink()
    (path / "metrics.jsonl").mkdir()
    with pytest.raises(PenstockError, match=r"^the surrogate can't be tried: .*metrics.jsonl can't be read"):
        list(Trier().sections(RunFolder(path)))
    trier = Trier()
    trier.close()
    with pytest.raises(PenstockError, match="the surrogate can't be tried"):
        list(trier.sections(RunFolder(path)))
    monkeypatch.setattr(trial, "LONGEST_S", 0.0)
    with pytest.raises(PenstockError, match="takes more than 0 s"):
        list(Trier().sections(RunFolder(path)))
