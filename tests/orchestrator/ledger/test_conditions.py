"""What a deterministic run refuses to go on without."""

from importlib.metadata import PackageNotFoundError

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


def test_libraries_are_among_them_and_an_old_record_without_them_goes_on(tmp_path, monkeypatch):
    versions = {"numpy": "2.3", "scipy": "1.15", "dolfinx-solver-real": "0.11"}

    def version(distribution):
        if distribution not in versions:
            raise PackageNotFoundError(distribution)
        return versions[distribution]

    monkeypatch.setattr(conditions, "version", version)
    now = conditions.of_this_process()
    assert (now["SciPy"], now["DOLFINx"]) == ("1.15", "0.11") and "gmsh" not in now

    folder = RunFolder(tmp_path)
    libraries = conditions.LIBRARIES.keys()
    folder.update_run(conditions={"solver": {what: value for what, value in now.items() if what not in libraries}})
    conditions.require_same(folder, "solver", now)
    versions["scipy"] = "1.16"
    with pytest.raises(PenstockError, match=r"the solver had SciPy 1\.15 and now has 1\.16: go back to that"):
        conditions.require_same(folder, "solver", conditions.of_this_process())
