"""Every model as ONNX: onnxruntime predicts what the surrogate does, at any batch and at the sizes that are free."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from penstock.errors import PenstockError
from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.export import onnx_file
from penstock.learner.export.files import export
from penstock.learner.models import MODELS
from penstock.learner.normalization import Normalization
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.surrogate import Surrogate
from tests.support.models import SMALL

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CELLS = np.array([[0, 1, 2], [0, 2, 3]])
BODY = Mesh(4, 2, lambda: (np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), CELLS), name="body")
QUICK = {"fno", "mlp"}  # torch.export and torch.onnx take 2 to 10 s of a core for each of the others


def layout_on(geometry):
    inputs = FieldSpec(name="a", on=geometry, unit="m2"), FieldSpec(name="k", unit="Pa s")
    return Layout(inputs, (FieldSpec(name="u", on=geometry, components=2, unit="Pa"), FieldSpec(name="v", on=geometry)))


def new_surrogate(model, layout):
    """With means and deviations far from 0 and 1, different for every channel."""
    blocks = (*layout.input_blocks, *layout.output_blocks)
    mean, std = ({b.name: 1 + torch.arange(b.shape[0]) / shift for b in blocks} for shift in (2, 0.3))
    return Surrogate(model, Normalization(mean, std), layout).eval()


def on_a_first_geometry(name):
    """A grid where the model takes one, else points with edges."""
    geometry = Grid((16, 16)) if Grid in MODELS[name].accepts else Points(30, 2, max_edges=20)
    torch.manual_seed(0)
    return new_surrogate(MODELS[name](layout_on(geometry), **SMALL[name]), layout_on(geometry))


def at(layout, size, grid=None):
    """Arguments of `size` samples, on another grid if one is given."""
    arrays = free_samples(layout, size, torch.device("cpu"))
    if grid is not None:
        arrays["fields"] = torch.randn(size, 1, *grid)
    return {
        name: values
        for block in (*layout.input_blocks, *layout.geometry_blocks)
        for name, values in block.by_name(arrays[block.name]).items()
    }


def assert_same(session, surrogate, inputs):
    with torch.no_grad():
        expected = surrogate(**inputs)
    outputs = session({name: values.contiguous() for name, values in inputs.items()})
    assert list(outputs) == list(expected)
    for name, values in expected.items():
        assert outputs[name].shape == values.shape
        assert (outputs[name] - values).norm() <= 1e-4 * values.norm(), name


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in SMALL]
)
def test_a_model_is_written_as_onnx_with_its_free_sizes(name):
    """At 1 and 5 samples; where the grid is free, at one that 8 divides and at one that nothing does."""
    surrogate = on_a_first_geometry(name)
    layout = surrogate.layout
    arrays = free_samples(layout, 2, torch.device("cpu"))
    contents, card = onnx_file.contents_of(surrogate, {}, arrays)
    session = onnx_file.Session(contents)
    assert session.card == card and card["free sizes"]["batch"] == 1
    assert_same(session, surrogate, at(layout, 1))
    assert_same(session, surrogate, at(layout, 5))
    if "n0 (16)" in card["free sizes"]:
        assert_same(session, surrogate, at(layout, 3, grid=(40, 24)))
        assert_same(session, surrogate, at(layout, 2, grid=(23, 31)))


ALONE = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("penstock", "torch", "onnx"):
            raise ImportError(name + " must not be needed")
sys.meta_path.insert(0, Refuse())
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
print([(each.name, each.shape) for each in (*session.get_inputs(), *session.get_outputs())])
np.save(sys.argv[3], session.run(["v"], {"a": np.load(sys.argv[2]), "k": np.float32([0.1, 0.2, 0.3])})[0])
"""


def test_the_file_needs_onnxruntime_alone_and_has_the_card_and_meshes(tmp_path):
    torch.manual_seed(0)
    layout = layout_on(BODY)
    surrogate = new_surrogate(MODELS["branch_trunk"](layout, **SMALL["branch_trunk"]), layout)
    path = export(surrogate, {"problem": "beam"}, tmp_path / "beam.onnx", free_samples(layout, 2, torch.device("cpu")))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["beam.onnx", "beam.onnx.card.json"]
    a = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", a)
    command = [sys.executable, "-c", ALONE, path, tmp_path / "a.npy", tmp_path / "v.npy"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (
        result.stdout.strip() == "[('a', ['batch', 4]), ('k', ['batch']), ('u', ['batch', 2, 4]), ('v', ['batch', 4])]"
    )
    with torch.no_grad():
        expected = surrogate(a=torch.from_numpy(a), k=torch.tensor([0.1, 0.2, 0.3]))["v"].numpy()
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, rtol=1e-4, atol=1e-5)
    card = json.loads((tmp_path / "beam.onnx.card.json").read_text())
    assert card["file"]["format"] == "onnx" and "onnxruntime" in card["file"]["needs"]
    import onnx

    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert metadata["card"] == card and metadata["meshes"]["body"]["cells"] == CELLS.tolist()


