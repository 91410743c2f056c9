"""What a deterministic run refuses to go on without."""

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.ledger import conditions
from penstock.orchestrator.store.run_folder import RunFolder


def test_the_first_process_of_a_role_says_what_all_later_ones_must_be(tmp_path):
    folder = RunFolder(tmp_path)
    folder.update_run(state="running")
    learner = conditions.of_this_process() | {"torch threads": 2}
    conditions.require_same(folder, "learner", learner)
    conditions.require_same(folder, "solver", conditions.of_this_process())
    conditions.require_same(RunFolder(tmp_path), "learner", dict(learner))
    assert folder.read("run.json")["state"] == "running"
    with pytest.raises(PenstockError, match="the learner had torch threads 2 and now has 4: go back to that") as caught:
        conditions.require_same(folder, "learner", learner | {"torch threads": 4})
    assert "deterministic=false" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(PenstockError, match="the solver had processor"):
        conditions.require_same(folder, "solver", conditions.of_this_process() | {"processor": "another"})
