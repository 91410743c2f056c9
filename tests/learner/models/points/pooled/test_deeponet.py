"""DeepONet against NumPy, the space of its outputs, masks, and inputs and outputs on different geometries."""

import io

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.export.program import contents_of
from penstock.learner.losses.losses import RelativeL2, TotalLoss
from penstock.learner.models.points.pooled.deeponet import DeepONet
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.surrogate import Surrogate

SENSORS, CLOUD = Grid((6,), name="sensors"), Points(30, 2, name="cloud")
LINE, MASKED_LINE = Grid((6,), extent=(3.0,)), Grid((6,), extent=(3.0,), is_masked=True)
CPU = torch.device("cpu")


def layout_of(inputs, outputs, components=1):
    return Layout(
        (FieldSpec(name="a", on=inputs), FieldSpec(name="k")), (FieldSpec(name="u", on=outputs, components=components),)
    )


def predicted(model, layout, arrays):
    with torch.no_grad():
        return Surrogate(model, Normalization.identity(layout), layout).predict(arrays)["targets"]


def samples(layout, num):
    """Free samples, and on a masked grid each with another domain."""
    arrays = free_samples(layout, num, CPU)
    masks = [block for block in layout.geometry_blocks if not block.is_ragged]
    for block in masks:
        is_inside = torch.rand(num, *block.shape, generator=torch.Generator().manual_seed(num)) < 0.6
        arrays[block.name] = torch.where(is_inside, arrays[block.name] + 0.1, 0.0)
    return arrays


@pytest.mark.parametrize("line", [LINE, MASKED_LINE], ids=["plain", "masked"])
@pytest.mark.parametrize("modified", [False, True])
def test_it_is_its_formula(modified, line):
    torch.manual_seed(0)
    layout = layout_of(line, line, components=2)
    model = DeepONet(layout, width=5, latent=4, layers=2, modified=modified)
    torch.nn.init.normal_(model.offset)
    arrays, sample = samples(layout, 3), 1
    outputs = predicted(model, layout, arrays)
    chi = (arrays["weights"][sample, 0].numpy() > 0) if line.is_masked else np.ones(6)
    a = [arrays["fields"][sample, 0].numpy() * chi, arrays["scalars"][sample].numpy()]
    a = np.concatenate([*a, chi] if line.is_masked else a)
    phi = lambda x: gelu(torch.tensor(x)).numpy()  # noqa: E731
    linear = lambda layer, x: layer.weight.detach().double().numpy() @ x + layer.bias.detach().double().numpy()  # noqa: E731
    for point in range(6):
        both = [a.astype(float), np.array([(point + 0.5) / 6])]
        gates = [phi(linear(gate, h)) for gate, h in zip(model.gates, both, strict=False)]
        for number in range(2):
            both = [phi(linear(net[number], h)) for net, h in zip(model.nets, both, strict=True)]
            if modified:
                both = [z * gates[0] + (1 - z) * gates[1] for z in both]
        b, t = linear(model.nets[0][2], both[0]), phi(linear(model.nets[1][2], both[1]))
        expected = (b * t).reshape(2, 4).sum(1) + model.offset.detach().numpy()
        np.testing.assert_allclose(outputs[sample, :, point], chi[point] * expected, rtol=1e-4, atol=1e-5)
    assert not line.is_masked or 0 < chi.sum() < 6


def test_its_outputs_lie_in_a_space_of_as_many_dimensions_as_it_has_functions():
    torch.manual_seed(0)
    mesh = Mesh(4, 2, lambda: (np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 2], [0, 2, 3]])))
    layout = layout_of(mesh, mesh)
    arrays = free_samples(layout, 20, CPU)
    for modified, is_in in ((False, True), (True, False)):
        model = DeepONet(layout, width=16, latent=2, layers=2, modified=modified)
        values = np.linalg.svd(predicted(model, layout, arrays)[:, 0], compute_uv=False)
        assert (values[2] < 1e-5 * values[0]) == is_in and values[1] > 1e-4 * values[0]


