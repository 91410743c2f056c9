"""DeepONet against NumPy, the space of its outputs, and inputs and outputs on different geometries."""

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.points.pooled.deeponet import DeepONet
from penstock.learner.normalization import Normalization
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.surrogate import Surrogate

SENSORS, CLOUD = Grid((6,), name="sensors"), Points(30, 2, name="cloud")
CPU = torch.device("cpu")


def layout_of(inputs, outputs, components=1):
    return Layout(
        (FieldSpec(name="a", on=inputs), FieldSpec(name="k")), (FieldSpec(name="u", on=outputs, components=components),)
    )


def predicted(model, layout, arrays):
    with torch.no_grad():
        return Surrogate(model, Normalization.identity(layout), layout).predict(arrays)["targets"]


@pytest.mark.parametrize("modified", [False, True])
def test_it_is_its_formula(modified):
    torch.manual_seed(0)
    line = Grid((6,), extent=(3.0,))
    layout = layout_of(line, line, components=2)
    model = DeepONet(layout, width=5, latent=4, layers=2, modified=modified)
    torch.nn.init.normal_(model.offset)
    arrays = free_samples(layout, 3, CPU)
    outputs, sample = predicted(model, layout, arrays), 1
    inputs = {block.name: arrays[block.name][sample].flatten() for block in layout.input_blocks}
    a = np.concatenate([inputs[block.name] for block in layout.input_blocks])
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
        np.testing.assert_allclose(outputs[sample, :, point], expected, rtol=1e-4, atol=1e-5)


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
