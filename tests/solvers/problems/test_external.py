"""What a spec says, and what is refused; what programs do is in tests/solvers/external."""

import pickle

import numpy as np
import pytest

from penstock.geometry import Grid, Points
from penstock.registry import build
from penstock.solvers.parameters.scalars import Discrete, LogUniform, Uniform
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.external import External
from tests.support.refusals import refusal

SPEC = {
    "parameters": {
        "k": {"law": "uniform", "low": 1, "high": 2, "unit": "1/m"},
        "phase": {"law": "discrete", "values": [0, 1]},
        "medium": {"law": "binary_field", "above": 12, "below": 3, "field": {"law": "gaussian_field", "resolution": 4}},
    },
    "geometries": {
        "square": {"kind": "grid", "shape": [4, 4], "periodic": [True, False], "extent": [2, 1]},
        "cloud": {"kind": "points", "max_points": 9, "dimension": 2, "name": "cloud"},
    },
    "inputs": {"k": {"unit": "1/m"}, "medium": {"geometry": "square"}, "time": None},
    "outputs": {"u": {"geometry": "square", "components": 2, "unit": "K"}, "v": {"geometry": "cloud"}},
    "num_steps": 3,
}


def test_a_spec_says_what_a_class_would():
    problem = External(command="./heat --fast", spec=SPEC)
    assert problem.space.distributions["k"] == Uniform(1, 2, "1/m")
    assert problem.space.distributions["phase"] == Discrete((0, 1))
    assert problem.space.distributions["medium"].describe().startswith("12 where positive, 3 where negative")
    square = Grid((4, 4), periodic=(True, False), extent=(2, 1))
    assert [(spec.name, spec.on, spec.unit) for spec in problem.inputs] == [
        ("k", None, "1/m"),
        ("medium", square, "1"),
        ("time", None, "1"),
    ]
    assert [(spec.on, spec.components) for spec in problem.outputs] == [(square, 2), (Points(9, 2, name="cloud"), 1)]
    assert problem.num_steps == 3
    assert problem.layout.shapes["targets_cloud"] == (1, 9)


def test_a_spec_is_read_from_its_file(tmp_path):
    """Numbers such as 1e-8 as YAML 1.2 has them."""
    path = tmp_path / "spec.yaml"
    path.write_text("parameters: {k: {law: log_uniform, low: 1e-8, high: 1}}\noutputs: {u: {}}\n")
    assert External(command="x", spec=str(path)).space.distributions["k"] == LogUniform(1e-8, 1)


def test_an_input_has_the_unit_of_its_parameter():
    assert External(command="x", spec=changed("inputs", "k")).inputs[0].unit == "1/m"


def test_geometries_without_a_name_have_that_of_their_key_where_fields_sit_on_several():
    two = SPEC["geometries"] | {"cells": {"kind": "grid", "shape": [3]}, "unused": {"kind": "grid", "shape": [2]}}
    spec = SPEC | {"geometries": two, "outputs": SPEC["outputs"] | {"w": {"geometry": "cells"}}}
    problem = External(command="x", spec=spec)
    assert [spec.on.name for spec in problem.outputs] == ["square", "cloud", "cells"]
    assert problem.layout.shapes["targets_cells"] == (1, 3)


def test_the_equation_is_that_of_the_spec():
    assert External(command="./heat", spec=SPEC | {"about": "u' = k u_xx"}).about == "u' = k u_xx"
    assert External(command="./heat", spec=SPEC).about == "A program that solves its own equation: ./heat"


def test_what_can_t_be_started_is_known_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heat").touch()
    for command, lacks in (
        ("./heat --fast", "command: ./heat is not executable: chmod +x it"),
        ("./cold", "command: ./cold: no such file: build it, or mend its path"),
        ("no-such-mpiexec -n 2 ./heat", "command: no-such-mpiexec is not on the path"),
        ("sh ./heat", None),
    ):
        assert External(command=command, spec=SPEC).lacks == lacks
    (tmp_path / "heat").chmod(0o755)
    assert External(command="./heat", spec=SPEC).lacks is None


@pytest.fixture
def plate(tmp_path):
    """A square of two triangles, in a file."""
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    np.savez(tmp_path / "plate.npz", points=points, cells=np.array([[0, 1, 2], [0, 2, 3]]))
    return tmp_path / "plate.npz"


