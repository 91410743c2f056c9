"""MultiONet: the published number of parameters, and as a DeepONet where it is one."""

import pytest
import torch
from torch.nn.functional import gelu

from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.points.pooled.deeponet import DeepONet
from penstock.learner.models.points.pooled.multi_onet import MultiONet

SENSORS, SQUARE = Grid((128,), name="sensors"), Grid((29, 29), name="square")


def layout_of(inputs, outputs, components=1):
    return Layout((FieldSpec(name="a", on=inputs),), (FieldSpec(name="u", on=outputs, components=components),))


def test_it_has_the_115974_parameters_of_the_authors_darcy_flow():
    """Without their encoder, whose 128 numbers the branch sees: here they are sensors."""
    model = MultiONet(layout_of(SENSORS, SQUARE), width=128, layers=3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 115_974


def test_with_one_layer_it_is_a_deeponet_whose_branch_is_activated():
    torch.manual_seed(0)
    layout = layout_of(SENSORS, SQUARE, components=2)
    model, other = MultiONet(layout, width=5, layers=1), DeepONet(layout, width=10, latent=5, layers=1)
    torch.nn.init.normal_(model.offsets)
    for mine, theirs, enter in zip(model.nets, other.nets, model.enter, strict=True):
        theirs[0].load_state_dict(enter.state_dict())
        theirs[1].load_state_dict(mine[0].state_dict())
    other.offset.data = model.offsets.data[0]
    other.nets[0][1].register_forward_hook(lambda layer, inputs, output: gelu(output))
    arrays = {block.name: torch.randn(3, *block.shape) for block in layout.input_blocks}
    torch.testing.assert_close(model(**arrays), other(**arrays))


def test_its_outputs_lie_in_a_space_of_as_many_dimensions_as_products():
    torch.manual_seed(0)
    layout = layout_of(Grid((6,), name="sensors"), SQUARE)
    model = MultiONet(layout, width=3, layers=2)
    (block,) = layout.input_blocks
    with torch.no_grad():
        for parameter in model.nets.parameters():
            parameter.normal_()  # far from linear
        values = model(**{block.name: 3 * torch.randn(40, *block.shape)})[:, 0].flatten(1).double()
    singular = torch.linalg.svdvals(values - values.mean(dim=0))
    assert singular[6] < 1e-5 * singular[0] < 0.1 * singular[3]  # at most 6, and more than the 3 of one layer


def test_what_it_can_not_take_is_refused():
    with pytest.raises(ValueError, match="multi_onet: needs all outputs on one geometry, no scalars among"):
        MultiONet(Layout((FieldSpec(name="k"),), (FieldSpec(name="u", on=SENSORS), FieldSpec(name="drag"))))
    with pytest.raises(ValueError, match="multi_onet: layers must be at least 1, not 0"):
        MultiONet(layout_of(Points(9, 2), Points(9, 2)), layers=0)
