"""What a configuration says of a problem's parameters: narrower distributions, and how they are covered."""

import json
from typing import get_args

import numpy as np
import pytest
import yaml

from penstock.messages import Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.config.config import ProblemSection, load_config
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.solving import MONTE_CARLO
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.solvers.parameters.point_sets import POINT_SETS, Halton
from tests.support.refusals import refusal

PROBLEM = """
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.parameters.fields import BinaryField, GaussianField
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem

import numpy as np


class Mine(Problem):
    '''Without an equation.'''

    space = ParameterSpace(speed=Uniform(2.0, 5.0, "m/s"), source=GaussianField(8, num_modes=8))
    inputs = (FieldSpec(name="speed"), FieldSpec(name="source", on=Grid((8, 8))))
    outputs = (FieldSpec(name="solution", on=Grid((8, 8))),)

    def simulate(self, parameters, solve):
        yield Sample(inputs=dict(parameters), outputs={"solution": parameters["speed"] * parameters["source"]})


class DrawsItself(Mine):
    def draw(self, generator):
        return {"speed": generator.random(), "source": np.ones((8, 8))}


class Coin:
    def draw(self, generator):
        return float(generator.integers(2))

    def features(self, value):
        return np.array([value])

    def describe(self):
        return "a coin"


class HasCoin(Mine):
    space = ParameterSpace(speed=Uniform(2.0, 5.0), source=GaussianField(8, num_modes=8), coin=Coin())


class HasFunctionOfCoin(Mine):
    space = ParameterSpace(speed=Uniform(2.0, 5.0), source=BinaryField(Coin(), above=2.0, below=1.0))
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function from the keys of `problem` to the path of a configuration beside the file of the problem."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PROBLEM)

    def write(name="./mine.py:Mine", **keys):
        values = {"problem": {"name": name, **keys}, "training": {"stop_after": {"steps": 10}}, "seed": 4}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "run.yaml"

    return write


def speeds(plan, simulations, design="training"):
    chunks = make_worker(plan).stream(Lease(number=0, simulations=tuple(simulations), design=design))
    return {
        int(simulation): float(speed)
        for chunk in chunks
        for simulation, speed in zip(chunk.simulations, chunk.arrays["scalars"][:, 0], strict=True)
    }


def test_the_designs_of_the_configuration_are_those_that_there_are():
    assert set(get_args(ProblemSection.model_fields["design"].annotation)) == {MONTE_CARLO, *POINT_SETS}


def test_parameters_are_narrowed_in_every_process_and_recorded(write):
    """In a user's problem, whose class keeps its own space; and `config.yaml` says so again."""
    config = load_config(write(parameters={"speed": [2.5, 3.0]}), ("problem.parameters.speed=[2.5, 2.6]",))
    folder = RunFolder.create(resolve(config).config)
    plan = resolve(folder.config())
    assert plan.config.problem.parameters == {"speed": [2.5, 2.6]} and plan.config.problem.design == MONTE_CARLO
    for design in ("training", "validation", "prediction"):
        assert all(2.5 <= speed <= 2.6 for speed in speeds(plan, range(20), design).values())
    assert plan.problem.space.describe()["speed"] == "uniform on [2.5, 2.6] m/s"
    assert json.dumps(plan.config.model_dump(mode="json"))
    assert type(plan.problem).space.describe()["speed"] == "uniform on [2, 5] m/s"


def test_a_parameter_is_fixed(write):
    plan = resolve(load_config(write(parameters={"speed": 3})))
    assert set(speeds(plan, range(3)).values()) == {3.0}
    assert plan.problem.quantile_names == ("source_mode_0_1", "source_mode_1_0", "source_mode_1_1")


def test_a_design_reaches_the_training_simulations_alone(write):
    """They lie on SciPy's sequence as the point sets give it; a worker that begins later goes on with it."""
    plan = resolve(load_config(write(design="halton", parameters={"speed": [2.0, 4.0]})))
    expected = [2 + 2 * Halton(4, 4, "training").point(i)[0] for i in range(20)]
    np.testing.assert_allclose([speeds(plan, range(20))[i] for i in range(20)], expected, rtol=1e-6)
    resumed = resolve(RunFolder.create(plan.config).config())
    np.testing.assert_allclose([speeds(resumed, range(15, 20))[i] for i in range(15, 20)], expected[15:], rtol=1e-6)
    independent = resolve(load_config(write(parameters={"speed": [2.0, 4.0]})))
    assert speeds(plan, range(5), "validation") == speeds(independent, range(5), "validation")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"parameters": {"sped": 3.0}},
            "problem.parameters.sped: unknown parameter; did you mean 'speed'?",
        ),
        ({"parameters": {"speed": [3.0, 2.5]}}, "problem.parameters.speed = [3.0, 2.5]: the range is empty"),
        ({"parameters": {"speed": [3.0, 7.0]}}, "problem.parameters.speed = [3.0, 7.0]: it must lie in [2, 5]"),
        (
            {"parameters": {"source": 1.0}},
            "problem.parameters.source = 1.0: its distribution can't be narrowed: Gaussian field",
        ),
        (
            {"name": "./mine.py:DrawsItself", "parameters": {"speed": 3.0}},
            "mine.py:DrawsItself draws its parameters itself",
        ),
        ({"name": "./mine.py:DrawsItself", "design": "sobol"}, "problem.design = 'sobol' chooses parameters by their"),
        ({"name": "./mine.py:HasCoin", "design": "halton"}, "can't all be chosen so: give monte_carlo"),
        ({"name": "./mine.py:HasFunctionOfCoin", "design": "halton"}, "can't all be chosen so: give monte_carlo"),
        ({"design": "sobl"}, "problem.design = 'sobl': input should be 'monte_carlo', 'sobol'"),
        ({"parameters": 3}, "problem.parameters = 3"),
    ],
)
def test_what_cannot_be_is_one_line(write, keys, message):
    assert message in refusal(lambda: resolve(load_config(write(**keys))).problem)
