"""The U-NO: its layers by NumPy's FFT, resampling, and what its modes ask of a grid."""

import itertools

import numpy as np
import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.fourier.spectral import interpolation, resampled
from penstock.learner.models.grids.fourier.uno import UNO, ResamplingLayer


def layout_on(grid, *scalars):
    inputs = (FieldSpec(name="a", on=grid), *(FieldSpec(name=name) for name in scalars))
    return Layout(inputs, (FieldSpec(name="u", on=grid),))


def waves(n):
    x = 2 * torch.pi * (torch.arange(n) + 0.5) / n
    return (1 + torch.cos(x)[:, None] * torch.sin(2 * x))[..., None, None]


def test_identity_matrices_resample_a_band_limited_function_exactly():
    """From 16 to 24 points and to 9 on both axes, where the sampled wave numbers are below all limits."""
    layer = ResamplingLayer(1, 1, (3, 3), (False, True))
    for parameter in layer.parameters():
        parameter.data.zero_()
    layer.spectral.weight.values.data[..., 0] = 1
    for n in (24, 9):
        torch.testing.assert_close(layer(waves(16), (n, n)), waves(n), rtol=0, atol=1e-5)


def test_a_layer_that_keeps_its_grid_is_that_of_an_fno_by_numpys_fft():
    """K v + W v, wave vector by wave vector: on 9 x 8 points with 3 x 2 modes, from 2 channels to 3."""
    torch.manual_seed(0)
    layer = ResamplingLayer(2, 3, (3, 2), (False, True)).requires_grad_(False)
    x_XYC = np.random.default_rng(0).standard_normal((9, 8, 2))
    weight = layer.spectral.weight().double().numpy()
    matrices = (weight[..., :3] + 1j * weight[..., 3:]).reshape(2, 3, 2, 2, 3)
    spectrum, image = np.fft.rfft2(x_XYC, axes=(0, 1)), np.zeros((9, 5, 3), dtype=complex)
    for (pattern, sign), k, j in itertools.product(enumerate((1, -1)), range(3), range(2)):
        image[sign * k, j] += (1 if k else 0.5) * (spectrum[sign * k, j] @ matrices[pattern, k, j])
    expected = np.fft.irfft2(image, s=(9, 8), axes=(0, 1))
    expected += x_XYC @ layer.pointwise.weight.double().numpy().T + layer.pointwise.bias.double().numpy()
    found = layer(torch.tensor(x_XYC[:, :, None], dtype=torch.float32), (9, 8))[:, :, 0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_interpolation_is_torch_s_with_antialias():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 15, 8)
    for size in ((7, 4), (30, 13), (15, 8)):
        expected = torch.nn.functional.interpolate(x, size=size, mode="bilinear", antialias=True)
        result = resampled(x.permute(2, 3, 0, 1), size, (False, False)).permute(2, 3, 0, 1)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(interpolation(9, 5, False, x).sum(dim=1), torch.ones(5))


@pytest.mark.parametrize("is_periodic", [False, True])
def test_interpolation_to_more_points_is_numpy_s(is_periodic):
    values = np.random.default_rng(0).normal(size=7)
    old, new = (np.arange(7) + 0.5) / 7, (np.arange(20) + 0.5) / 20
    expected = np.interp(new, old, values, period=1 if is_periodic else None)
    matrix = interpolation(7, 20, is_periodic, torch.zeros((), dtype=torch.float64))
    np.testing.assert_allclose(matrix.numpy() @ values, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_averages_of_a_periodic_axis_are_those_of_many_periods(size):
    torch.manual_seed(0)
    x = torch.randn(12, dtype=torch.float64)
    periods = torch.nn.functional.interpolate(
        x.repeat(5)[None, None, None], (1, 5 * size), mode="bilinear", antialias=True
    )
    expected = periods[0, 0, 0, 2 * size : 3 * size]
    torch.testing.assert_close(interpolation(12, size, True, x) @ x, expected, rtol=1e-12, atol=1e-12)


def test_modes_fit_the_coarser_grid_of_each_layer():
    model = UNO(layout_on(Grid((64, 20))), width=2)
    assert [layer.spectral.modes for layer in model.layers] == [(12, 5), (8, 2), (8, 2), (8, 2), (12, 5)]
    for size in ((64, 20), (61, 19)):
        assert model(torch.randn(1, 1, *size)).shape == (1, 1, *size)
    with pytest.raises(ValueError, match="8 modes need at least 16 points along axis 0, not 15"):
        model(torch.randn(1, 1, 60, 20))
