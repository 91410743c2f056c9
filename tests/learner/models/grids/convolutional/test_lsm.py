"""The LSM beside its published count, and its spectral block by NumPy, patch by patch."""

import itertools

import numpy as np
import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.convolutional.lsm import LSM, SpectralBlock, patches


def layout_on(grid):
    return Layout((FieldSpec(name="a", on=grid),), (FieldSpec(name="u", on=grid),))


@pytest.mark.parametrize(("width", "published"), [(32, 4_812_801), (64, 19_187_457)])
def test_the_number_of_parameters_is_that_of_wu_et_al(width, published):
    """But for weights of theirs that do nothing.

    In each channel of each level they have a weight for the sine of k = 0 and a bias of the keys, which softmax takes
    out; and they have a linear map directly before another.
    """
    with torch.device("meta"):
        model = LSM(layout_on(Grid((85, 85))), width=width)
    size = sum(parameter.numel() for parameter in model.parameters())
    assert size + 2 * (1 + 2 + 4 + 8 + 8) * width + width * width + width == published


def test_every_point_is_in_one_patch_and_comes_back():
    grid = (5, 3, 7)
    into, inside, back = patches(2, grid, 3, torch.device("cpu"))
    points = np.arange(2 * np.prod(grid)).reshape(2, *grid)
    expected = [
        {*points[b, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3, 3 * k : 3 * k + 3].flat}
        for b, i, j, k in itertools.product(range(2), range(2), range(1), range(3))
    ]
    assert [{*patch[mask].tolist()} for patch, mask in zip(into, inside, strict=True)] == expected
    assert inside.sum() == points.size and torch.equal(into.flatten()[back], torch.arange(points.size))


def test_the_spectral_block_is_its_formula_in_each_patch():
    """A patch of 3 x 3 cells, and one of 2 x 3 at the end; 2 heads of 2 channels, 3 tokens, 4 wave numbers."""
    torch.manual_seed(0)
    block = SpectralBlock(4, 3, 3, 4, 2)
    for parameter in block.parameters():
        parameter.data.normal_()
    x = torch.randn(1, 4, 5, 3)
    with torch.no_grad():
        outputs = block(x)[0].double().numpy()
    names = ("tokens", "coefficients", "keys.weight", "values.weight", "values.bias", "queries.weight", "queries.bias")
    parameters = (block.get_parameter(name).detach().double().numpy() for name in names)
    tokens, coefficients, a_k, a_v, b_v, a_q, b_q = parameters

    def softmax(scores):
        return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)

    for rows in (slice(0, 3), slice(3, 5)):
        v = x[0, :, rows].double().numpy().reshape(4, -1).T
        keys, values, queries = v @ a_k.T, v @ a_v.T + b_v, v @ a_q.T + b_q
        expected = v.copy()
        for of in (slice(0, 2), slice(2, 4)):
            t = tokens[of.start // 2]
            t = t + softmax(t @ keys[:, of].T) @ values[:, of]
            sines, cosines = coefficients[of, :3], coefficients[of, 3:]
            sine_part = sum(sines[:, k - 1] * np.sin(np.pi * k * t / 4) for k in range(1, 4))
            t = t + sine_part + sum(cosines[:, k] * np.cos(np.pi * k * t / 4) for k in range(4))
            expected[:, of] += softmax(queries[:, of] @ t.T) @ t
        np.testing.assert_allclose(outputs[:, rows].reshape(4, -1).T, expected, rtol=1e-4, atol=1e-4)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="lsm: width must be a multiple of the 8 heads, not 12"):
        LSM(layout_on(Grid((16, 16))), width=12, heads=8)
