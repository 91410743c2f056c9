"""The folder of workers without a learner."""

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import load_config
from penstock.orchestrator.history.cleaning import clean
from penstock.orchestrator.history.standing import standing
from penstock.orchestrator.run import gathering
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.store.run_folder import RUNS

CONFIG = """
name: small
problem: {name: darcy, resolution: 16}
model: {name: fno}
training: {stop_after: {steps: 2}}
"""


def test_the_folder_of_samples_being_made_is_not_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    seen = []

    def on_ray(config, folder, requests, **options):
        with pytest.raises(PenstockError, match="is starting: stop it first"):
            clean(RUNS, [folder.path], failed=False, older_than=None, is_sure=True)
        seen.append(folder.path)
        raise PenstockError("no Ray here")

    monkeypatch.setattr(gathering, "on_ray", on_ray)
    solving = Solving.of(load_config(tmp_path / "small.yaml", ()))
    with pytest.raises(PenstockError, match="no Ray here"), gathering.gathered(solving, None, tell=print):
        pass
    assert standing(seen[0]).state == "broken"  # released, with nothing but logs
