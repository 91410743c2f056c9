"""What a plan makes of problems on meshes and on points that vary, and what it refuses in one line."""

import re

import numpy as np
import pytest
import torch

from penstock.learner.checkpoints.store import PlainStore
from penstock.learner.losses.norms import L2Norm, MeshNorm
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import Plan, resolve
from tests.support.learners import NoStream
from tests.support.refusals import refusal

PROBLEM = """
import numpy as np

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem

SQUARE = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])


class Mine(Problem):
    '''Three steps of nothing.'''

    num_steps = 3
    space = ParameterSpace(x=Uniform(0.0, 1.0))

    def __init__(self, *, on: str = "points"):
        inverted = [[0, 1, 2], [0, 3, 2]] if on == "inverted" else [[0, 1, 2], [0, 2, 3]]
        mesh = Mesh(4, 2, lambda: (SQUARE, np.array(inverted)), name="body")
        others = {"points": Points(50, 2, max_edges=20, name="cloud"), "mask": Grid((6, 6), is_masked=True, name="sea")}
        where = others.get(on, mesh)
        given = Grid((8, 8)) if on == "two" else where
        self.inputs = (FieldSpec(name="a", on=given), FieldSpec(name="k"))
        self.outputs = (FieldSpec(name="u", on=where), FieldSpec(name="v", on=where, components=2))
        if on == "unnamed":
            self.inputs, self.outputs = (FieldSpec(name="a", on=Grid((3,))),), (FieldSpec(name="u", on=Grid((4,))),)

    def simulate(self, parameters, solve):
        raise NotImplementedError
"""


@pytest.fixture
def plan(tmp_path):
    """A function from where its fields sit, and sections of the configuration, to the plan of a problem."""
    (tmp_path / "mine.py").write_text(PROBLEM)

    def make(on, model=None, **sections) -> Plan:
        values = {
            "problem": {"name": f"{tmp_path}/mine.py:Mine", "on": on},
            "model": model or {"name": "branch_trunk", "width": 8, "latent": 4, "layers": 1},
            "buffer": {"capacity": 200, "watermark": 50},
            "training": {"batch_size": 4, "stop_after": {"steps": 10}, "device": "cpu"},
        }
        for name, section in sections.items():
            values[name] = {**values[name], **section}
        return resolve(Config.model_validate(values))

    return make


@pytest.mark.parametrize("draw", ["samples", "trajectories", "pairs"])
@pytest.mark.parametrize("on", ["points", "mesh"])
def test_a_run_on_a_mesh_or_on_points_is_put_together_and_rehearsed(plan, tmp_path, on, draw):
    chosen = plan(on, buffer={"draw": draw})
    assert chosen.rehearse(tmp_path) == []
    learner = chosen.learner(NoStream(), PlainStore())
    assert learner.buffer.layout == chosen.batch_layout
    shape = (9 if draw == "trajectories" else 3, 50 if on == "points" else 4)
    assert chosen.batch_layout.shapes["targets"] == shape


@pytest.mark.parametrize(
    ("model", "on", "expected"),
    [
        ("fno", "points", "model: fno takes fields on a grid, and 'u' sits on points that vary: take branch_trunk"),
        ("fno", "mesh", "model: fno takes fields on a grid, and 'u' sits on a mesh: take branch_trunk, "),
        ("mlp", "points", "model: mlp takes fields on a grid or a mesh, and 'u' sits on points that vary: take branch"),
    ],
)
def test_a_model_that_does_not_take_the_problems_geometry_is_refused(plan, model, on, expected):
    assert refusal(plan(on, model=model).surrogate).startswith(expected)


MODEL = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.map = nn.Linear(1, 3)

    def forward(self, {arguments}):
        return self.map(fields.transpose(1, 2)).transpose(1, 2)
"""


def test_a_users_model_must_take_weights_where_samples_are_padded(plan, tmp_path):
    def told(arguments):
        (tmp_path / "model.py").write_text(MODEL.format(arguments=arguments))
        return plan("points", model=f"{tmp_path}/model.py:Mine")

    message = refusal(told("fields, scalars, points").surrogate)
    assert re.fullmatch(
        r"model: \S+:Mine must take weights in forward\(\): samples of \S+:Mine have points of their own, padded, and "
        "of padding the weight is 0",
        message,
    )
    for arguments in ("fields, scalars, weights", "fields, scalars, points, weights, edges", "fields, **others"):
        told(arguments).surrogate()
    (tmp_path / "model.py").write_text(MODEL.format(arguments="fields, scalars"))
    plan("mesh", model=f"{tmp_path}/model.py:Mine").surrogate()  # which no sample pads


@pytest.mark.parametrize(
    ("on", "loss", "what"),
    [
        ("points", "h1", "order 1 needs gradients, and points that vary have none: take relative_l2 or mse"),
        ("points", {"name": "sobolev", "order": -1}, "order -1 needs gradients, and points that vary have none"),
        ("mask", "h1", "order 1 needs gradients, and a masked grid has none: take relative_l2 or mse"),
    ],
)
def test_losses_that_a_geometry_has_not_are_refused(plan, on, loss, what):
    assert refusal(plan(on, training={"loss": loss}).loss).startswith(f"training.loss: {what}")


def test_losses_are_taken_in_the_norms_of_the_geometry(plan):
    (norm,) = (loss.norm for loss in plan("mesh", training={"loss": "h1"}).loss().losses.values())
    assert isinstance(norm, MeshNorm) and norm.order == 1
    (norm,) = (loss.norm for loss in plan("points", training={"loss": "mse"}).loss().losses.values())
    assert isinstance(norm, L2Norm)
    tensor = torch.ones(2, 3, 50)
    weights = torch.rand(2, 1, 50)
    assert norm.squared(tensor, weights) == pytest.approx(np.ones((2, 3)))


def test_a_mesh_with_an_inverted_cell_is_one_line_with_its_name_and_the_cells_number(plan, tmp_path):
    expected = (
        "mesh 'body': cell 1, with the points [0, 3, 2], is inverted: exchange two of its points (1 of 2 cells are)"
    )
    for part in (plan("inverted").surrogate, plan("inverted", model="mlp").loss):
        assert refusal(part) == expected


def test_pairs_of_two_geometries_are_drawn_where_these_have_names(plan):
    chosen = plan("two", model="mlp", buffer={"draw": "pairs"})
    shapes = chosen.batch_layout.shapes
    assert shapes["fields"] == (1, 8, 8) and shapes["fields_body"] == (3, 4)
    assert chosen.surrogate().layout == chosen.batch_layout
    unnamed = plan("unnamed", model="mlp", buffer={"draw": "pairs"})
    assert refusal(unnamed.surrogate).startswith("buffer.draw: two geometries have an array fields: tell them apart by")
