"""A file of any format, loaded: what the surrogate predicts, by arrays with names; and what is refused in one line."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import penstock
from penstock.errors import PenstockError
from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.export import weights_file
from penstock.learner.export.files import FORMATS, export
from penstock.learner.models import MODELS
from penstock.learner.normalization import Normalization
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.surrogate import Surrogate
from penstock.registry import load_class
from tests.support.models import SMALL

GRID = Grid((12, 10), extent=(3.0, 1.0), periodic=(True, False))
BODY = Mesh(
    4, 2, lambda: (np.array([[0.0, 0], [1, 0], [1, 1 / 3], [0, 1]]), np.array([[0, 1, 2], [0, 2, 3]])), name="b"
)
GEOMETRIES = {
    "fno": GRID,
    "branch_trunk": BODY,
    "mesh_graph_net": BODY,
    "gnot": Points(30, 2, extent=(2.0, 1.0), origin=(1.0, -1.0)),
    "unet": replace(GRID, is_masked=True, name="room"),
    "mlp": replace(GRID, is_masked=True),
}


def layout_on(geometry):
    inputs = FieldSpec(name="load", on=geometry, components=2, unit="N"), FieldSpec(name="stiffness", unit="Pa")
    return Layout(inputs, (FieldSpec(name="shift", on=geometry, components=2, unit="m"),))


def new_surrogate(name):
    layout = layout_on(GEOMETRIES[name])
    torch.manual_seed(0)
    blocks = (*layout.input_blocks, *layout.output_blocks)
    mean, std = ({b.name: 1 + torch.arange(b.shape[0]) / shift for b in blocks} for shift in (2, 0.3))
    model = MODELS[name](layout, **SMALL[name])
    return Surrogate(model, Normalization(mean, std), layout).eval()


def card_of(name):
    return {"model": {"name": name, "options": SMALL[name]}, "versions": {"penstock": "0"}}


def written(name, folder, kind):
    surrogate = new_surrogate(name)
    example = free_samples(surrogate.layout, 2, torch.device("cpu"))
    return surrogate, export(surrogate, card_of(name), folder / f"it.{kind}", example)


def inputs_of(surrogate, size):
    arrays = free_samples(surrogate.layout, size, torch.device("cpu"))
    blocks = (*surrogate.layout.input_blocks, *surrogate.layout.geometry_blocks)
    return {name: values.numpy() for block in blocks for name, values in block.by_name(arrays[block.name]).items()}


def assert_predicts(loaded, surrogate, inputs):
    outputs = loaded(**inputs)
    with torch.no_grad():
        expected = surrogate(**{name: torch.from_numpy(values) for name, values in inputs.items()})
    assert outputs.keys() == expected.keys()
    for name, values in expected.items():
        assert isinstance(outputs[name], np.ndarray) and outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], values.numpy(), rtol=1e-4, atol=1e-5 * values.abs().max().item())


@pytest.mark.parametrize("name", GEOMETRIES)
def test_weights_and_card_are_a_surrogate_again_on_every_geometry(name, tmp_path):
    """The layout, periodic axes, meshes and boxes among it, comes from the file alone."""
    surrogate, path = written(name, tmp_path, "safetensors")
    loaded = penstock.load(path)
    for size in (1, 3):
        assert_predicts(loaded, surrogate, inputs_of(surrogate, size))
    assert loaded.card == json.loads((tmp_path / "it.safetensors.card.json").read_text())
    assert "penstock" in loaded.card["file"]["needs"] and "code of the model" in loaded.card["file"]["needs"]
    free = {"fno": ["n0 (12)", "n1 (10)"], "unet": ["n0 (12)", "n1 (10)"], "gnot": ["points (at most 30)"]}
    assert list(loaded.card["free sizes"]) == ["batch", *free.get(name, [])]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_a_field_holds_outside_of_a_mask_changes_nothing_that_a_file_predicts_inside(kind, tmp_path):
    """A training has put 0 there; a caller need not."""
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    surrogate, path = written("mlp", tmp_path, kind)
    loaded, inputs = penstock.load(path), inputs_of(surrogate, 3)
    inside = inputs["weights"] > 0
    inside[:, 4:7, 2:5] = False
    inputs["weights"] *= inside
    expected = loaded(**inputs | {"load": inputs["load"] * inside[:, None]})["shift"]
    found = loaded(**inputs | {"load": np.where(inside[:, None], inputs["load"], np.float32(-1e6))})["shift"]
    np.testing.assert_array_equal(found, expected)
    assert not np.allclose(loaded(**inputs | {"load": 2 * inputs["load"]})["shift"], expected)


@pytest.mark.slow  # torch.export and torch.onnx trace an FNO of free sizes
def test_the_formats_agree_at_another_resolution_and_keep_their_cards_apart(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    grid = np.random.default_rng(0).normal(size=(2, 2, 17, 24))
    outputs = []
    for kind in FORMATS:
        surrogate, path = written("fno", tmp_path, kind)
        loaded = penstock.load(str(path))
        inputs = inputs_of(surrogate, 2) | {"load": grid.astype(np.float32)}
        assert_predicts(loaded, surrogate, inputs)
        assert loaded.card["file"]["format"] == kind
        outputs.append(loaded(**inputs)["shift"])
        with pytest.raises(PenstockError, match="load") as refusal:  # 3 modes need 6 points
            loaded(**inputs | {"load": grid[:, :, :5]})
        assert "\n" not in str(refusal.value)
        if kind != "safetensors":  # ONNX would give numbers where the model refuses to
            assert loaded.card["free sizes"] == {"batch": 1, "n0 (12)": 6, "n1 (10)": 6}
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs[2], outputs[0], rtol=1e-4, atol=1e-4)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"it.{kind}" for kind in FORMATS} | {
        "it.card.json", "it.onnx.card.json", "it.safetensors.card.json"
    }  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return penstock.load(written("fno", tmp_path_factory.mktemp("fno"), "safetensors")[1])


LOAD, STIFFNESS = np.ones((3, 2, 12, 10), np.float32), np.linspace(1, 2, 3)


def test_tensors_lists_and_double_precision_are_taken(loaded):
    expected = loaded(load=LOAD, stiffness=STIFFNESS.astype(np.float32))["shift"]
    for load in (torch.from_numpy(LOAD), torch.ones(3, 2, 12, 10, requires_grad=True), LOAD.tolist(), LOAD.astype(int)):
        np.testing.assert_array_equal(loaded(load=load, stiffness=STIFFNESS)["shift"], expected)
    assert repr(loaded) == (
        "surrogate(load [batch, 2, n0 (12), n1 (10)] in N, stiffness [batch] in Pa) -> "
        "shift [batch, 2, n0 (12), n1 (10)] in m"
    )


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"load": LOAD}, "stiffness is missing: give load, stiffness by name"),
        ({"lode": LOAD}, "lode: there is no such input; did you mean 'load'?"),
        (
            {"load": LOAD[0], "stiffness": STIFFNESS},
            r"load has shape \[2, 12, 10\] and must have \[batch, 2, n0 \(12\), ",
        ),
        ({"load": LOAD[0], "stiffness": STIFFNESS}, r"give one sample as a batch of one, array\[None\]"),
        ({"load": LOAD[:, :1], "stiffness": STIFFNESS}, r"load has shape \[3, 1, 12, 10\] and must have \[batch, 2, "),
        ({"load": LOAD, "stiffness": STIFFNESS[:2]}, r"stiffness has shape \[2\] .*: batch is 3 in load"),
        ({"load": LOAD + 1j, "stiffness": STIFFNESS}, "'load' is complex"),
        ({"load": LOAD, "stiffness": ["a", "b", "c"]}, "'stiffness' is text"),
        ({"load": LOAD, "stiffness": STIFFNESS * np.nan}, "stiffness holds values that are not finite"),
        ({"load": LOAD, "stiffness": STIFFNESS * 1e300}, "stiffness holds values that are not finite in float32"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line(loaded, inputs, expected):
    with pytest.raises(PenstockError, match=expected) as refusal:
        loaded(**inputs)
    assert "\n" not in str(refusal.value)


def test_edges_are_integers_and_points_agree_in_number(tmp_path):
    cloud = Points(30, 2, max_edges=20)
    layout = Layout((FieldSpec(name="a", on=cloud),), (FieldSpec(name="u", on=cloud),))
    model = MODELS["mesh_graph_net"](layout, **SMALL["mesh_graph_net"])
    surrogate = Surrogate(model, Normalization.identity(layout), layout).eval()
    path = export(
        surrogate, card_of("mesh_graph_net"), tmp_path / "it.safetensors", free_samples(layout, 2, torch.device("cpu"))
    )
    loaded, inputs = penstock.load(path), inputs_of(surrogate, 2)
    assert_predicts(loaded, surrogate, inputs)
    with pytest.raises(PenstockError, match="edges has dtype float64 and must hold integers"):
        loaded(**inputs | {"edges": inputs["edges"] + 0.5})
    with pytest.raises(PenstockError, match=r"weights has shape \[2, 29\] .*: points \(at most 30\) is 30 in a"):
        loaded(**inputs | {"weights": inputs["weights"][:, :29]})


MINE = """
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self, layout, *, power: int = 1):
        super().__init__()
        self.mix = nn.LazyConv2d(2, 1)
        self.power = power
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, fields, scalars):
        return self.mix(fields**self.power) + scalars[..., None, None]
