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


@pytest.mark.parametrize(("n", "n_out"), [(7, 12), (8, 8), (6, 17)])
def test_interpolation_around_a_circle_is_numpys(n, n_out):
    values = np.random.default_rng(0).standard_normal(n)
    places, places_out = ((np.arange(size) + 0.5) / size for size in (n, n_out))
    matrix = interpolation(n, n_out, torch.zeros((), dtype=torch.float64), wraps=True)
    np.testing.assert_allclose(matrix.numpy() @ values, np.interp(places_out, places, values, period=1), atol=1e-12)


def test_half_as_many_points_around_a_circle_are_weighted_means_of_four():
    values = np.random.default_rng(0).standard_normal((8, 5))
    around = [np.roll(values, shift, axis=0)[::2] for shift in (1, 0, -1, -2)]
    expected = np.einsum("k,kxy->xy", np.array([1, 3, 3, 1]) / 8, around)
    found = resampled(torch.tensor(values)[..., None, None], (4, 5), (True, False))[..., 0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_interpolation_is_torch_s_with_antialias():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 15, 8)
    for size in ((7, 4), (30, 13), (15, 8)):
        expected = torch.nn.functional.interpolate(x, size=size, mode="bilinear", antialias=True)
        result = resampled(x.permute(2, 3, 0, 1), size).permute(2, 3, 0, 1)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(interpolation(9, 5, x).sum(dim=1), torch.ones(5))


def test_modes_fit_the_coarser_grid_of_each_layer():
    model = UNO(layout_on(Grid((64, 20))), width=2)
    assert [layer.spectral.modes for layer in model.layers] == [(12, 5), (8, 2), (8, 2), (8, 2), (12, 5)]
    for size in ((64, 20), (61, 19)):
        assert model(torch.randn(1, 1, *size)).shape == (1, 1, *size)
    with pytest.raises(ValueError, match="8 modes need at least 16 points along axis 0, not 15"):
        model(torch.randn(1, 1, 60, 20))
