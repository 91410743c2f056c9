"""The CoDA-NO's attention by NumPy, and its variables in another order."""

import numpy as np
import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.attention.codano import CoDANO, CodomainLayer

GRID = Grid((8, 9), periodic=True)


def layout_of(inputs, outputs):
    return Layout(
        tuple(FieldSpec(name=name, on=GRID) for name in inputs), tuple(FieldSpec(name=n, on=GRID) for n in outputs)
    )


def test_the_attention_is_a_sum_over_variables_by_means_over_the_grid():
    """2 samples of 3 variables, 2 heads of 3 channels, on 5 x 4 points."""
    torch.manual_seed(0)
    qkv = 3 * torch.randn(5, 4, 2 * 3, 18)
    found = CodomainLayer(6, 2, 3, (2, 2)).attended(qkv).numpy().reshape(20, 2, 3, 6)
    q, k, v = np.moveaxis(qkv.double().numpy().reshape(20, 2, 3, 3, 6), 3, 0)
    for sample in range(2):
        for head in (slice(0, 3), slice(3, 6)):
            for i in range(3):
                products = [np.mean((q[:, sample, i, head] * k[:, sample, j, head]).sum(axis=1)) for j in range(3)]
                shares = np.exp(np.array(products) / np.sqrt(3))
                shares /= shares.sum()
                expected = sum(share * v[:, sample, j, head] for j, share in enumerate(shares))
                np.testing.assert_allclose(found[:, sample, i, head], expected, rtol=1e-4, atol=1e-5)


def test_variables_may_come_in_any_order():
    """Inputs and outputs, if the vectors that name them go along."""
    torch.manual_seed(0)
    model, other = (CoDANO(layout_of("abc", "uv"), width=4, modes=3, layers=2) for _ in range(2))
    order = [2, 0, 1]
    state = model.state_dict()
    state["lift.which"] = state["lift.which"][[*order, 4, 3]]
    other.load_state_dict(state)
    fields = torch.randn(2, 3, *GRID.shape)
    with torch.no_grad():
        torch.testing.assert_close(other(fields[:, order]), model(fields)[:, [1, 0]], rtol=1e-3, atol=1e-4)


def test_more_variables_cost_a_vector_each():
    few, many = (
        sum(p.numel() for p in CoDANO(layout_of(names, "u"), width=6, modes=2).parameters()) for names in ("ab", "abcd")
    )
    assert many == few + 2 * 6


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="codano: width must be a multiple of the 2 heads, not 7"):
        CoDANO(layout_of("a", "u"), width=7)
