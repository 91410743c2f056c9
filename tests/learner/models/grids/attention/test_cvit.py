"""The CViT's attention beside torch's, its queries beside SciPy's, and what it learns within a patch."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.attention.cvit import Attention, AttentionLayer, CViT


def layout_on(grid):
    return Layout((FieldSpec(name="a", on=grid),), (FieldSpec(name="u", on=grid),))


def in_torch_s_form(attention):
    biases = attention.values.bias
    return {
        "in_proj_weight": torch.cat([attention.queries.weight, attention.keys.weight, attention.values.weight]),
        "in_proj_bias": torch.cat([attention.queries.bias, torch.zeros_like(biases), biases]),
        "out_proj.weight": attention.out.weight,
        "out_proj.bias": attention.out.bias,
    }


def test_a_layer_is_torch_s_encoder_layer():
    torch.manual_seed(0)
    layer = AttentionLayer(12, 3)
    theirs = nn.TransformerEncoderLayer(
        12, 3, dim_feedforward=24, dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    first, second = layer.norms
    theirs.load_state_dict(
        {f"self_attn.{key}": values for key, values in in_torch_s_form(layer.attention).items()}
        | {f"linear1.{key}": values for key, values in layer.net[0].state_dict().items()}
        | {f"linear2.{key}": values for key, values in layer.net[2].state_dict().items()}
        | {f"norm1.{key}": values for key, values in first.state_dict().items()}
        | {f"norm2.{key}": values for key, values in second.state_dict().items()}
    )
    z = torch.randn(2, 7, 12)
    torch.testing.assert_close(layer(z), theirs(z), rtol=1e-4, atol=1e-5)


def test_one_batch_of_queries_serves_all_samples():
    torch.manual_seed(0)
    attention = Attention(8, 2)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(in_torch_s_form(attention))
    queries, context = torch.randn(1, 5, 8), torch.randn(3, 4, 8)
    expected, _ = theirs(queries.expand(3, -1, -1), context, context)
    torch.testing.assert_close(attention(queries, context), expected, rtol=1e-4, atol=1e-5)


def test_patches_are_blocks_of_cells():
    torch.manual_seed(0)
    model = CViT(layout_on(Grid((6, 9))), width=4, patch=3)
    x = torch.randn(6, 9, 2, 5)
    blocks = model.cut(x)
    assert blocks.shape == (2, 6, 45)
    torch.testing.assert_close(blocks[1, 4], x[3:6, 3:6, 1].flatten())


def test_finer_cells_are_averaged_to_those_that_it_was_built_for():
    torch.manual_seed(0)
    model = CViT(layout_on(Grid((16,))), width=8, patch=4)
    coarse = torch.randn(1, 1, 16)
    rough = coarse.repeat_interleave(4, dim=2) + torch.tensor([1.0, -1, -1, 1]).repeat(16)  # of mean 0 in each cell
    smooth = coarse.repeat_interleave(4, dim=2)
    cut = [model.cut(fields.movedim((0, 1), (-2, -1))) for fields in (rough, smooth)]
    torch.testing.assert_close(*(each[:, 1:-1] for each in cut), rtol=1e-4, atol=1e-4)  # away from the ends


def test_queries_are_scipy_s_interpolation_and_wrap_around_periodic_axes():
    torch.manual_seed(0)
    model = CViT(layout_on(Grid((6, 9), periodic=(True, False))), width=4, patch=3, layers=1)
    model.queries.data.normal_()
    found = []
    model.decode.register_forward_hook(lambda layer, inputs, outputs: found.append(inputs[0]))
    with torch.no_grad():
        model(torch.randn(2, 1, 13, 21))
    at = np.meshgrid((np.arange(13) + 0.5) / 13 * 6 - 0.5, (np.arange(21) + 0.5) / 21 * 9 - 0.5, indexing="ij")
    for channel, values in enumerate(model.queries.detach().squeeze(2).unbind(2)):
        padded = np.pad(values.numpy(), ((1, 1), (0, 0)), mode="wrap")  # map_coordinates has one mode for both axes
        expected = map_coordinates(padded, [at[0] + 1, at[1]], order=1, mode="nearest")
        np.testing.assert_allclose(found[0][0, :, channel].reshape(13, 21), expected, rtol=1e-4, atol=1e-5)


def test_waves_at_first_fit_a_periodic_axis_and_have_mean_square_1():
    torch.manual_seed(0)
    model = CViT(layout_on(Grid((32, 24), periodic=(True, False))), width=64)
    queries = model.queries.detach().squeeze(2)
    assert queries.square().mean().item() == pytest.approx(1, abs=0.1)
    spectrum = torch.fft.fft(queries, dim=0).abs() > 1e-2
    assert (spectrum.sum(dim=0) <= 2).all()  # one wave number, and its negative


def test_values_that_vary_within_an_outer_patch_are_learned():
    torch.manual_seed(0)
    x = torch.pi * (torch.arange(32) + 0.5) / 32
    waves, amplitudes = torch.stack([x, 2 * x, 3 * x]), torch.randn(16, 3, 1)
    fields, targets = ((amplitudes * f(waves)).sum(1, keepdim=True) for f in (torch.cos, torch.sin))
    model = CViT(layout_on(Grid((32,))), width=32, layers=1)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=200)
    for _ in range(200):
        loss = (model(fields) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    errors = (model(fields) - targets).detach()
    for cells in (slice(0, 4), slice(28, 32), slice(4, 28)):  # half a patch at either wall, and the rest
        near = targets[..., cells]
        if near.shape[-1] == 4:  # one query for all of them could not do better than their mean
            assert (near - near.mean(dim=-1, keepdim=True)).norm() > 0.4 * near.norm()
        assert errors[..., cells].norm() < 0.15 * near.norm()


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="cvit: width must be a multiple of the 4 heads, not 30"):
        CViT(layout_on(Grid((16, 16))), width=30)
