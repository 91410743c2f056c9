"""The CViT's attention beside torch's, and what it does to fields finer than its cells."""

import pytest
import torch
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


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="cvit: width must be a multiple of the 4 heads, not 30"):
        CViT(layout_on(Grid((16, 16))), width=30)
