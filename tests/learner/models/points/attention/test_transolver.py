"""Transolver against NumPy, its size against the paper's code, its limits, and what `plus` changes."""

import numpy as np
import pytest
import torch
from torch import nn

from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models import MODELS
from penstock.learner.models.points.attention.transolver import PhysicsAttention, Transolver

CLOUD = Points(1000, 2)


def layout_on(geometry, *inputs):
    return Layout(tuple(FieldSpec(name=name, on=geometry) for name in inputs), (FieldSpec(name="u", on=geometry),))


@pytest.mark.parametrize(("ratio", "expected"), [(1, 713_665), (2, 976_833)])
def test_it_has_as_many_parameters_as_the_papers_code_for_its_elasticity(ratio, expected):
    """But for a learned vector that the code adds to a bias."""
    with torch.device("meta"):
        model = Transolver(layout_on(CLOUD), width=128, heads=8, layers=8, slices=64, ratio=ratio)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected - 128


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def linear(layer, x):
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    return x @ layer.weight.detach().double().numpy().T + bias


@pytest.mark.parametrize("plus", [False, True])
def test_physics_attention_is_its_formula(plus):
    torch.manual_seed(0)
    attention = PhysicsAttention(6, 2, 4, plus=plus).eval()
    h, shares = torch.randn(1, 9, 6), torch.softmax(torch.randn(1, 9), 1)
    if plus:
        assert not hasattr(attention, "values")
    else:
        nn.init.uniform_(attention.temperatures, -1.0, 2.0)
    heads, x, w = [], h[0].double().numpy(), shares[0].double().numpy()
    for head in range(2):
        own = slice(3 * head, 3 * head + 3)
        z = linear(attention.places, x)[:, own]
        f = z if plus else linear(attention.values, x)[:, own]
        if plus:
            hidden = nn.functional.gelu(torch.tensor(linear(attention.temperature[0], z))).numpy()
            tau = np.exp(linear(attention.temperature[2], hidden)) / 2
        else:
            tau = np.exp(attention.temperatures[head, 0, 0].item()) / 2
        p = softmax(linear(attention.slices, z) / tau, 1)
        tokens = np.stack([sum(w[i] * p[i, g] * f[i] for i in range(9)) / (w @ p[:, g]) for g in range(4)])
        q, k, v = np.split(linear(attention.tokens, tokens), 3, axis=1)
        heads.append(p @ (softmax(q @ k.T / np.sqrt(3), 1) @ v))
    expected = linear(attention.out, np.hstack(heads))
    np.testing.assert_allclose(attention(h, shares).detach()[0].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("theta", [-3.0, 4.0])
def test_no_temperature_is_too_low_or_too_high_to_be_trained(plus, theta):
    """Wu et al. clamp them to 0.1 and 5, where gradients become 0; e^-3 / 2 is 0.02, e^4 / 2 is 27."""
    torch.manual_seed(0)
    attention = PhysicsAttention(6, 2, 4, plus=plus).eval()
    if plus:
        attention.temperature[2].bias.data.fill_(theta)
        parameter = attention.temperature[2].bias
    else:
        parameter = nn.init.constant_(attention.temperatures, theta)
    h, shares = torch.randn(1, 9, 6), torch.softmax(torch.randn(1, 9), 1)
    attention(h, shares).square().sum().backward()
    assert (parameter.grad != 0).all()


def test_with_one_slice_every_point_gets_the_weighted_mean():
    torch.manual_seed(0)
    attention = PhysicsAttention(6, 1, 1, plus=False)
    h, shares = torch.randn(2, 9, 6), torch.softmax(torch.randn(2, 9), 1)
    mean = (shares[:, None] @ attention.values(h))[:, 0]
    _, _, v = attention.tokens(mean).chunk(3, dim=1)
    torch.testing.assert_close(attention(h, shares), attention.out(v)[:, None].expand(2, 9, 6))


@pytest.mark.parametrize("slices", [3, 6, 20])
def test_slices_start_orthogonal(slices):
    """All singular values of S are 1, whichever of channels and slices are more."""
    weight = PhysicsAttention(12, 2, slices, plus=False).slices.weight.detach().double().numpy()
    np.testing.assert_allclose(np.linalg.svd(weight, compute_uv=False), 1, rtol=1e-5)


def test_plus_draws_noise_in_training_alone():
    torch.manual_seed(0)
    model = MODELS["transolver"](layout_on(CLOUD, "a"), width=8, heads=2, layers=1, slices=3, plus=True)
    arrays = {"points": torch.rand(2, 20, 2), "weights": torch.rand(2, 20), "fields": torch.randn(2, 1, 20)}
    assert not torch.equal(model(**arrays), model(**arrays))
    assert torch.equal(model.eval()(**arrays), model(**arrays))


def test_on_a_grid_it_is_what_it_is_on_the_grids_points():
    """Cells count alike, vertices as the trapezoidal rule says; coordinates are in units of the longest edge."""
    for centring, fractions, weights in (
        ("cells", ([0.25, 0.75], [1 / 6, 0.5, 5 / 6]), np.ones((2, 3))),
        ("vertices", ([0, 1], [0, 0.5, 1]), [[1, 2, 1], [1, 2, 1]]),
    ):
        grid = Grid((2, 3), extent=(1.0, 4.0), centring=centring)
        torch.manual_seed(0)
        model = Transolver(layout_on(grid, "a"), width=8, heads=2, layers=1, slices=3)
        torch.manual_seed(0)
        twin = Transolver(layout_on(CLOUD, "a"), width=8, heads=2, layers=1, slices=3)
        points = np.stack(np.meshgrid(0.25 * np.array(fractions[0]), fractions[1], indexing="ij"), -1).reshape(1, 6, 2)
        fields = torch.randn(1, 1, 2, 3)
        expected = twin(
            fields=fields.flatten(2),
            points=torch.tensor(points, dtype=torch.float32),
            weights=torch.tensor(np.reshape(weights, (1, 6)), dtype=torch.float32),
        )
        torch.testing.assert_close(model(fields=fields), expected.reshape(1, 1, 2, 3))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="transolver: width must be a multiple of heads, and 10 is none of 4"):
        Transolver(layout_on(CLOUD, "a"), width=10)
    with pytest.raises(ValueError, match="transolver: slices must be at least 1, not 0"):
        Transolver(layout_on(CLOUD, "a"), slices=0)