class Sums(nn.Module):
    """Of values by places that several have in common: along either axis, with a factor, of one axis alone."""

    def __init__(self, places, *, puts=False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("places", torch.tensor(places))
        self.puts = puts

    def forward(self, fields, scalars):
        u_BXY = self.weight * (fields[:, 0] + scalars[..., None])
        by_rows = torch.zeros_like(u_BXY).index_add(1, self.places, u_BXY, alpha=0.5)
        by_columns = torch.zeros_like(u_BXY).index_add(-1, self.places.int(), u_BXY)
        first = u_BXY[0, 0]
        sums = torch.zeros_like(first).index_add(0, self.places, first)
        if self.puts:
            sums = sums.index_put((self.places,), first, accumulate=True)
        return torch.stack([by_rows, by_columns, sums.expand_as(u_BXY)], dim=1)


def test_sums_over_places_are_in_an_order_that_no_thread_disturbs():
    """Against numpy.add.at. ScatterND, which torch.onnx takes, loses summands in some runs by several threads."""
    import onnx

    places, layout = np.array([3, 0, 3, 3, 7, 0, 1, 3]), layout_on(Grid((8, 8)))
    surrogate = Surrogate(Sums(places), Normalization.identity(layout), layout)
    contents, _ = onnx_file.contents_of(surrogate, {}, free_samples(layout, 2, torch.device("cpu")))
    operators = {node.op_type for node in onnx.load_from_string(contents).graph.node}
    assert "ScatterElements" in operators and "ScatterND" not in operators
    a, k = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32), np.float32([0.1, 0.2, 0.3])
    outputs = onnx_file.Session(contents)({"a": torch.from_numpy(a), "k": torch.from_numpy(k)})
    values = a.astype(float) + k[:, None, None]
    by_rows, by_columns, sums = np.zeros((3, 8, 8)), np.zeros((3, 8, 8)), np.zeros(8)
    np.add.at(by_rows, (slice(None), places), values / 2)
    np.add.at(by_columns, (slice(None), slice(None), places), values)
    np.add.at(sums, places, values[0, 0])
    np.testing.assert_allclose(outputs["u"], np.stack([by_rows, by_columns], axis=1), atol=1e-5)
    np.testing.assert_allclose(outputs["v"], np.tile(sums, (3, 8, 1)), atol=1e-5)


def test_a_sum_that_threads_disturb_is_refused():
    layout = layout_on(Grid((8, 8)))
    surrogate = Surrogate(Sums(np.zeros(8, int), puts=True), Normalization.identity(layout), layout)
    with pytest.raises(PenstockError, match=r"^Sums can't be written as ONNX: .* take index_add or scatter_add; take"):
        onnx_file.contents_of(surrogate, {}, free_samples(layout, 2, torch.device("cpu")))


class Bessel(nn.Module):
    """What torch.onnx has no form for."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, fields, scalars):
        return self.weight * torch.special.bessel_j0(fields) + scalars[..., None, None]


def test_what_onnx_can_not_say_is_one_line_and_leaves_nothing(tmp_path):
    layout = layout_on(Grid((8, 8)))
    with pytest.raises(PenstockError, match=r"^Bessel can't be written as ONNX: .*; take another format$") as refusal:
        export(new_surrogate(Bessel(), layout), {}, tmp_path / "x.onnx", free_samples(layout, 2, torch.device("cpu")))
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 1 and list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    layout = layout_on(Grid((8, 8)))
    with pytest.raises(PenstockError, match=r"ONNX needs the package onnxscript: pip install 'penstock\[onnx\]'"):
        export(new_surrogate(Bessel(), layout), {}, tmp_path / "x.onnx", free_samples(layout, 2, torch.device("cpu")))
