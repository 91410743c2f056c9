"""DiTTO: times that vary continuously, and its attention against the sum over pairs of points."""

import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.convolutional.ditto import DiTTO, LinearAttention


def layout_on(grid, *scalars):
    inputs = (FieldSpec(name="a", on=grid), *(FieldSpec(name=name) for name in scalars))
    return Layout(inputs, (FieldSpec(name="u", on=grid),))


def in_time(grid, **options):
    """A model of one scalar that it depends on."""
    torch.manual_seed(0)
    model = DiTTO(layout_on(grid, "t"), width=8, levels=2, heads=1, **options).double()
    for name, parameter in model.named_parameters():
        if "modulate" in name:
            parameter.data.normal_(std=0.3)
    return model


def test_the_outputs_are_smooth_in_time():
    """At any time, by the difference quotient: its error falls fourfold with half the step."""
    model, fields = in_time(Grid((12, 9))), torch.randn(1, 1, 12, 9, dtype=torch.float64)

    def at(t):
        return model(fields, torch.tensor([[t]], dtype=torch.float64))

    direction, t = torch.randn(1, 1, 12, 9), torch.full((1, 1), 0.4, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad((model(fields, t) * direction).sum(), t)
    errors = [((at(0.4 + h) - at(0.4 - h)) * direction).sum() / (2 * h) - slope.item() for h in (2e-3, 1e-3)]
    assert abs(errors[1]) < 1e-3 * abs(slope) and 3.5 < errors[0] / errors[1] < 4.5


def test_before_training_it_is_the_model_without_scalars():
    torch.manual_seed(0)
    grid = Grid((12, 9))
    model, plain = DiTTO(layout_on(grid, "t"), width=4), DiTTO(layout_on(grid), width=4)
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if key in plain.state_dict()})
    fields, t = torch.randn(2, 1, 12, 9), torch.randn(2, 1)
    assert torch.equal(model(fields, t), plain(fields))
    model = in_time(grid).float()
    assert not torch.allclose(model(fields, t), model(fields, t + 1))


def test_attention_is_the_sum_over_all_pairs_of_points():
    torch.manual_seed(0)
    attention, x = LinearAttention(6, heads=2).double(), torch.randn(3, 6, 4, 5, dtype=torch.float64)
    qkv = torch.einsum("oc,bcn->bon", attention.qkv.weight[..., 0], attention.norms[0](x).flatten(2))
    q, k, v = qkv.reshape(3, 3, 2, 16, 20).unbind(1)  # B, then H heads, D channels, N points
    weights = k.exp() / k.exp().sum(dim=3, keepdim=True)
    pairs = torch.einsum("bhdn,bhdm->bhnm", q.exp() / q.exp().sum(dim=2, keepdim=True), weights) / 4
    sums = torch.einsum("bhnm,bhdm->bhdn", pairs, v).flatten(1, 2)
    expected = attention.norms[1](attention.out(sums)).reshape(x.shape)
    torch.testing.assert_close(attention(x), expected)


def test_levels_that_the_grid_has_not_are_refused():
    with pytest.raises(ValueError, match=r"ditto: 9 levels are too many for the grid 64: .* it has 5$"):
        DiTTO(layout_on(Grid((64,))), levels=9)
