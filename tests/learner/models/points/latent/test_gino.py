"""GINO's way between points and its grid: against sums over all pairs, of constants, and continuous in the points."""

import numpy as np
import pytest
import torch
from torch import nn

from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.points.latent.gino import GINO
from penstock.learner.models.points.latent.latent_grid import GridKernel, LatentGrid

CLOUD = Points(50, 2, extent=(2.0, 1.0))


def cloud(num=30):
    torch.manual_seed(0)
    points = torch.rand(2, num, 2) * torch.tensor([1.0, 0.5])
    return points, torch.softmax(torch.randn(2, num), dim=1)


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.2])
def test_integrals_are_sums_over_all_pairs_within_the_radius(radius):
    """The index arithmetic finds every pair that a search through all of them finds."""
    grid, kernel = LatentGrid(CLOUD, 6, radius), GridKernel(2, 3, 5)
    points, shares = cloud()
    points[0, 0] = torch.tensor([1.0, 0.5])  # at the corner, beyond the last cell's index
    f, v = torch.randn(2, 30, 3), torch.randn(2, 18, 3)
    near = grid.near(points)
    to_grid, _ = kernel.to_grid(f, points, shares, near)
    to_points = kernel.to_points(v, points, near)
    assert grid.shape == (6, 3)
    for sample in range(2):
        offsets = (grid.centres[:, None] - points[sample]) * 6 / radius  # [N, P, d]
        nearness = (1 - offsets.square().sum(-1)).clamp_min(0).square()
        weights = nearness * shares[sample]
        places = points[sample].expand(18, 30, 2)
        values = kernel.kernel(torch.cat([places, offsets.clamp(-1, 1)], dim=-1))
        sums = (weights[..., None] * values * f[sample]).sum(1)
        torch.testing.assert_close(to_grid[sample], sums / (weights.sum(1) + 1e-8)[:, None])
        sums = (nearness[..., None] * values * v[sample][:, None]).sum(0)
        torch.testing.assert_close(to_points[sample], sums / nearness.sum(0)[:, None])


def test_with_the_kernel_1_constants_stay_constant():
    grid, kernel = LatentGrid(CLOUD, 6, 1.5), GridKernel(2, 1, 5)
    nn.init.zeros_(kernel.kernel[-1].weight)
    points, shares = cloud()
    near = grid.near(points)
    values, is_near = kernel.to_grid(torch.full((2, 30, 1), 7.0), points, shares, near)
    assert set(is_near.detach().round(decimals=3).unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(values[..., 0], 7 * is_near)
    back = kernel.to_points(torch.full((2, 18, 1), 7.0), points, near)
    torch.testing.assert_close(back, torch.full((2, 30, 1), 7.0))


def test_before_training_constants_come_through_to_the_grid_and_back():
    """Each way is a mean, so 1 stays about 1, up to what the kernels' nets vary by."""
    points, shares = cloud(400)  # near all cells
    grid, kernels = LatentGrid(CLOUD, 6, 1.5), [GridKernel(2, 64, 32) for _ in range(2)]
    near = grid.near(points)
    with torch.no_grad():
        values, _ = kernels[0].to_grid(torch.ones(2, 400, 64), points, shares, near)
        back = kernels[1].to_points(values, points, near)
    assert ((back - 1).abs() < 0.5).all()


def test_values_depend_continuously_on_the_points():
    """A point that crosses from cell to cell, and out of the reach of others: no step is larger than its neighbours."""
    layout = Layout((FieldSpec(name="a", on=CLOUD),), (FieldSpec(name="u", on=CLOUD),))
    points, shares = cloud()
    model = GINO(layout, width=8, resolution=6, modes=2, layers=1, hidden=8)
    steps = 400
    moving = points[:1].repeat(steps, 1, 1)
    moving[:, 0, 0], moving[:, 0, 1] = torch.linspace(0.1, 0.9, steps), 0.2
    fields = torch.randn(1, 1, 30).expand(steps, 1, 30)
    with torch.no_grad():
        values = model(points=moving, weights=shares[:1].expand(steps, 30), fields=fields)[:, 0].double().numpy()
    jumps = np.abs(np.diff(values, axis=0)).max(axis=1)
    assert jumps.max() < 0.05 * np.ptp(values, axis=0).max()


def test_a_grid_that_is_too_coarse_and_four_dimensions_are_refused():
    with pytest.raises(ValueError, match="gino: resolution must be at least 4, not 2"):
        GINO(Layout((FieldSpec(name="a", on=CLOUD),), (FieldSpec(name="u", on=CLOUD),)), resolution=2)
    grid = Grid((4, 4, 4, 4))
    with pytest.raises(ValueError, match="in at most 3 dimensions"):
        GINO(Layout((FieldSpec(name="a", on=grid),), (FieldSpec(name="u", on=grid),)))