def test_sensors_on_a_grid_give_outputs_at_any_points():
    torch.manual_seed(0)
    layout = layout_of(SENSORS, CLOUD)
    model, arrays = DeepONet(layout, width=8, latent=4), free_samples(layout, 2, CPU)
    model.seen.pools.requires_grad_(False)
    assert predicted(model, layout, arrays).shape == (2, 1, 30)
    fields = [name for name in arrays if arrays[name].shape[-1] == 6]
    other = arrays | {name: 2 * arrays[name] for name in fields}
    assert not torch.allclose(predicted(model, layout, arrays), predicted(model, layout, other))


def test_points_that_vary_are_pooled_whatever_the_outputs_sit_on():
    torch.manual_seed(0)
    layout = layout_of(CLOUD, SENSORS)
    model, arrays = DeepONet(layout, width=8, latent=4), free_samples(layout, 2, CPU)
    order = torch.randperm(30)
    shuffled = {name: values[..., order] if values.shape[-1] == 30 else values for name, values in arrays.items()}
    torch.testing.assert_close(predicted(model, layout, shuffled), predicted(model, layout, arrays))


def domains(layout, ends):
    """Samples of -u'' = 1 on [l, r], u(l) = u(r) = 0, of which the domain is all that is given: u = (x - l)(r - x) / 2.

    Args:
        layout: layout on a masked grid of the unit interval.
        ends: numbers of the first cell inside and of the first one after it, for each sample.
    """
    (n,) = layout.geometries[0].shape
    x, (left, right) = (np.arange(n) + 0.5) / n, np.array(ends).T[:, :, None] / n
    is_inside = (x > left) & (x < right)
    values = np.where(is_inside, (x - left) * (right - x) / 2, 0)
    arrays = {"weights": is_inside / n, "targets": values}
    return {name: torch.tensor(array[:, None], dtype=torch.float32) for name, array in arrays.items()}


def test_one_net_learns_the_torsion_of_all_intervals_from_their_masks_and_exports():
    torch.manual_seed(0)
    layout = Layout((), (FieldSpec(name="u", on=Grid((16,), is_masked=True)),))
    ends = [(left, right) for left in range(13) for right in range(left + 4, 17)]
    order = np.random.default_rng(0).permutation(len(ends))
    learnt, unseen = (domains(layout, [ends[i] for i in part]) for part in (order[18:], order[:18]))
    normalization = Normalization({"targets": torch.full((1,), 0.03)}, {"targets": torch.full((1,), 0.03)})
    surrogate = Surrogate(DeepONet(layout, width=32, latent=16, layers=1), normalization, layout)
    step = Optimization(surrogate, loss=TotalLoss(layout, RelativeL2), learning_rate=1e-2)
    for number in range(300):
        step(learnt, 1e-2 * (1 - number / 300))
    with torch.no_grad():
        found, expected = surrogate.predict(unseen)["targets"], unseen["targets"]
    assert ((found - expected).norm(dim=2) / expected.norm(dim=2)).mean() < 0.2  # 0.7 by their mean
    assert not found[unseen["weights"] == 0].any()

    contents, card = contents_of(surrogate, {}, unseen)
    assert card["inputs"][0]["shape"] == ["batch", 16]
    written = torch.export.load(io.BytesIO(contents)).module()(weights=unseen["weights"][:, 0])["u"]
    torch.testing.assert_close(written, found[:, 0])
    assert not written[unseen["weights"][:, 0] == 0].any()


@pytest.mark.parametrize(
    "layout",
    [
        Layout((FieldSpec(name="k"),), (FieldSpec(name="u", on=SENSORS), FieldSpec(name="drag"))),
        Layout((FieldSpec(name="k"),), (FieldSpec(name="u", on=SENSORS), FieldSpec(name="v", on=CLOUD))),
        Layout((), (FieldSpec(name="u", on=SENSORS),)),
    ],
)
def test_outputs_on_several_geometries_and_no_inputs_are_refused(layout):
    with pytest.raises(ValueError, match="deeponet: needs all outputs on one geometry, no scalars among them, and an"):
        DeepONet(layout)
