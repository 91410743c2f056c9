"""The models of neuraloperator, where it is installed, through the wrapper; and what is said where it is not."""

import sys

import pytest
import torch

import penstock
from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.export import onnx_file
from penstock.learner.export.files import NOT_WRITTEN, export
from penstock.learner.losses.losses import MSE, TotalLoss
from penstock.learner.models import MODELS, refused_geometry
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.rehearsal.rehearsal import rehearse
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.validation import Validation

OPTIONS = {"n_modes": [4, 4], "hidden_channels": 4, "n_layers": 1}
UNO = {
    "hidden_channels": 4,
    "n_layers": 3,
    "uno_out_channels": [4, 4, 4],
    "uno_n_modes": [[4, 4]] * 3,
    "uno_scalings": [[1.0, 1.0], [0.5, 0.5], [2.0, 2.0]],
    "channel_mlp_skip": "linear",
}


def layout_on(grid):
    inputs = FieldSpec(name="a", on=grid, components=2), FieldSpec(name="k")
    return Layout(inputs, (FieldSpec(name="u", on=grid),))


def test_without_the_package_the_refusal_is_one_line_and_no_one_is_sent_to_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "neuralop", None)
    with pytest.raises(
        ValueError, match=r"^neuralop: needs the package neuraloperator .*\[neuraloperator\]'$"
    ) as refusal:
        MODELS["neuralop"](layout_on(Grid((8, 8))))
    assert "\n" not in str(refusal.value)
    layout = Layout((FieldSpec(name="a", on=Grid((8, 8))),), (FieldSpec(name="u", on=Grid((8, 8))),))
    assert "neuralop" not in refused_geometry("mesh_graph_net", MODELS["mesh_graph_net"], layout)


@pytest.mark.parametrize(("model", "options"), [("FNO", OPTIONS), ("TFNO", OPTIONS), ("UNO", UNO)])
def test_it_is_the_package_s_model_and_lives_like_ours(model, options, tmp_path):
    """Trained, saved, restored, and exported as weights."""
    models = pytest.importorskip("neuralop.models")
    assert NOT_WRITTEN["neuralop"] == {"onnx"}
    grid = Grid((9, 12), is_masked=True)
    layout = layout_on(grid)

    def make():
        built = MODELS["neuralop"](layout, model=model, options=options)
        return Surrogate(built, Normalization.identity(layout), layout)

    surrogate = make().eval()
    net = getattr(models, model)(in_channels=4, out_channels=1, **options)
    net.load_state_dict(surrogate.model.net.state_dict())
    fields, scalars, weights = torch.randn(3, 2, 9, 12), torch.randn(3, 1), torch.rand(3, 9, 12).sub(0.3).clamp_min(0)
    channels = [fields, (weights > 0).float()[:, None], scalars[..., None, None].expand(-1, -1, 9, 12)]
    torch.testing.assert_close(surrogate.model(fields, scalars, weights), net(torch.cat(channels, dim=1)))
    notes = rehearse(
        make,
        lambda each: Optimization(each, loss=TotalLoss(layout, MSE), learning_rate=1e-3, ema_decay=0.9),
        lambda arrays: Validation(arrays, layout, batch_size=2),
        batch_sizes=(4, 1),
        folder=tmp_path,
        must_repeat=True,
    )
    assert notes == []
    if model == "FNO":
        with pytest.raises(PenstockError, match="NeuralOp can't be written as ONNX"):
            onnx_file.contents_of(surrogate, {}, free_samples(layout, 2, torch.device("cpu")))
    card = {"model": {"name": "neuralop", "options": {"model": model, "options": options}}}
    path = export(surrogate, card, tmp_path / "it.safetensors", free_samples(layout, 2, torch.device("cpu")))
    inputs = {"a": fields, "k": scalars[:, 0], "weights": weights}
    torch.testing.assert_close(
        torch.from_numpy(penstock.load(path)(**inputs)["u"]), surrogate(**inputs | {"weights": weights})["u"]
    )


def test_options_that_the_package_refuses_are_one_line():
    pytest.importorskip("neuralop")
    layout = layout_on(Grid((8, 8)))
    for options, expected in (
        ({"in_channels": 3}, "in_channels follow from the problem's fields"),
        ({"n_mode": 3}, "FNO refuses its options: TypeError: .*n_mode"),
    ):
        with pytest.raises(ValueError, match=f"^neuralop: {expected}"):
            MODELS["neuralop"](layout, options=options)
    with pytest.raises(ValueError, match=r"^neuralop: UNO refuses its options: "):
        MODELS["neuralop"](layout, model="UNO")
    with pytest.raises(ValueError, match=r"^neuralop: model must be FNO or TFNO or UNO, not 'SFNO'"):
        MODELS["neuralop"](layout, model="SFNO")