def test_a_mesh_is_read_from_its_file_beside_the_spec_and_carries_random_fields(plate, tmp_path, monkeypatch):
    (tmp_path / "spec.yaml").write_text(
        "parameters:\n"
        "  stiffness: {law: log_normal_field, field: {law: matern_field, mesh: plate, inverse_length: 0.5}}\n"
        "geometries: {plate: {kind: mesh, file: plate.npz}}\n"
        "inputs: {stiffness: {geometry: plate}}\n"
        "outputs: {u: {geometry: plate, components: 2}}\n"
    )
    monkeypatch.chdir("/")
    problem = External(command="x", spec=str(tmp_path / "spec.yaml"))
    mesh = problem.outputs[0].on
    assert mesh is problem.inputs[0].on and problem.layout.shapes["targets"] == (2, 4)
    np.testing.assert_allclose(mesh.weights, [1 / 3, 1 / 6, 1 / 3, 1 / 6])
    assert (problem.draw(generator_of(0, "training", 0))["stiffness"] > 0).all()
    assert len(problem.quantile_names) == 3  # of the Matérn field
    assert pickle.loads(pickle.dumps(mesh)) == mesh


def test_files_that_hold_no_mesh_are_refused(plate, tmp_path):
    np.save(tmp_path / "alone.npy", np.ones((4, 2)))
    np.savez(tmp_path / "half.npz", points=np.ones((4, 2)))
    np.savez(tmp_path / "flat.npz", points=np.ones(4), cells=np.ones((1, 2), int))
    (tmp_path / "text.npz").write_text("0 1 2")
    for name, message in (
        ("none.npz", "no such file"),
        ("alone.npy", "must be a .npz file with `points` and `cells`"),
        ("half.npz", "must be a .npz file with `points` and `cells`"),
        ("text.npz", "must be a .npz file with `points` and `cells`"),
        ("flat.npz", "has points of shape (4,): give coordinates [P, d]"),
    ):
        spec = changed("geometries", "plate", kind="mesh", file=str(tmp_path / name))
        said = refusal(build, External, {"command": "x", "spec": spec}, "problem")
        assert "spec.geometries.plate: file = " in said and message in said


def changed(section, name, **options):
    return SPEC | {section: SPEC[section] | {name: options}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command": ""}, "command = '' is empty"),
        ({"command": "a 'b"}, "can't be split into words"),
        ({"timeout_s": 0}, "timeout_s = 0 must be above 0"),
        ({"spec": "no.yaml"}, "no.yaml: no such file"),
        ({"spec": SPEC | {"output": {}}}, "spec.output: unknown key; did you mean 'outputs'?"),
        ({"spec": SPEC | {"inputs": ["k"]}}, "spec.inputs must map names to options"),
        ({"spec": SPEC | {"inputs": {"a b": {}}}}, "'a b' must be an identifier"),
        ({"spec": SPEC | {"inputs": {"a": 3}}}, "spec.inputs.a must be a mapping of options, not 3"),
        ({"spec": changed("parameters", "k", law="unifrom")}, "law = 'unifrom': did you mean 'uniform'?"),
        (
            {"spec": changed("parameters", "k", law="uniform", low=2, high=1)},
            "spec.parameters.k: low = 2 must be below",
        ),
        ({"spec": changed("parameters", "time", law="normal")}, "spec.parameters.time: the time of a sample"),
        ({"spec": changed("geometries", "square", kind="gird")}, "square.kind = 'gird': did you mean 'grid'?"),
        ({"spec": changed("geometries", "square", kind="mesh")}, "spec.geometries.square.file: missing"),
        (
            {"spec": changed("parameters", "m", law="matern_field", mesh="square", inverse_length=1)},
            "spec.parameters.m.mesh = 'square': known: none",
        ),
        ({"spec": changed("outputs", "u", geometry="sqare")}, "geometry = 'sqare': did you mean 'square'?"),
        ({"spec": changed("outputs", "u", componets=2)}, "spec.outputs.u.componets: unknown key"),
        ({"spec": SPEC | {"about": ["heat"]}}, "spec.about = ['heat'] must be text"),
        ({"spec": changed("inputs", "time", geometry="square")}, "spec.inputs.time: the time of a sample is a number"),
        ({"spec": changed("inputs", "k", geometry="square")}, "spec.inputs.k: the parameter is a number"),
        ({"spec": changed("inputs", "k", unit="1/cm")}, "spec.inputs.k.unit = '1/cm', and the parameter k is in '1/m'"),
        ({"spec": changed("inputs", "medium")}, "spec.inputs.medium: the parameter is a field of 4 x 4 values: give"),
        (
            {"spec": changed("parameters", "medium", law="gaussian_field", resolution=5)},
            "spec.inputs.medium: has 4 x 4 values, and the parameter is a field of 5 x 5: give the geometry",
        ),
        (
            {"spec": changed("inputs", "medium", geometry="square", components=2)},
            "spec.inputs.medium: has 2 x 4 x 4 values, and the parameter is a field of 4 x 4",
        ),
        (
            {"spec": changed("inputs", "medium", geometry="cloud")},
            "spec.inputs.medium: has at most 9 values, and the parameter is a field of 4 x 4",
        ),
    ],
)
def test_bad_options_are_refused(options, message):
    assert message in refusal(build, External, {"command": "x", "spec": SPEC} | options, "problem")
