"""The table of all models, with made-up trainings in place of real ones."""

import json

from benchmarks.surrogates import zoo

ERRORS = {("fno", 0): 0.02, ("fno", 1): 0.04, ("mlp", 0): 0.1, ("mlp", 1): 0.3}


def test_a_table_is_in_the_order_of_the_errors_and_is_made_in_parts(tmp_path, monkeypatch, capsys):
    asked = []

    def trained(values):
        asked.append((values["model"], values["seed"]))
        assert values["training"]["stop_after"] == {"minutes": 2.0}  # this machine is half as fast
        error = ERRORS[asked[-1]]
        errors = {"mean": error, "p99": 2 * error}
        return {"validation": {"relative_l2": errors}, "step": 10, "train_seconds": 2.0, "unique": 1234}

    monkeypatch.setattr(zoo, "trained", trained)
    monkeypatch.setattr(zoo, "pace", lambda: 2.0)
    monkeypatch.chdir(tmp_path)
    zoo.run(["darcy"], ["mlp"], 1.0, 1)
    zoo.run(["darcy"], ["mlp", "fno"], 1.0, 2)
    assert sorted(asked) == sorted(ERRORS)  # each once
    *_, first, second = [
        line.strip("| ").split() for line in (tmp_path / zoo.FOLDER / "zoo.md").read_text().splitlines() if "|" in line
    ]
    assert (first[0], first[2], " ".join(first[4:10])) == ("fno", "0.0300", "0.0200 to 0.0400 of 2 seeds")
    assert (second[0], second[2]) == ("mlp", "0.2000")
    assert len(json.loads((tmp_path / zoo.RECORD).read_text())) == 4
