"""The U-Net: shifts, scalars, and halvings of its grid."""

import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.convolutional.convolution import halvings
from penstock.learner.models.grids.convolutional.unet import UNet


def layout_on(grid, *scalars):
    inputs = (FieldSpec(name="a", on=grid), *(FieldSpec(name=name) for name in scalars))
    return Layout(inputs, (FieldSpec(name="u", on=grid),))


def test_on_a_periodic_grid_a_shift_by_the_coarsest_cell_shifts_the_output():
    torch.manual_seed(0)
    model = UNet(layout_on(Grid((16, 24), periodic=True)), width=4, levels=3, blocks=2)
    fields = torch.randn(2, 1, 16, 24)
    shifted = model(fields.roll((4, -8), (2, 3)))
    torch.testing.assert_close(shifted, model(fields).roll((4, -8), (2, 3)), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(model(fields.roll(1, 2)), model(fields).roll(1, 2), rtol=1e-3, atol=1e-5)


def test_scalars_act_through_the_norms_and_not_before_training():
    torch.manual_seed(0)
    grid = Grid((12, 9))
    model, plain = UNet(layout_on(grid, "t"), width=4), UNet(layout_on(grid), width=4)
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if key in plain.state_dict()})
    fields, t = torch.randn(2, 1, 12, 9), torch.randn(2, 1)
    assert torch.equal(model(fields, t), plain(fields)) and torch.equal(model(fields, t), model(fields, t + 1))
    for block in (block for stage in model.ushape.down for block in stage):
        block.modulate.weight.data.normal_()
    assert not torch.allclose(model(fields, t), model(fields, t + 1))


def test_without_its_second_convolutions_a_block_is_its_shortcut():
    torch.manual_seed(0)
    model = UNet(layout_on(Grid((10, 11))), width=4, levels=1, blocks=2)
    for block in model.ushape.down[0]:
        for parameter in block.second.parameters():
            parameter.data.zero_()
    fields = torch.randn(2, 1, 10, 11)
    expected = model.project(torch.nn.functional.gelu(model.norm(model.lift(fields))))
    assert torch.equal(model(fields), expected)


def test_an_axis_is_halved_while_4_points_remain():
    assert halvings("unet", (64, 64), None, 4) == [(2, 2)] * 3
    assert halvings("unet", (64, 12), None, 4) == [(2, 2), (2, 1), (2, 1)]  # 12, 6, then 3 would be left
    assert halvings("unet", (7,), None, 4) == [(2,)] and halvings("unet", (6, 5), None, 4) == []
    with pytest.raises(ValueError, match=r"unet: 4 levels are too many for the grid 16x9: .* it has 3$"):
        UNet(layout_on(Grid((16, 9))), levels=4)
