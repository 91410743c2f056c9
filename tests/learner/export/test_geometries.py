"""Exported files of surrogates on meshes, points and masked grids, and what their cards say of the geometry."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from penstock.errors import PenstockError
from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.export.files import export
from penstock.learner.export.program import contents_of
from penstock.learner.models import MODELS
from penstock.learner.normalization import Normalization
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.surrogate import Surrogate

POINTS = np.array([[0.0, 0], [2, 0], [2, 1], [0, 1], [1, 0.5]])
CELLS = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
BODY = Mesh(5, 2, lambda: (POINTS, CELLS), name="body")
CLOUD = Points(30, 2, extent=(2.0, 1.0), max_edges=40)
MASKED = Grid((12, 10), is_masked=True, centring="vertices", periodic=(True, False))


def new_surrogate(model, layout):
    """With a different mean and deviation for every channel."""
    blocks = (*layout.input_blocks, *layout.output_blocks)
    mean, std = ({b.name: 1 + torch.arange(b.shape[0]) / shift for b in blocks} for shift in (2, 3))
    return Surrogate(model, Normalization(mean, std), layout)


def by_name(layout, arrays):
    return {
        name: arrays[block.name][:, channel]
        for block in (*layout.input_blocks, *layout.geometry_blocks)
        for name, channel in block.channels.items()
    }


def agrees(module, surrogate, inputs):
    with torch.no_grad():
        outputs, expected = module(**inputs), surrogate(**inputs)
    assert outputs.keys() == expected.keys()
    for name, values in expected.items():
        assert outputs[name].shape == values.shape
        assert (outputs[name] - values).norm() <= 1e-5 * values.norm(), name
    return outputs


def loaded(contents):
    return torch.export.load(io.BytesIO(contents)).module()


def test_a_file_on_a_mesh_has_the_mesh_in_it_and_any_number_of_samples(tmp_path):
    torch.manual_seed(0)
    layout = Layout(
        (FieldSpec(name="load", on=BODY, components=2, unit="N"), FieldSpec(name="k")),
        (FieldSpec(name="shift", on=BODY, components=2, unit="m"), FieldSpec(name="stress", on=BODY)),
    )
    surrogate = new_surrogate(MODELS["branch_trunk"](layout, width=8, latent=4), layout)
    path = export(surrogate, {"problem": "beam"}, tmp_path / "beam", free_samples(layout, 2, torch.device("cpu")))
    files = {"card.json": "", "meshes.json": ""}
    module = torch.export.load(path, extra_files=files).module()
    meshes, card = json.loads(files["meshes.json"]), json.loads(files["card.json"])
    np.testing.assert_array_equal(meshes["body"]["points"], POINTS)
    np.testing.assert_array_equal(meshes["body"]["cells"], CELLS)
    with zipfile.ZipFile(path) as archive:
        assert any(name.endswith("meshes.json") for name in archive.namelist())
    for size in (1, 7):
        inputs = {"load": torch.randn(size, 2, 5), "k": torch.randn(size)}
        assert agrees(module, surrogate, inputs)["shift"].shape == (size, 2, 5)
    assert [each["shape"] for each in card["inputs"]] == [["batch", 2, 5], ["batch"]]
    assert [each["shape"] for each in card["outputs"]] == [["batch", 2, 5], ["batch", 5]]
    on = {"kind": "mesh", "points": 5, "cells": 4, "box": [[0.0, 0.0], [2.0, 1.0]]}
    assert card["outputs"][0] == {
        "name": "shift", "unit": "m", "shape": ["batch", 2, 5], "dtype": "float32", "on": on
    }  # fmt: skip
    assert "on" not in card["inputs"][1]


class OverEdges(nn.Module):
    """Each point's neighbours, summed by their weights, and the integral of the whole as a scalar."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, fields, points, weights, edges):
        i, j = edges.unbind(2)
        is_there = (i < j)[..., None]
        values = torch.cat([fields.transpose(1, 2), points], dim=2) * weights[..., None]
        width = values.shape[2]
        total = values
        for ends, others in ((i, j), (j, i)):
            given = torch.where(is_there, values.gather(1, others[..., None].expand(-1, -1, width)), 0.0)
            total = total.scatter_add(1, ends[..., None].expand(-1, -1, width), given)
        return {"targets": self.factor * total.transpose(1, 2), "target_scalars": values.sum(dim=1)[:, :1]}


ON_POINTS = Layout(
    (FieldSpec(name="a", on=CLOUD),),
    (FieldSpec(name="u", on=CLOUD, components=3), FieldSpec(name="drag", unit="N")),
)


