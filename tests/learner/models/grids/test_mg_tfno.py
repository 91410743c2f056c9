"""Multigrid patches: windows by hand, what reaches a patch, and the model itself where there are no levels."""

import numpy as np
import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.models.grids.inputs import with_coordinates
from penstock.learner.models.grids.mg_tfno import MGTFNO

TINY = {"width": 4, "modes": 2, "layers": 1}


def layout_on(grid, *scalars):
    inputs = (FieldSpec(name="a", on=grid), *(FieldSpec(name=name) for name in scalars))
    return Layout(inputs, (FieldSpec(name="u", on=grid),))


def patches_on(*shape, periodic=False, **options):
    torch.manual_seed(0)
    return MGTFNO(layout_on(Grid(shape, periodic=periodic)), **{"options": TINY} | options)


@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("shape", [(16,), (17, 22), (9, 8, 11)])
def test_windows_of_level_0_stitched_are_the_fields(shape, levels):
    model = patches_on(*shape, levels=levels if min(shape) > 8 else min(levels, 1))
    fields = torch.randn(3, 2, *shape)
    assert torch.equal(model.stitched(model.windows(fields, 0), 3, shape), fields)


@pytest.mark.parametrize("periodic", [False, True])
def test_windows_are_those_of_a_padded_array(periodic):
    """NumPy's own padding by `edge` or `wrap`, on 16 points in 4 patches of 4 with margins of 2."""
    model, x = patches_on(16, periodic=periodic, levels=2, margin=0.5), np.arange(16.0) ** 2
    padded = np.pad(x, 16, mode="wrap" if periodic else "edge")
    for level, length in enumerate((1, 2, 4)):
        found = model.windows(torch.from_numpy(x)[None, None], level)[:, 0].numpy()
        for patch in range(4):
            start = 16 + 4 * patch + 2 - 4 * length  # 8 cells around the patch's middle
            expected = padded[start : start + 8 * length].reshape(8, length).mean(axis=1)
            np.testing.assert_array_equal(found[patch], expected)


def test_patches_of_several_axes_come_one_after_another():
    """Of coordinates x + 100 y the windows are those of each axis, and a constant stays one at all levels."""
    model = patches_on(8, 12, margin=0.5)
    x, y = torch.arange(8.0), 100 * torch.arange(12.0)
    found = model.windows((x[:, None] + y)[None, None], 0)
    along = [patches_on(num, margin=0.5).windows(c[None, None], 0)[:, 0] for num, c in ((8, x), (12, y))]
    for number in range(4):
        expected = along[0][number // 2][:, None] + along[1][number % 2]
        assert torch.equal(found[number, 0], expected)
    assert torch.equal(model.windows(torch.full((2, 1, 8, 12), 3.5), 1), torch.full((8, 1, 8, 12), 3.5))


def test_what_is_far_from_a_patch_reaches_it_through_coarser_levels_alone():
    model = patches_on(32, 32, margin=0.25)
    fields = torch.randn(1, 1, 32, 32)
    other = fields.clone()
    other[..., 30, 30] += 1  # beyond the first patch's 16 points and its margin of 4
    changes = [(model.windows(other, level) - model.windows(fields, level))[0].abs().max() for level in (0, 1)]
    assert changes[0] == 0 and changes[1] > 0
    assert (model(other) - model(fields))[..., :16, :16].abs().max() > 0


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(("levels", "margin"), [(1, 0.0), (1, 0.125), (2, 0.25), (3, 0.125)])
@pytest.mark.parametrize("num_points", [32, 37])
def test_every_cell_of_the_input_reaches_every_patch(num_points, levels, margin, periodic):
    """By the gradient of one output of each patch."""
    model = patches_on(num_points, periodic=periodic, levels=levels, margin=margin, options={**TINY, "modes": 1})
    fields = torch.randn(1, 1, num_points, requires_grad=True)
    for place in {*range(0, num_points, num_points // 2**levels), num_points - 1}:
        (gradient,) = torch.autograd.grad(model(fields)[0, 0, place], fields)
        assert gradient.count_nonzero() == num_points


def test_it_is_resolution_free_where_the_model_inside_is():
    assert patches_on(16, 16).resolution_free == FNO.resolution_free == (Grid,)
    assert patches_on(16, 16, model="unet", options={"width": 4}).resolution_free == ()


def test_without_levels_it_is_the_model_inside():
    model = patches_on(12, 9, periodic=(True, False), levels=0)
    fields = torch.randn(2, 1, 12, 9)
    channels = torch.cat(with_coordinates(fields, None, None, (True, False)), dim=1)
    assert isinstance(model.model, FNO) and torch.equal(model(fields), model.model(channels))


def test_a_sample_is_2_to_the_levels_of_each_axis_for_the_model_inside():
    """A model that adds the scalar to the finest field gives the field plus the scalar, patch by patch."""
    torch.manual_seed(0)
    model = MGTFNO(layout_on(Grid((11, 14)), "t"), options=TINY, levels=1)
    model.model.forward = lambda fields, scalars: fields[:, :1] + scalars[..., None, None]
    fields, t = torch.randn(3, 1, 11, 14), torch.randn(3, 1)
    assert torch.equal(model(fields, t), fields + t[..., None, None])


def test_other_models_and_what_can_not_be():
    model = patches_on(16, 16, model="unet", options={"width": 4})
    assert model(torch.randn(2, 1, 16, 16)).shape == (2, 1, 16, 16)
    whole = sum(parameter.numel() for parameter in FNO(layout_on(Grid((64, 64)))).parameters())
    inside = sum(parameter.numel() for parameter in MGTFNO(layout_on(Grid((64, 64)))).parameters())
    assert inside < 0.2 * whole  # a TFNO of rank 0.1
    for message, options in {
        "mg_tfno: model must be codano or .* or uno, not 'mlp'": {"model": "mlp"},
        "mg_tfno: levels must be a whole number from 0 on, not -1": {"levels": -1},
        "mg_tfno: margin must be from 0 to 1, not 2": {"margin": 2},
        "mg_tfno: 4 levels are too many for the grid 16x16": {"levels": 4},
        "fno: width must be at least 1, not 0": {"options": {"width": 0}},
    }.items():
        with pytest.raises(ValueError, match=f"^{message}"):
            patches_on(16, 16, **options)