"""


def test_a_model_of_ones_own_is_looked_for_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine.py").write_text(MINE)
    layout = layout_on(GRID)
    model = load_class("kept/mine.py:Mine", MODELS, "model")(layout, power=2)
    surrogate = Surrogate(model, Normalization.identity(layout), layout).eval()
    surrogate(load=torch.ones(1, 2, 12, 10), stiffness=torch.ones(1))
    card = {"model": {"name": "mine.py:Mine", "options": {"power": 2}}}
    example = free_samples(layout, 2, torch.device("cpu"))
    path = export(surrogate, card, tmp_path / "kept" / "it.safetensors", example)
    assert_predicts(penstock.load(path), surrogate, inputs_of(surrogate, 2))
    (tmp_path / "kept" / "mine.py").write_text(MINE.replace("LazyConv2d(2, 1)", "LazyConv2d(2, 3, padding=1)"))
    with pytest.raises(PenstockError, match=r"it.safetensors is from another mine.py:Mine: model.mix.weight was "):
        penstock.load(path)
    (tmp_path / "kept" / "mine.py").unlink()
    with pytest.raises(PenstockError, match=r"it.safetensors needs mine.py, .*: put it beside"):
        penstock.load(path)


def test_a_model_that_knows_frames_is_the_same_again(tmp_path):
    """Two states in, two out: without `feeds` the first field would be taken for a state too."""
    specs = [FieldSpec(name=name, on=GRID) for name in ("force", "before_0", "before_1", "after_0", "after_1")]
    layout = Layout(tuple(specs[:3]), tuple(specs[3:]), {"before_0": "before_1", "before_1": "after_0"})
    torch.manual_seed(0)
    model = MODELS["st_fno"](layout, **SMALL["st_fno"])
    surrogate = Surrogate(model, Normalization.identity(layout), layout).eval()
    path = export(surrogate, card_of("st_fno"), tmp_path / "it.safetensors", free_samples(layout, 2, "cpu"))
    assert_predicts(penstock.load(path), surrogate, inputs_of(surrogate, 2))
    assert weights_file.read(path)[0].layout.feeds == layout.feeds


def with_metadata(path, change):
    """The file with its card and layout changed in place."""
    with safe_open(path, "pt") as file:
        metadata = {name: json.loads(text) for name, text in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    change(metadata)
    save_file(tensors, path, {name: json.dumps(value) for name, value in metadata.items()})
    return path


def test_a_file_from_before_feeds_were_kept_is_read(tmp_path):
    surrogate, path = written("fno", tmp_path, "safetensors")
    with_metadata(path, lambda metadata: metadata["layout"].pop("feeds", None))
    assert_predicts(penstock.load(path), surrogate, inputs_of(surrogate, 1))


class Forgetful(nn.Module):
    """Keeps a part of what it computes with out of its state."""

    def __init__(self, layout):
        super().__init__()
        self.mix = nn.Conv2d(2, 2, 1)
        self.factor = 1.0

    def forward(self, fields, scalars):
        return self.factor * self.mix(fields) + scalars[..., None, None]


def forgetful(layout):
    return Forgetful(layout)


def test_weights_that_are_not_the_whole_model_are_not_written(tmp_path):
    layout = layout_on(GRID)
    surrogate = Surrogate(Forgetful(layout), Normalization.identity(layout), layout)
    cases = {"Forgetful": "the exported file disagrees with the model: shift", "forgetful": "it makes a Forgetful"}
    surrogate.model.factor = 2.0
    for name, expected in cases.items():
        card = {"model": {"name": f"{__name__}:{name}", "options": {}}}
        with pytest.raises(PenstockError, match=expected) as refusal:
            export(surrogate, card, tmp_path / "it.safetensors", free_samples(layout, 2, "cpu"))
        assert "\n" not in str(refusal.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("subprocess:run", "wants subprocess:run as its model, which is no class of torch"),
        ("pathlib:Path", "wants pathlib:Path as its model, which is no class of torch"),
        ("beside.py:make", "beside.py:make as its model, which is no class of torch"),
        ("{folder}/elsewhere/mine.py:Mine", "only a file beside it is taken, as mine.py"),
        ("../elsewhere/mine.py:Mine", "only a file beside it is taken, as mine.py"),
        ("elsewhere/mine.py:Mine", "only a file beside it is taken, as mine.py"),
        ("{folder}/elsewhere/.py:Mine", "only a file beside it is taken, as .py"),
        (".py:Mine", "needs .py, which has the code of its model: put it beside"),
    ],
)
def test_a_card_names_a_model_that_is_installed_or_beside_the_file_and_nothing_else(
    name, expected, tmp_path, monkeypatch
):
    """What it names otherwise is neither called nor, of files, run."""
    folder = tmp_path / "kept"
    _, path = written("fno", folder, "safetensors")
    (folder / "beside.py").write_text(f"def make(layout): open({str(tmp_path / 'called')!r}, 'w')")
    for place in (tmp_path, tmp_path / "elsewhere", folder / "elsewhere"):
        place.mkdir(exist_ok=True)
        for file in ("mine.py", ".py"):
            (place / file).write_text(f"open({str(tmp_path / 'called')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    named = {"name": name.format(folder=tmp_path), "options": {}}
    with_metadata(path, lambda metadata: metadata["card"].update(model=named))
    with pytest.raises(PenstockError, match=expected) as refusal:
        penstock.load(path)
    assert "\n" not in str(refusal.value) and not (tmp_path / "called").exists()


def test_what_is_no_surrogate_is_one_line(tmp_path, monkeypatch):
    save_file({"a": torch.ones(1)}, tmp_path / "tensors.safetensors")
    for kind in FORMATS:
        (tmp_path / f"broken.{kind}").write_bytes(b"nothing")
    cases = {
        "absent.pt2": "there is no .*absent.pt2: give a run folder, or a file of `penstock export`",
        "tensors.safetensors": "holds tensors alone",
        "broken.pt2": "broken.pt2 is damaged, or was not written by penstock",
        "broken.safetensors": "broken.safetensors is damaged",
        ".": "is not a run folder",
    }
    (tmp_path / "x.txt").write_text("")
    cases["x.txt"] = "x.txt: give a run folder, or a file that ends with .pt2, .onnx, .safetensors"
    for name, expected in cases.items():
        with pytest.raises(PenstockError, match=expected) as refusal:
            penstock.load(tmp_path / name)
        assert "\n" not in str(refusal.value)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PenstockError, match=r"ONNX needs the package onnxruntime: pip install 'penstock\[onnx\]'"):
        penstock.load(tmp_path / "broken.onnx")
