"""RIGNO: edges by their count, and the whole model by loops over all pairs."""

import itertools

import pytest
import torch

from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.points.graphs.rigno import RIGNO, region_edges
from penstock.learner.models.transformer import waves

CLOUD = Points(60, 2, extent=(2.0, 1.0))
LAYOUT = Layout((FieldSpec(name="a", on=CLOUD),), (FieldSpec(name="u", on=CLOUD),))


@pytest.mark.parametrize("shape", [(9,), (8, 5), (6, 5, 4)])
def test_regions_send_to_all_neighbours_1_2_and_4_cells_away(shape):
    pairs, displacements = region_edges(shape)
    expected = 0
    for stride in (1, 2, 4):
        along = [size + 2 * max(0, size - stride) for size in shape]  # pairs along an axis, with oneself
        expected += torch.Size(along).numel() - torch.Size(shape).numel()
    assert pairs.shape == (expected, 2) and len(pairs.unique(dim=0)) == expected
    places = torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape))
    assert torch.equal(places[pairs[:, 0]] - places[pairs[:, 1]], displacements.long())


def with_length(displacement):
    return torch.cat([displacement, displacement.norm()[None]])


def test_it_is_its_equations_by_loops_over_all_pairs():
    torch.manual_seed(0)
    model = RIGNO(LAYOUT, width=5, resolution=5, layers=2).double()
    points = torch.rand(12, 2).double() * torch.tensor([0.3, 0.5])
    weights, fields = torch.rand(12).double() + 0.1, torch.randn(12, 1).double()
    shares, cells = weights / weights.sum(), model.grid.centres
    near = {}  # nearness and displacement in radii, of points and cells
    for (p, x), (n, y) in itertools.product(enumerate(points), enumerate(cells)):
        offset = (y - x) * 5 / 1.5
        if offset.norm() < 1:
            near[p, n] = (1 - offset.square().sum()) ** 2, offset
    v = model.lift(torch.cat([points, fields], dim=1))
    r = model.place(waves(cells, 4).double())
    to_regions, among, to_points = model.lift_edges

    def means(receivers, messages):
        """The weighted mean of messages {(sender, receiver): (weight, message)} at each receiver, 0 without any."""
        found = torch.zeros(receivers, 5).double()
        for j in range(receivers):
            mine = [each for (_, receiver), each in messages.items() if receiver == j]
            if total := sum(weight for weight, _ in mine):
                found[j] = sum(weight * message for weight, message in mine) / total
        return found

    def updated(number, values, mean):
        return values + model.updates[number](torch.cat([values, mean], dim=1))

    sent = {
        (p, n): (nearness * shares[p], model.messages[0](torch.cat([v[p], r[n], to_regions(with_length(-offset))])))
        for (p, n), (nearness, offset) in near.items()
    }
    measures = [sum(weight for (_, receiver), (weight, _) in sent.items() if receiver == n) for n in range(len(cells))]
    r = updated(0, r, means(len(cells), sent))

    edges = {}
    for (i, x), (j, y) in itertools.product(enumerate(cells), repeat=2):
        steps = ((x - y) * 5).round().long().abs()
        if any(all(step in (0, stride) for step in steps) and steps.any() for stride in (1, 2, 4)):
            edges[i, j] = among(with_length((x - y) * 5 / 4))
    for number in (1, 2):
        messages = {(i, j): model.messages[number](torch.cat([r[i], r[j], e])) for (i, j), e in edges.items()}
        edges = {pair: edges[pair] + message for pair, message in messages.items()}
        weighted = {(i, j): (measures[i], message) for (i, j), message in messages.items()}
        r = updated(number, r, means(len(cells), weighted))

    back = {
        (n, p): (nearness * measures[n], model.messages[-1](torch.cat([r[n], v[p], to_points(with_length(offset))])))
        for (p, n), (nearness, offset) in near.items()
    }
    expected = model.project(updated(-1, v, means(12, back)))
    found = model(points=points[None], weights=weights[None], fields=fields.T[None])
    assert 0 in measures  # cells beyond the points
    torch.testing.assert_close(found[0].T, expected, rtol=1e-4, atol=1e-4)  # but for the share that fades a cell


def test_an_option_out_of_its_range_is_refused():
    with pytest.raises(ValueError, match="rigno: resolution must be at least 4, not 3"):
        RIGNO(LAYOUT, resolution=3)
    with pytest.raises(ValueError, match="rigno: layers must be at least 1, not 0"):
        RIGNO(LAYOUT, layers=0)
    with pytest.raises(ValueError, match="in at most 3 dimensions"):
        grid = Grid((4, 4, 4, 4))
        RIGNO(Layout((FieldSpec(name="a", on=grid),), (FieldSpec(name="u", on=grid),)))
