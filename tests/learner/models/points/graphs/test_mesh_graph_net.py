"""MeshGraphNet: its size against the paper's, one round of messages by hand, its reach, and moved domains."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

from penstock.geometry import Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.points.graphs.mesh_graph_net import MeshGraphNet

CLOUD = Points(40, 2, max_edges=60)


def layout_on(geometry, inputs=1, outputs=1):
    return Layout(
        (FieldSpec(name="a", on=geometry, components=inputs),), (FieldSpec(name="u", on=geometry, components=outputs),)
    )


def chain(num):
    torch.manual_seed(0)
    edges = torch.stack([torch.arange(num - 1), torch.arange(1, num)], dim=1)[None]
    arrays = {"points": torch.rand(1, num, 2), "weights": torch.ones(1, num), "fields": torch.randn(1, 1, num)}
    return arrays | {"edges": edges}


def test_it_has_the_2_3_million_parameters_of_the_papers_cylinder():
    """There with 2 velocities and 9 kinds of point as inputs, 2 accelerations as outputs."""
    with torch.device("meta"):
        model = MeshGraphNet(layout_on(CLOUD, 11, 2), width=128, layers=15, places=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_332_930


def test_a_round_is_a_sum_over_the_neighbours_of_each_point():
    arrays, model = chain(5), MeshGraphNet(layout_on(CLOUD), width=6, layers=1)
    x, a = arrays["points"][0], arrays["fields"][0, 0, :, None]
    v = model.lift(torch.cat([x, a], dim=1))
    expected = []
    for j in range(5):
        total = torch.zeros(6)
        for i in {j - 1, j + 1} & set(range(5)):
            apart = (x[i] - x[j]) * 40**0.5
            e = model.lift_edges(torch.cat([apart, apart.norm()[None]]))
            total = total + model.messages[0](torch.cat([v[i], v[j], e]))
        expected.append(model.project(v[j] + model.updates[0](torch.cat([v[j], total]))))
    torch.testing.assert_close(model(**arrays)[0, 0], torch.cat(expected))


def test_what_happens_at_a_point_reaches_as_many_edges_as_there_are_rounds():
    arrays, model = chain(9), MeshGraphNet(layout_on(CLOUD), width=24, layers=3)
    other = arrays | {"fields": arrays["fields"].clone()}
    other["fields"][..., 0] += 1
    changes = (model(**other) - model(**arrays))[0, 0].abs()
    assert (changes[:4] > 0).all() and (changes[4:] == 0).all()


def test_without_places_a_domain_that_is_moved_has_the_same_outputs():
    arrays = chain(9)
    moved = arrays | {"points": arrays["points"] + torch.tensor([0.5, -0.25])}
    for places in (False, True):
        model = MeshGraphNet(layout_on(CLOUD), width=6, layers=3, places=places)
        assert torch.allclose(model(**moved), model(**arrays), atol=1e-5) == (not places)


def test_on_a_mesh_the_edges_are_those_of_its_cells():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 2], [0, 2, 3]])
    model = MeshGraphNet(layout_on(Mesh(4, 2, lambda: square)), width=6, layers=1)
    assert model.edges.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]]


@pytest.mark.parametrize("extent", [(3.0, 2.0), (1.0, 2.0, 0.5)])
def test_displacements_are_in_units_of_about_an_edges_length(extent):
    """Of the edges that Delaunay's triangulation gives random points in the box."""
    points = np.random.default_rng(0).random((500, len(extent))) * extent
    cells = Delaunay(points).simplices
    ends = np.concatenate([cells[:, pair] for pair in itertools.combinations(range(len(extent) + 1), 2)])
    lengths = np.linalg.norm(points[ends[:, 0]] - points[ends[:, 1]], axis=1)
    model = MeshGraphNet(layout_on(Points(500, len(extent), extent=extent, max_edges=60)), width=6, layers=1)
    assert 0.5 < np.median(lengths) / max(extent) / model.spacing < 2


def test_before_training_edges_of_a_mesh_are_not_all_alike():
    """What differs among the encoded edges of 40 x 40 points is not hidden by what all have in common."""
    axis = np.linspace(0, 1, 40)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mesh = Mesh(1600, 2, lambda: (points, Delaunay(points).simplices))
    torch.manual_seed(0)
    model, encoded = MeshGraphNet(layout_on(mesh), layers=1), []
    model.lift_edges.register_forward_hook(lambda _module, _given, found: encoded.append(found))
    model(
        points=torch.tensor(points[None], dtype=torch.float32),
        weights=torch.ones(1, 1600),
        fields=torch.zeros(1, 1, 1600),
    )
    (e,) = encoded
    assert (e - e.mean(dim=0)).norm() > 0.2 * e.norm()


def test_points_without_edges_are_refused():
    with pytest.raises(ValueError, match=r"mesh_graph_net: needs edges, .* give Points\(..., max_edges=...\)"):
        MeshGraphNet(layout_on(Points(40, 2)))
    with pytest.raises(ValueError, match="mesh_graph_net: needs an input field or scalar, or places: true"):
        MeshGraphNet(Layout((), (FieldSpec(name="u", on=CLOUD),)), places=False)
