"""`penstock export` and `penstock.load` on a run, and the page about them, run as it stands."""

import json
import re
import shlex
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import penstock
from penstock.errors import PenstockError
from penstock.learner.stream.stream import InProcessStream
from penstock.messages import Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.cli.export import export
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.run_store import RunStore

PAGE = Path(__file__).parents[3] / "docs" / "export.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of Darcy on 16 x 16 cells, in a folder with runs/latest."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("run"))
        values = {
            "problem": {"name": "darcy", "resolution": 16},
            "model": {"name": "fno", "width": 4, "modes": 2, "layers": 1},
            "solver": {"strategy": "direct"},
            "buffer": {"capacity": 20, "watermark": 4},
            "validation": {"simulations": 3},
            "training": {"batch_size": 2, "stop_after": {"simulations": 6}, "device": "cpu"},
        }
        plan = resolve(Config.model_validate(values))
        folder = RunFolder.create(plan.config)
        worker = make_worker(plan)
        with closing(InProcessStream()) as stream:
            learner = plan.learner(stream, RunStore(folder))
            for number, (design, count) in enumerate([("validation", 3), ("training", 6)]):
                stream.submit(Lease(number=number, simulations=tuple(range(count)), design=design), worker)
            learner.run()
    return folder


def test_a_run_and_its_file_are_the_same_function(folder, capfd):
    """The validation's fields give the error that the card says."""
    export(folder, None, "safetensors")
    (path,) = folder.path.glob("*.safetensors")
    printed = capfd.readouterr().out
    assert f"{path.name}')\n    outputs = model(coefficient=...)  # arrays by name" in printed
    run, file = penstock.load(folder.path), penstock.load(path)
    stored = RunStore(folder).read_validation(resolve(folder.config()).problem.layout).arrays
    outputs = run(coefficient=stored["fields"][:, 0])["solution"]
    np.testing.assert_array_equal(outputs, file(coefficient=stored["fields"][:, 0])["solution"])
    truth = stored["targets"][:, 0]
    errors = np.linalg.norm((outputs - truth).reshape(3, -1), axis=1) / np.linalg.norm(truth.reshape(3, -1), axis=1)
    assert errors.mean() == pytest.approx(file.card["validation"]["relative_l2"]["mean"], rel=1e-4)
    assert run.card["free sizes"] == file.card["free sizes"] == {"batch": 1, "n0 (16)": 1, "n1 (16)": 1}
    assert run.card["model"] == file.card["model"] and run.card["step"] == file.card["step"]


@pytest.mark.parametrize(
    ("output", "kind", "expected"),
    [
        (None, "onxx", "--format onxx: did you mean 'onnx'?"),
        ("it.pt2", "onnx", "it.pt2 is named as --format pt2 and --format is onnx: change one of them"),
    ],
)
def test_a_format_that_does_not_fit_is_one_line(folder, output, kind, expected):
    with pytest.raises(PenstockError) as refusal:
        export(folder, output and Path(output), kind)
    assert str(refusal.value) == expected


@pytest.mark.slow  # six exports, as the page has them
def test_the_page_runs_as_it_stands(folder, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(folder.path.parents[1])
    text = PAGE.read_text()
    for command in re.findall(r"^    penstock (.+?)(?:  +#.*)?$", text, re.M):
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, result.output
    names = {"__name__": "pasted"}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        exec(compile(block, str(PAGE), "exec"), names)
    card = json.loads(Path("darcy.onnx.card.json").read_text())
    listed = "".join(re.findall(r"^\| (`.*?) \|", text.partition("## The card")[2], re.M))
    assert set(re.findall(r"`([a-z ]+)`", listed)) == card.keys()
