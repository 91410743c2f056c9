"""Geo-FNO: on a grid, without its map, it is an FNO; its transform at points is NumPy's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.fourier.spectral import fourier_bases
from penstock.learner.models.points.latent.geo_fno import GeoFNO, wave_products


def layout_on(geometry):
    return Layout((FieldSpec(name="a", on=geometry),), (FieldSpec(name="u", on=geometry),))


def low_pass(x_GBC, modes):
    """What is left of [X, Y, B, C] of the wave numbers below `modes`, by FFT."""
    spectrum = np.fft.fftn(x_GBC, axes=(0, 1))
    for axis in (0, 1):
        wave_numbers = np.abs(np.fft.fftfreq(x_GBC.shape[axis]) * x_GBC.shape[axis])
        spectrum *= (wave_numbers < modes).reshape([-1 if a == axis else 1 for a in range(4)])
    return np.fft.ifftn(spectrum, axes=(0, 1)).real


def test_on_a_grid_without_its_map_it_is_an_fno_of_what_the_transform_keeps():
    """At the centres of the latent grid's cells, both ways between points and cells only remove high waves."""
    torch.manual_seed(0)
    grid = Grid((12, 8), extent=(3.0, 2.0))
    model = GeoFNO(layout_on(grid), width=5, resolution=12, modes=3, layers=2, padding=0)
    torch.nn.init.zeros_(model.map[-1].weight)
    fields = torch.randn(2, 1, 12, 8)
    x, y = torch.meshgrid((torch.arange(12) + 0.5) / 12, (torch.arange(8) + 0.5) / 12, indexing="ij")
    inputs = torch.stack([x.expand(2, 12, 8), y.expand(2, 12, 8), fields[:, 0]], dim=-1)
    with torch.no_grad():
        f = model.lift(inputs)
        v = torch.tensor(low_pass(f.permute(1, 2, 0, 3).numpy(), 3), dtype=torch.float32)
        bases = [fourier_bases(size, 3, v) for size in (12, 8)]
        for spectral, pointwise in zip(model.spectral, model.pointwise, strict=True):
            v = F.gelu(pointwise(v) + spectral(v.contiguous(), bases))
        v = torch.tensor(low_pass(v.numpy(), 3), dtype=torch.float32).permute(2, 0, 1, 3)
        expected = model.project(torch.cat([v, f], dim=3))[..., 0]
        torch.testing.assert_close(model(fields=fields)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_the_transform_is_that_of_complex_exponentials_at_the_points():
    torch.manual_seed(0)
    places, values = torch.rand(1, 20, 2, dtype=torch.float64), torch.randn(1, 20, 1, dtype=torch.float64)
    products = wave_products(places.float(), [3, 2]).double()
    found = (products.transpose(1, 2) @ values).reshape(6, 4)
    k, m = np.meshgrid(np.arange(3), np.arange(2), indexing="ij")
    phases = [2 * np.pi * places[0, :, axis].numpy()[:, None, None] * n for axis, n in enumerate((k, m))]
    for sign in (1, -1):
        exact = (values[0, :, 0].numpy()[:, None, None] * np.exp(-1j * (phases[0] + sign * phases[1]))).sum(0)
        cc, cs, sc, ss = found[:3, :2], found[:3, 2:], found[3:, :2], found[3:, 2:]
        np.testing.assert_allclose((cc - sign * ss) - 1j * (sc + sign * cs), exact, atol=1e-5)


def test_an_option_out_of_its_range_is_refused():
    layout = layout_on(Points(50, 2))
    for options, expected in (
        ({"resolution": 3}, "geo_fno: resolution must be at least 4, not 3"),
        ({"padding": -0.1}, "geo_fno: padding must be at least 0, not -0.1"),
        ({"modes": 0}, "geo_fno: modes must be at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=expected):
            GeoFNO(layout, **options)
