"""The exported file is the surrogate, in a process that has torch alone, at another batch and resolution."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.export.files import export
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.normalization import Normalization, RunningMoments
from penstock.learner.surrogate import Surrogate

LAYOUT = Layout(
    (FieldSpec(name="coefficient", on=Grid((24, 24)), unit="m2"), FieldSpec(name="viscosity", unit="Pa s")),
    (FieldSpec(name="pressure", on=Grid((24, 24)), unit="Pa"), FieldSpec(name="flux", on=Grid((24, 24)), unit="m/s")),
)

LOADER = """
import importlib.abc, json, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("penstock", "ray", "zarr", "dolfinx", "petsc4py", "pydantic"):
            raise ImportError(name + " must not be needed")
sys.meta_path.insert(0, Refuse())
import torch
files = {"card.json": ""}
module = torch.export.load(sys.argv[1], extra_files=files).module()
inputs = torch.load(sys.argv[2], weights_only=True)
torch.save(module(**inputs), sys.argv[3])
print(files["card.json"])
"""


def new_surrogate():
    torch.manual_seed(0)
    arrays = {
        "fields": 3 + 2 * torch.randn(8, 1, 24, 24),
        "scalars": 1e-3 * torch.rand(8, 1),
        "targets": torch.tensor([1e5, 0.1]).reshape(2, 1, 1) * (1 + torch.randn(8, 2, 24, 24)),
    }
    model = FNO(LAYOUT, width=8, modes=5, layers=2)
    moments = RunningMoments()
    moments.update({name: array.numpy() for name, array in arrays.items()})
    return Surrogate(model, Normalization.from_moments(moments, LAYOUT), LAYOUT), arrays


@pytest.mark.slow  # torch traces an FNO of free sizes, then a process loads it
def test_the_file_agrees_elsewhere_with_torch_alone(tmp_path):
    surrogate, arrays = new_surrogate()
    card = {"problem": "darcy", "validation": {"mean": 0.01}}
    path = export(surrogate, card, tmp_path / "out" / "darcy.v1", {name: a[:1].numpy() for name, a in arrays.items()})
    assert path == tmp_path / "out" / "darcy.v1.pt2"
    assert sorted(file.name for file in path.parent.iterdir()) == ["darcy.v1.card.json", "darcy.v1.pt2"]

    inputs = {"viscosity": 1e-3 * torch.rand(5), "coefficient": 3 + torch.randn(5, 40, 31)}
    torch.save(inputs, tmp_path / "inputs.pt")
    command = [sys.executable, "-c", LOADER, path, tmp_path / "inputs.pt", tmp_path / "outputs.pt"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    outputs = torch.load(tmp_path / "outputs.pt", weights_only=True)
    with torch.no_grad():
        expected = surrogate(**inputs)
    assert outputs.keys() == {"pressure", "flux"}
    for name, values in expected.items():
        assert (outputs[name] - values).norm() / values.norm() < 1e-5

    alone = {name: values[:1] for name, values in inputs.items()}
    torch.testing.assert_close(torch.export.load(path).module()(**alone)["flux"], expected["flux"][:1])

    inside = json.loads(result.stdout)
    assert inside == json.loads((tmp_path / "out" / "darcy.v1.card.json").read_text())
    assert inside["problem"] == "darcy"
    assert inside["inputs"][0] == {
        "name": "coefficient",
        "unit": "m2",
        "shape": ["batch", "n0 (24)", "n1 (24)"],
        "dtype": "float32",
        "on": {
            "kind": "grid",
            "extent": [1.0, 1.0],
            "origin": [0.0, 0.0],
            "centring": "cells",
            "periodic": [False, False],
        },
    }
    assert inside["inputs"][1]["shape"] == ["batch"] and [out["name"] for out in inside["outputs"]] == [
        "pressure",
        "flux",
    ]


class FixedGrid(nn.Module):
    """A model that knows one resolution only."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, 24))

    def forward(self, fields, scalars):
        return (fields * self.weight + scalars[:, :, None, None]).expand(-1, 2, -1, -1)


class Unexportable(FixedGrid):
    def forward(self, fields, scalars):
        return super().forward(fields, scalars) * float(np.asarray(fields.detach().numpy()).mean())


def test_a_model_of_one_resolution_is_exported_for_it_and_its_card_says_so(tmp_path):
    surrogate, arrays = new_surrogate()
    surrogate.model = FixedGrid()
    path = export(surrogate, {}, tmp_path / "fixed.pt2", arrays)
    card = json.loads((tmp_path / "fixed.card.json").read_text())
    assert card["inputs"][0]["shape"] == ["batch", 24, 24] == card["outputs"][0]["shape"]
    inputs = {"coefficient": torch.randn(7, 24, 24), "viscosity": torch.rand(7)}
    outputs, expected = torch.export.load(path).module()(**inputs), surrogate(**inputs)
    torch.testing.assert_close(outputs, expected)


def test_a_model_that_cannot_be_exported_is_one_line_and_leaves_nothing(tmp_path):
    surrogate, arrays = new_surrogate()
    surrogate.model = Unexportable()
    with pytest.raises(PenstockError) as raised:
        export(surrogate, {}, tmp_path / "x.pt2", arrays)
    assert "\n" not in str(raised.value) and raised.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    surrogate, arrays = new_surrogate()
    surrogate.model = FixedGrid()  # exported in a tenth of the time
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PenstockError, match="can't write"):
        export(surrogate, {}, tmp_path / "file" / "x.pt2", arrays)
