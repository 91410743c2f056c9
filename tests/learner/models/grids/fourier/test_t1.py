"""T1: its transform beside the DCT, Parseval's identity and cosines themselves, and its mixing by einsum."""

import math

import numpy as np
import pytest
import scipy.fft
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.fourier.t1 import T1, ModeMixing, cosine_bases


def layout_on(grid):
    return Layout((FieldSpec(name="a", on=grid),), (FieldSpec(name="u", on=grid),))


def like():
    return torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize("n", [12, 17])
def test_the_transform_is_the_dct_of_scipy_scaled(n):
    values = np.random.default_rng(0).standard_normal(n)
    analysis, synthesis = cosine_bases(n, 9, like())
    expected = scipy.fft.dct(values, norm="ortho")[:9] * math.sqrt(9 / n)
    np.testing.assert_allclose(analysis.numpy() @ values, expected, atol=1e-12)
    torch.testing.assert_close(analysis @ synthesis, torch.eye(9, dtype=torch.float64))


def test_errors_of_coefficients_are_those_of_fields():
    """Parseval's identity in two dimensions, where a field has no more modes than are kept."""
    torch.manual_seed(0)
    (first, back_first), (second, back_second) = cosine_bases(20, 6, like()), cosine_bases(15, 5, like())
    coefficients = torch.randn(2, 6, 5, dtype=torch.float64)
    fields = back_first @ coefficients @ back_second.T
    torch.testing.assert_close(first @ fields @ second.T, coefficients)
    mean_squares = fields.square().mean(dim=(1, 2))
    torch.testing.assert_close(coefficients.square().sum(dim=(1, 2)), 30 * mean_squares)


@pytest.mark.parametrize("n", [8, 31])
def test_a_cosine_has_the_same_coefficient_on_every_grid(n):
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    expected = torch.zeros(8, dtype=torch.float64)
    expected[3] = math.sqrt(8 / 2)
    torch.testing.assert_close(cosine_bases(n, 8, like())[0] @ torch.cos(3 * math.pi * x), expected)


def test_without_layers_and_head_it_is_a_low_pass_filter():
    torch.manual_seed(0)
    model = T1(layout_on(Grid((16, 12))), width=1, modes=5, layers=1)
    model.lift, model.head = (torch.nn.Identity() for _ in range(2))
    for parameter in model.layers.parameters():
        parameter.data.zero_()
    field = torch.randn(16, 12)
    spectrum = scipy.fft.dctn(field.double().numpy(), norm="ortho")
    spectrum[5:], spectrum[:, 5:] = 0, 0
    with torch.no_grad():
        found = model.on_grid(field[..., None, None], field)[..., 0, 0]
    np.testing.assert_allclose(found.numpy(), scipy.fft.idctn(spectrum, norm="ortho"), atol=1e-5)


def test_modes_are_mixed_axis_by_axis():
    torch.manual_seed(0)
    mixing = ModeMixing(3, (4, 5))
    z = torch.randn(4, 5, 2, 3)
    channels = mixing.channels.reshape(4, 5, 3, 3)
    inner = torch.nn.functional.gelu(torch.einsum("klbc,klcd->klbd", z, channels))
    expected = torch.einsum("cik,cjl,klbc->ijbc", *mixing.modes, inner)
    torch.testing.assert_close(mixing(z), expected, rtol=1e-4, atol=1e-5)


def test_as_many_modes_as_points_are_taken_and_no_more():
    assert T1(layout_on(Grid((16, 40)))).modes == (16, 24)
    with pytest.raises(
        ValueError, match="t1: 17 modes along axis 0 of the grid 16x40: choose from 1 to the number of its"
    ):
        T1(layout_on(Grid((16, 40))), modes=17)
    model = T1(layout_on(Grid((16, 40))), width=2, layers=1)
    with pytest.raises(ValueError, match="t1: 24 modes need at least 24 points along axis 1, not 20"):
        model(torch.zeros(1, 1, 16, 20))
