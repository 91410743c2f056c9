"""The fully connected net against plain NumPy, its size against the paper's, and what it refuses."""

import json

import numpy as np
import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.export.files import export
from penstock.learner.models import MODELS
from penstock.learner.models.mlp import MLP
from penstock.learner.normalization import Normalization, RunningMoments
from penstock.learner.surrogate import Surrogate


def layout_of(*grid, scalars=("t",), fields=(), outputs=("u",)):
    inputs = [FieldSpec(name=name) for name in scalars] + [FieldSpec(name=name, on=Grid(grid)) for name in fields]
    return Layout(tuple(inputs), tuple(FieldSpec(name=name, on=Grid(grid)) for name in outputs))


def test_the_papers_net_has_the_papers_257_million_parameters():
    layout = layout_of(1000, 1000, scalars=("initial", "left", "right", "bottom", "top", "time"))
    with torch.device("meta"):
        model = MLP(layout)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == (6 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * 10**6 == 257_067_584


@pytest.mark.parametrize(
    "layout",
    [
        layout_of(5, 4, scalars=("t", "d"), outputs=("u", "v")),
        layout_of(7, scalars=(), fields=("a", "b")),
        layout_of(3, 2, 2, scalars=("t",), fields=("a",)),
    ],
)
def test_it_is_its_formula(layout):
    torch.manual_seed(0)
    model = MODELS["mlp"](layout, hidden=(9, 8))
    arrays = {name: torch.randn(6, *shape) for name, shape in layout.shapes.items() if name != "targets"}
    x = np.concatenate([arrays[name].numpy().reshape(6, -1) for name in ("scalars", "fields") if name in arrays], 1)
    weights = [parameter.detach().numpy().astype(np.float64) for parameter in model.parameters()]
    for weight, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        x = np.maximum(x @ weight.T + bias, 0)
    expected = (x @ weights[4].T + weights[5]).reshape(6, *layout.shapes["targets"])
    np.testing.assert_allclose(model(**arrays).detach().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_it_learns_a_linear_map():
    torch.manual_seed(0)
    model = MLP(layout_of(6, scalars=("a", "b")), hidden=(32,))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    scalars = torch.rand(256, 2)
    targets = (scalars @ torch.randn(2, 6))[:, None]
    for _ in range(300):
        optimizer.zero_grad()
        (model(scalars) - targets).square().mean().backward()
        optimizer.step()
    assert (model(scalars) - targets).norm() / targets.norm() < 0.02


@pytest.mark.parametrize("fields", [(), ("a",)])
def test_the_exported_file_is_the_net_at_any_batch(tmp_path, fields):
    """A grid of other sizes but as many points would be taken without a word: its sizes must be fixed in the card."""
    torch.manual_seed(0)
    layout = layout_of(8, 6, fields=fields, scalars=("t", "d"), outputs=("u", "v"))
    arrays = {name: torch.randn(4, *shape) for name, shape in layout.shapes.items()}
    moments = RunningMoments()
    moments.update({name: array.numpy() for name, array in arrays.items()})
    surrogate = Surrogate(MLP(layout, hidden=(5,)), Normalization.from_moments(moments, layout), layout)
    path = export(surrogate, {}, tmp_path / "mlp", {name: array[:1] for name, array in arrays.items()})
    module = torch.export.load(path).module()
    for batch_size in (1, 7):
        inputs = {name: torch.rand(batch_size, 8, 6) for name in fields}
        inputs |= {"t": torch.rand(batch_size), "d": torch.rand(batch_size)}
        torch.testing.assert_close(module(**inputs), surrogate(**inputs))
    card = json.loads((tmp_path / "mlp.card.json").read_text())
    assert {tuple(spec["shape"]) for spec in card["inputs"] + card["outputs"]} == {("batch",), ("batch", 8, 6)}


@pytest.mark.parametrize("hidden", [(256, 0), (2.5,), 256, "256", [True, "8"]])
def test_bad_hidden_layers_are_refused(hidden):
    with pytest.raises(ValueError, match="mlp: hidden must be a list of whole numbers of at least 1, not") as error:
        MLP(layout_of(4), hidden=hidden)
    assert "\n" not in str(error.value)


def test_a_problem_without_inputs_is_refused():
    with pytest.raises(ValueError, match="mlp: needs an input"):
        MLP(layout_of(4, scalars=()))
