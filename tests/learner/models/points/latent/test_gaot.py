"""GAOT's parts: attention against a softmax over all pairs, statistics against those of all points, patches."""

import pytest
import torch

from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.points.latent.gaot import GAOT, shape_statistics
from penstock.learner.models.points.latent.latent_grid import GridKernel, LatentGrid

CLOUD = Points(50, 2, extent=(2.0, 1.0))
LAYOUT = Layout((FieldSpec(name="a", on=CLOUD),), (FieldSpec(name="u", on=CLOUD),))
SIZES = {"width": 6, "resolution": 6, "hidden": 5, "channels": 8, "heads": 2, "layers": 3}


def cloud(num=30):
    torch.manual_seed(0)
    points = torch.rand(1, num, 2) * torch.tensor([1.0, 0.5])
    return points, torch.softmax(torch.randn(1, num), dim=1)


def pairs(grid, points, radius):
    """Offsets from the cells in radii [N, P, d], and nearness [N, P], of all pairs."""
    offsets = (points[0] - grid.centres[:, None]) * 6 / radius
    return offsets, (1 - offsets.square().sum(-1)).clamp_min(0).square()


def test_attention_is_the_softmax_over_what_is_near():
    radius = 2.0
    grid, kernel = LatentGrid(CLOUD, 6, radius), GridKernel(2, 3, 5, attends=True)
    points, shares = cloud()
    f = torch.randn(1, 30, 3)
    values, _ = kernel.to_grid(f, points, shares, grid.near(points))
    offsets, nearness = pairs(grid, points, radius)
    of_points, of_cells = kernel.keys
    keys, queries = of_points(points[0]), of_cells(grid.centres)
    cosines = (queries @ keys.T) / queries.norm(dim=1)[:, None] / keys.norm(dim=1)
    scores = torch.where(nearness > 0, cosines + (nearness * shares).log(), -torch.inf)
    alpha = torch.softmax(scores, dim=1).nan_to_num(0.0)  # of an empty cell: 0 / 0
    kappa = kernel.kernel(torch.cat([points.expand(18, 30, 2), (-offsets).clamp(-1, 1)], dim=-1))
    torch.testing.assert_close(values[0], torch.einsum("np,npc,pc->nc", alpha, kappa, f[0]), rtol=1e-4, atol=1e-4)


def test_statistics_are_those_of_the_points_around_a_cell():
    grid = LatentGrid(CLOUD, 6, 2.0)
    points, shares = cloud()
    found = shape_statistics(shares, grid.near(points))[0]
    offsets, nearness = pairs(grid, points, 2.0)
    for cell in range(18):
        weights = nearness[cell] * shares[0]
        if weights.sum() < 1e-3:
            continue
        near = weights > 0
        about = torch.distributions.Categorical(weights[near]).probs
        distances, places = offsets[cell, near].norm(dim=1), offsets[cell, near]
        mean, covariance = about @ places, torch.cov(places.T, aweights=about, correction=0).reshape(2, 2)
        spread = about @ (distances - about @ distances).square()
        expected = [weights.sum() / (weights.sum() + 1 / 18), about @ distances, spread, *mean]
        expected = torch.stack([*expected, covariance[0, 0], covariance[0, 1], covariance[1, 1]])
        torch.testing.assert_close(found[cell], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_are_blocks_of_cells_and_come_back_as_cells(patch):
    patches = GAOT(LAYOUT, **SIZES, patch=patch).patches
    cells = torch.arange(18.0).reshape(1, 18, 1)
    tokens = patches._to_patches(cells)
    torch.testing.assert_close(patches._to_cells(tokens), cells)
    block = torch.zeros(8, 8)
    block[:6, :3] = cells.reshape(6, 3)
    assert torch.equal(tokens[0, 0], block[:patch, :patch].flatten())


def test_a_scale_alone_has_no_gate_and_several_are_averaged():
    points, shares = cloud()
    arrays = {"points": points, "weights": shares, "fields": torch.randn(1, 1, 30)}
    torch.manual_seed(1)
    alone = GAOT(LAYOUT, **SIZES, radii=[2])
    twice = GAOT(LAYOUT, **SIZES, radii=[2, 2])
    assert not alone.gates
    state = alone.state_dict()
    state |= {name.replace("scales.0", "scales.1"): values for name, values in state.items()}
    twice.load_state_dict(state, strict=False)
    torch.testing.assert_close(twice(**arrays), alone(**arrays))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": 2}, "gaot: resolution must be at least 4, not 2"),
        ({"radii": [0.5]}, r"gaot: radii must be numbers from 1 to 8, one at least, not \[0.5\]"),
        ({"radii": []}, "gaot: radii must be numbers from 1 to 8"),
        ({"channels": 30}, "gaot: channels must be a multiple of heads, and 30 is none of 4"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        GAOT(LAYOUT, **options)
    with pytest.raises(ValueError, match="in at most 3 dimensions"):
        GAOT(Layout((FieldSpec(name="a", on=Grid((4, 4, 4, 4))),), (FieldSpec(name="u", on=Grid((4, 4, 4, 4))),)))
