"""MeshGraphNet: its size against the paper's, one round of messages by hand, its reach, and moved domains."""

import numpy as np
import pytest
import torch

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
            e = model.lift_edges(torch.cat([x[i] - x[j], (x[i] - x[j]).norm()[None]]))
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


def test_points_without_edges_are_refused():
    with pytest.raises(ValueError, match=r"mesh_graph_net: needs edges, .* give Points\(..., max_edges=...\)"):
        MeshGraphNet(layout_on(Points(40, 2)))
    with pytest.raises(ValueError, match="mesh_graph_net: needs an input field or scalar, or places: true"):
        MeshGraphNet(Layout((), (FieldSpec(name="u", on=CLOUD),)), places=False)
