"""The attention of the Galerkin and the Fourier transformer, by NumPy as a sum over tokens."""

import numpy as np
import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.attention.galerkin import Galerkin, TransformerLayer

GRID = Grid((16, 12))
LAYOUT = Layout((FieldSpec(name="a", on=GRID),), (FieldSpec(name="u", on=GRID),))


def new_layer(attention):
    torch.manual_seed(0)
    layer = TransformerLayer(6, 2, 2, attention)
    for parameter in layer.parameters():
        parameter.data.normal_()
    return layer


@pytest.mark.parametrize("attention", ["galerkin", "fourier"])
def test_the_attention_is_its_sum_over_tokens(attention):
    layer = new_layer(attention)
    z, centres = torch.randn(1, 7, 6), torch.rand(7, 2)
    (q, k, v) = (linear(z)[0].detach().double().numpy().reshape(7, 2, 3) for linear in layer.maps)

    def normalised(x, norm):
        weight, bias = (parameter.detach().double().numpy() for parameter in norm.parameters())
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias

    if attention == "galerkin":
        k, v, scale = normalised(k, layer.norms[0]), normalised(v, layer.norms[1]), 7.0
    else:
        q, k, scale = normalised(q, layer.norms[0]), normalised(k, layer.norms[1]), 7 * np.sqrt(3)
    heads = []
    for head in range(2):
        queries, *pair = (np.hstack([centres.double().numpy(), x[:, head]]) for x in (q, k, v))
        heads.append([sum(query @ key * value for key, value in zip(*pair, strict=True)) / scale for query in queries])
    attended = torch.tensor(np.concatenate(heads, axis=1), dtype=torch.float32)
    y = z[0] + layer.join(attended)
    torch.testing.assert_close(layer(z, centres)[0], y + layer.net(y), rtol=1e-3, atol=1e-3)


def test_tokens_may_come_in_any_order_and_twice():
    layer = new_layer("galerkin")
    z, centres, order = torch.randn(2, 7, 6), torch.rand(7, 2), torch.randperm(7)
    expected = layer(z, centres)
    torch.testing.assert_close(layer(z[:, order], centres[order]), expected[:, order], rtol=1e-3, atol=1e-3)
    twice = layer(torch.cat([z, z], dim=1), torch.cat([centres, centres]))
    torch.testing.assert_close(twice[:, :7], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 30}, "width must be a multiple of the 4 heads, not 30"),
        ({"attention": "softmax"}, "attention must be galerkin or fourier, not 'softmax'"),
        ({"coarsen": 0}, "coarsen must be at least 1, not 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"galerkin: {message}"):
        Galerkin(LAYOUT, **options)