def test_a_file_on_points_takes_any_number_of_them_and_of_edges_and_gives_scalars_too():
    layout, surrogate = ON_POINTS, new_surrogate(OverEdges(), ON_POINTS)
    contents, card = contents_of(surrogate, {}, free_samples(layout, 2, torch.device("cpu")))
    module = loaded(contents)
    for size, num_points, num_edges in ((5, 97, 13), (1, 3, 2), (2, 30, 120)):
        random = torch.Generator().manual_seed(num_points)
        ends = torch.randint(0, num_points - 1, (size, num_edges), generator=random)
        inputs = {
            "a": torch.randn(size, num_points, generator=random),
            "points": torch.rand(size, num_points, 2, generator=random),
            "weights": torch.rand(size, num_points, generator=random),
            "edges": torch.stack([ends, ends + 1], dim=2).int(),
        }
        outputs = agrees(module, surrogate, inputs)
        assert outputs["u"].shape == (size, 3, num_points) and outputs["drag"].shape == (size,)
    shapes = {each["name"]: each["shape"] for each in card["inputs"] + card["outputs"]}
    assert shapes == {
        "a": ["batch", "points (at most 30)"],
        "points": ["batch", "points (at most 30)", 2],
        "weights": ["batch", "points (at most 30)"],
        "edges": ["batch", "edges (at most 40)", 2],
        "u": ["batch", 3, "points (at most 30)"],
        "drag": ["batch"],
    }
    assert {each["name"]: each["dtype"] for each in card["inputs"]}["edges"] == "int32"
    on = card["outputs"][0]["on"]
    assert on["kind"] == "points" and on["extent"] == [2.0, 1.0] and "0 is padding" in on["weights"]
    assert "on" not in card["outputs"][1]


def test_a_file_on_a_masked_grid_takes_masks_at_other_resolutions():
    torch.manual_seed(0)
    layout = Layout((FieldSpec(name="a", on=MASKED, components=2),), (FieldSpec(name="u", on=MASKED),))
    surrogate = new_surrogate(MODELS["fno"](layout, width=6, modes=3, layers=2), layout)
    contents, card = contents_of(surrogate, {}, free_samples(layout, 2, torch.device("cpu")))
    module = loaded(contents)
    for size, grid in ((1, (12, 10)), (4, (19, 31))):
        weights, a = torch.rand(size, *grid) * (torch.rand(size, *grid) < 0.7), torch.randn(size, 2, *grid)
        found = agrees(module, surrogate, {"a": a, "weights": weights})
        without = agrees(module, surrogate, {"a": torch.where(weights[:, None] > 0, a, 0.0), "weights": weights})
        assert torch.equal(found["u"], without["u"])  # what a field holds outside counts nowhere
    shapes = {each["name"]: each["shape"] for each in card["inputs"] + card["outputs"]}
    assert shapes["a"] == ["batch", 2, "n0 (12)", "n1 (10)"] and shapes["weights"] == shapes["u"] == [
        "batch",
        "n0 (12)",
        "n1 (10)",
    ]
    on = card["outputs"][0]["on"]
    assert on["centring"] == "vertices" and on["periodic"] == [True, False]


def test_a_file_from_a_grid_to_a_mesh_has_both():
    torch.manual_seed(0)
    layout = Layout((FieldSpec(name="g", on=Grid((4, 3))),), (FieldSpec(name="u", on=BODY), FieldSpec(name="drag")))
    surrogate = new_surrogate(MODELS["mlp"](layout, hidden=(7,)), layout)
    contents, card = contents_of(surrogate, {}, free_samples(layout, 2, torch.device("cpu")))
    agrees(loaded(contents), surrogate, {"g": torch.randn(5, 4, 3)})
    assert card["inputs"][0]["shape"] == ["batch", 4, 3]
    assert [each["shape"] for each in card["outputs"]] == [["batch", 5], ["batch"]]


class ReadsAValue(OverEdges):
    def forward(self, fields, points, weights, edges):
        outputs = super().forward(fields, points, weights, edges)
        return outputs | {"targets": outputs["targets"] * float(weights[0, 0])}


def test_what_is_taken_for_a_constant_is_refused_in_one_line():
    with pytest.raises(PenstockError) as refusal:
        contents_of(new_surrogate(ReadsAValue(), ON_POINTS), {}, free_samples(ON_POINTS, 2, torch.device("cpu")))
    assert "\n" not in str(refusal.value) and "ReadsAValue can't be exported" in str(refusal.value)
