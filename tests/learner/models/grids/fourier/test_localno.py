"""The local kernels of the LocalNO: closed forms, a convolution, and the FNO where they are 0."""

import itertools
import math

import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.models.grids.fourier.localno import LocalNO, averages, gradient, local_averages


def layout_on(grid):
    return Layout((FieldSpec(name="a", on=grid),), (FieldSpec(name="u", on=grid),))


def centres(n):
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def test_without_local_kernels_it_is_the_fno():
    torch.manual_seed(0)
    layout = layout_on(Grid((12, 10)))
    fno, localno = (cls(layout, width=5, modes=3, layers=2) for cls in (FNO, LocalNO))
    missing = localno.load_state_dict(fno.state_dict(), strict=False).missing_keys
    assert missing and all("differential" in key or "integral" in key for key in missing)
    for key in missing:
        localno.get_parameter(key).data.zero_()
    fields = torch.randn(2, 1, 12, 10)
    torch.testing.assert_close(localno(fields), fno(fields))


@pytest.mark.parametrize("n", [5, 16, 33])
def test_differences_of_a_linear_function_are_exact_up_to_the_ends(n):
    x, y = centres(n)[:, None], centres(n + 1)
    values = (3 * x - 2 * y + 1)[..., None, None]
    found = gradient(values, 0.1, (False, False))
    torch.testing.assert_close(found, torch.tensor([0.3, -0.2], dtype=torch.float64).expand(n, n + 1, 1, 2))


def test_the_local_operators_tend_to_their_integrals_and_derivatives():
    """Of a wave; the hat of half-width w takes e^(i κ x) to sinc²(κ w / 2) e^(i κ x)."""
    kappa, radius = 2 * math.pi * 2, 0.2
    errors = []
    for n in (20, 40, 80):
        x = centres(n)
        wave = torch.sin(kappa * x)[:, None, None]
        smoothing = (math.sin(kappa * radius / 4) / (kappa * radius / 4)) ** 2
        expected = torch.stack([smoothing * torch.sin(kappa * (x + knot * radius / 2)) for knot in (-1, 0, 1)], dim=1)
        integral = averages(wave, [local_averages(n, radius, True, x)])[:, 0] - expected
        derivative = gradient(wave, radius, (True,))[:, 0, 0] - radius * kappa * torch.cos(kappa * x)
        errors.append([integral.abs().max().item(), derivative.abs().max().item()])
    for coarse, fine in itertools.pairwise(errors):  # of second order
        assert all(fine_error < 0.27 * error for fine_error, error in zip(fine, coarse, strict=True)), errors


@pytest.mark.parametrize("periodic", [True, False])
def test_where_the_radius_is_two_cells_the_integral_is_a_convolution(periodic):
    torch.manual_seed(0)
    layout = layout_on(Grid((8, 8), periodic=periodic))
    layer = LocalNO(layout, width=3, radius=0.25).layers[0]
    x = torch.randn(8, 8, 2, 3)
    found = layer.integral(averages(x, [local_averages(8, 0.25, periodic, x)] * 2))
    kernel = layer.integral.weight.unflatten(1, (3, 3, 3)).permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(x.permute(2, 3, 0, 1), [1] * 4, mode="circular" if periodic else "replicate")
    torch.testing.assert_close(found.permute(2, 3, 0, 1), torch.conv2d(padded, kernel), rtol=1e-4, atol=1e-5)


def test_between_centres_of_long_cells_values_are_linear():
    """A radius of one cell; its half lies between two centres."""
    x = centres(10)
    found = averages((5 * x)[:, None, None], [local_averages(10, 0.1, False, x)])[1:-1, 0]
    torch.testing.assert_close(found, 5 * torch.stack([x - 0.05, x, x + 0.05], dim=1)[1:-1])


@pytest.mark.parametrize(("n", "radius"), [(7, 0.5), (30, 0.11), (64, 0.0625), (2, 0.5)])
@pytest.mark.parametrize("periodic", [True, False])
def test_averages_of_a_constant_are_that_constant(n, radius, periodic):
    window = local_averages(n, radius, periodic, centres(2))
    torch.testing.assert_close(window.sum(dim=1), torch.ones(3 * n, dtype=window.dtype))
    assert window.min() > -1e-12


@pytest.mark.parametrize("radius", [0.0, 0.6])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(ValueError, match=f"localno: radius must be above 0 and at most 0.5, not {radius}"):
        LocalNO(layout_on(Grid((16,))), radius=radius)
