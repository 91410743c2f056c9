"""The U-Net: shifts, scalars, and halvings of its grid."""

import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.convolutional.convolution import Convolution, RepeatedConvolution, halvings
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


@pytest.mark.parametrize("grid", [(8,), (12, 6), (11, 6), (4, 6, 10), (4, 6, 9)])
def test_a_repeated_convolution_is_that_of_the_repeated_activations(grid):
    """On grids of whole coarse cells it is a transposed convolution, on others it is not."""
    torch.manual_seed(0)
    stride = (2, 1, 2)[: len(grid)]
    coarse = [(size + step - 1) // step for size, step in zip(grid, stride, strict=True)]
    x = torch.randn(2, 3, *coarse, dtype=torch.float64)
    repeated = x
    for axis, (size, step) in enumerate(zip(grid, stride, strict=True), start=2):
        repeated = repeated.repeat_interleave(step, dim=axis).narrow(axis, 0, size)
    for periodic in ((False, True, False), (True, False, True)):
        model = RepeatedConvolution(3, 2, periodic[: len(grid)], stride).double()
        plain = Convolution(3, 2, periodic[: len(grid)]).double()
        plain.load_state_dict(model.state_dict())
        torch.testing.assert_close(model(x, grid), plain(repeated))


def test_a_pointwise_convolution_is_torch_s():
    torch.manual_seed(0)
    for grid in ((5,), (4, 6), (4, 3, 2)):
        model = Convolution(3, 2, (False,) * len(grid), kernel=1)
        x = torch.randn(2, 3, *grid)
        torch.testing.assert_close(model(x), model.convolution(x))


def test_an_axis_is_halved_while_4_points_remain():
    assert halvings("unet", (64, 64), None, 4) == [(2, 2)] * 3
    assert halvings("unet", (64, 12), None, 4) == [(2, 2), (2, 1), (2, 1)]  # 12, 6, then 3 would be left
    assert halvings("unet", (7,), None, 4) == [(2,)] and halvings("unet", (6, 5), None, 4) == []
    with pytest.raises(ValueError, match=r"unet: 4 levels are too many for the grid 16x9: .* it has 3$"):
        UNet(layout_on(Grid((16, 9))), levels=4)
