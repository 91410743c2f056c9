"""The record of a run: what `config.yaml` says builds the same parts whatever becomes of the defaults in the code."""

import json
import pickle
import re
import subprocess
import sys

import pytest
import yaml

from penstock.errors import PenstockError
from penstock.learner.models import MODELS
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.stream.order import Deterministic, FreeRunning
from penstock.messages import Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.config.config import Config, load_config
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store.run_folder import RunFolder

DESCRIBE = """
import json, sys
from pathlib import Path

from pydantic_core import PydanticUndefined

from penstock.learner.buffers import UNITS
from penstock.learner.losses.losses import LOSSES
from penstock.learner.models import MODELS
from penstock.orchestrator.config import config, solver
from penstock.orchestrator.plan import resolve
from penstock.registry import load_class
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.problems import PROBLEMS

changes, *paths = sys.argv[1:]


def other(value):
    if type(value) is bool:
        return not value
    return value + 1 if isinstance(value, int | float) else "another" if isinstance(value, str) else 3


if changes == "changed":
    for registry in (PROBLEMS, STRATEGIES, UNITS, MODELS, LOSSES):
        for name in registry:
            function = load_class(name, registry, "").__init__
            if function is object.__init__:
                continue
            if function.__kwdefaults__:
                function.__kwdefaults__ |= {key: other(value) for key, value in function.__kwdefaults__.items()}
            if function.__defaults__:
                function.__defaults__ = tuple(other(value) for value in function.__defaults__)
    sections = [cls for cls in vars(config).values() if isinstance(cls, type) and issubclass(cls, config.Section)]
    solver.DEFAULT_ACCURACY = 0.5
    for section in sections:
        for field in section.model_fields.values():
            if field.default is not PydanticUndefined:
                field.default = other(field.default)
        section.model_rebuild(force=True)

for path in paths:
    try:
        plan = resolve(config.load_config(Path(path)))
    except Exception as error:  # of whatever kind: some defaults are of the wrong type now
        print(json.dumps(str(error)))
        continue
    (loss,) = plan.loss().losses.values()
    print(json.dumps({
        "config": plan.config.model_dump(mode="json"),
        "weights": {name: list(value.shape) for name, value in plan.surrogate().model.state_dict().items()},
        "problem": repr(sorted(plan.problem.layout.shapes.items())),
        "strategy": {key: value for key, value in vars(plan.strategy()).items() if isinstance(value, str | int)},
        "draw": repr(plan.unit),
        "loss": [loss.relative, getattr(loss.norm, "order", 0)],
    }))
"""

CHOICES = [
    {},
    {"solver": {"strategy": "gcrodr"}, "training": {"loss": {"name": "sobolev", "order": 0.5}}, "seed": 3},
    {"solver": {"strategy": "cg", "rtol": 1e-6}, "training": {"loss": "h1"}, "model": {"name": "fno", "width": 8}},
    {"solver": {"strategy": {"name": "krylov", "pc": "jacobi"}}, "training": {"loss": "mse"}, "deterministic": False},
    {"solver": {"strategy": "lagged"}},
    {"solver": {"strategy": "direct"}},
]


def written(tmp_path, monkeypatch, choice):
    """The folder of a run whose configuration names what it chooses, and little else."""
    monkeypatch.chdir(tmp_path)
    stop_after = {"stop_after": {"steps": 10}}
    values = {"problem": "darcy"} | choice | {"training": choice.get("training", {}) | stop_after}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    return RunFolder.create(resolve(load_config(tmp_path / "mine.yaml")).config)


@pytest.mark.slow  # a process imports torch and all registries
def test_the_record_builds_the_same_parts_after_every_default_has_changed(tmp_path, monkeypatch, capsys):
    records, given = [], []
    for number, choice in enumerate(CHOICES):
        records.append(written(tmp_path, monkeypatch, choice).path / "config.yaml")
        given.append((tmp_path / "mine.yaml").rename(tmp_path / f"{number}.yaml"))
    command = ["-c", DESCRIBE, "changed", *map(str, records), str(given[2])]
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    *built, from_little = map(json.loads, result.stdout.splitlines())

    monkeypatch.setattr(sys, "argv", ["-c", "kept", *map(str, given)])
    exec(DESCRIBE, {})
    wanted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(built) == len(CHOICES)
    for each, other in zip(built, wanted, strict=True):
        assert each == other
    assert from_little != wanted[2]  # what is left out would show


MINE = """
import enum

from penstock.solvers.problems.steady.darcy import Darcy


class Kind(enum.Enum):
    WET = 1


class Mine(Darcy):
    def __init__(self, *, resolution: int = 16, shape: tuple = (1, (2, 3)), kind: Kind = Kind.WET, scale: float = 2.0):
        assert isinstance(shape, tuple) and kind is Kind.WET
        super().__init__(resolution=resolution)
        self.scale = scale
"""


def test_what_yaml_has_no_form_for_stays_the_classs_own_and_lists_become_tuples_again(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    folder = written(tmp_path, monkeypatch, {"problem": f"{tmp_path}/mine.py:Mine"})
    values = yaml.safe_load((folder.path / "config.yaml").read_text())["problem"]
    keys = {"name": "./problem_mine.py:Mine", "parameters": {}, "design": "monte_carlo", "swap": False}
    assert values == keys | {"resolution": 16, "shape": [1, [2, 3]], "scale": 2.0}
    assert resolve(folder.config()).problem.scale == 2.0


ODD_DEFAULTS = """
from penstock.solvers.problems.steady.darcy import Darcy


class Mine(Darcy):
    def __init__(self, seed: int = 7, /, *, resolution: int = 16, levels: int = None, pairs=((1, 2), (3, 4))):
        super().__init__(resolution=resolution)
        self.seed, self.levels, self.pairs = seed, levels, {pair: 1 for pair in pairs}
"""


def test_a_default_is_taken_back_from_the_record_whatever_its_annotation_says(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(ODD_DEFAULTS)
    folder = written(tmp_path, monkeypatch, {"problem": f"{tmp_path}/mine.py:Mine"})
    problem = resolve(folder.config()).problem
    assert (problem.seed, problem.levels, list(problem.pairs)) == (7, None, [(1, 2), (3, 4)])
    with pytest.raises(PenstockError, match=r"problem\.levels = 'many': must be an integer"):
        resolve(folder.config(("problem.levels=many",))).problem  # noqa: B018  asked for to be refused
    with pytest.raises(PenstockError, match=r"problem\.resolution = 16\.0: must be an integer"):
        resolve(folder.config(("problem.resolution=16.0",))).problem  # noqa: B018  asked for to be refused


NAMED = """
from penstock.solvers.problems.steady.darcy import Darcy


class Mine(Darcy):
    def __init__(self, *, resolution: int = 16, name: str = "mine"):
        super().__init__(resolution=resolution)
        self.name = name
"""


def test_a_class_with_an_option_called_name_keeps_its_default(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(NAMED)
    folder = written(tmp_path, monkeypatch, {"problem": f"{tmp_path}/mine.py:Mine"})
    assert resolve(folder.config()).problem.name == "mine"


STRATEGIES = """
from penstock.solvers.linear.strategy import Strategy


class Nameless(Strategy):
    def solve(self, system, tolerance):
        raise AssertionError


class Mine(Nameless):
    name = "mine"


class Other:
    name = "other"
"""


def test_a_strategy_of_the_users_own_keeps_to_the_protocol(tmp_path, monkeypatch):
    (tmp_path / "own_strategies.py").write_text(STRATEGIES)
    monkeypatch.syspath_prepend(tmp_path)

    def strategy(name):
        values = {"problem": "darcy", "solver": {"strategy": f"own_strategies:{name}"}}
        return resolve(Config.model_validate(values | {"training": {"stop_after": {"steps": 10}}})).strategy()

    assert strategy("Mine").name == "mine"
    for name in ("Nameless", "Other"):
        with pytest.raises(PenstockError, match=f"'own_strategies:{name}' must be a subclass of .*Strategy that has a"):
            strategy(name)


def test_what_a_model_takes_for_null_is_recorded(tmp_path, monkeypatch):
    folder = written(tmp_path, monkeypatch, {"problem": {"name": "darcy", "resolution": 16}})
    assert yaml.safe_load((folder.path / "config.yaml").read_text())["model"]["modes"] == [8, 8]


@pytest.mark.parametrize(
    ("problem", "model"),
    [
        ({"name": "darcy", "resolution": 16}, "fno"),  # on a grid
        ({"name": "void_cell", "resolution": 32}, "transolver"),  # on points
        ({"name": "poisson_boundary", "resolution": 12}, "deeponet"),  # from an edge into the square
        ({"name": "lorenz", "num_steps": 2}, "mlp"),  # of numbers alone
    ],
)
def test_a_run_that_names_no_model_takes_the_one_of_its_geometry_and_records_it(problem, model, tmp_path, monkeypatch):
    folder = written(tmp_path, monkeypatch, {"problem": problem})
    assert yaml.safe_load((folder.path / "config.yaml").read_text())["model"]["name"] == model
    resolve(folder.config()).surrogate()


def test_a_folder_that_recorded_less_is_read_with_todays_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"problem": {"name": "darcy", "resolution": 16}, "model": "fno", "training": {"stop_after": {"steps": 10}}}
    config = Config.model_validate(values)
    folder = RunFolder.create(config)
    assert "modes" not in yaml.safe_load((folder.path / "config.yaml").read_text())["model"]
    assert resolve(folder.config()).config.model.options["layers"] == 4
    assert resolve(folder.config(("model.layers=4",))).config == resolve(folder.config()).config


def test_a_plan_travels_as_what_it_is_made_of_and_builds_each_part_once_per_process():
    values = {"problem": {"name": "darcy", "resolution": 16}, "training": {"stop_after": {"steps": 10}}}
    plan = resolve(Config.model_validate(values))
    assert plan.problem is plan.problem and plan.unit is plan.unit and plan.batch_layout is plan.batch_layout
    for one in (plan, plan.solving):
        copy = pickle.loads(pickle.dumps(one))
        assert copy == one and not {"problem", "unit", "batch_layout"} & vars(copy).keys()
        assert copy.problem.layout == plan.problem.layout


def test_a_solvers_process_imports_no_torch():
    code = "import sys; import penstock.orchestrator.actors.solver_actor; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


DETERMINISTIC = {
    "problem": {"name": "darcy", "resolution": 16},
    "training": {"stop_after": {"steps": 10}},
    "deterministic": True,
    "solver": {"strategy": "direct", "sort": True, "workers": 2},
    "buffer": {"batches_per_simulation": 0.5},
}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("solver.workers=auto", "solver.workers: auto, which goes by the machine's cores: give a number"),
        ("solver.strategy=auto", "solver.strategy: auto, which times the candidates: name one"),
        ("solver.strategy=lagged", "solver.strategy: lagged without refresh_cost, which it would time: give"),
        ("solver.ranks=2", "solver.ranks, whose sums depend on which message comes first: give 1"),
        ("solver.sort=auto", "solver.sort: auto, which times windows: give true or false"),
        ("buffer.batches_per_simulation=null", "buffer.batches_per_simulation: null"),
        ("training.stop_after={minutes: 1}", "training.stop_after.minutes: give steps"),
        ("training.stop_after={steps: 10, error: 0.1}", "training.stop_after.error, which is looked at by the clock"),
        ("training.schedule={minutes: 1}", "training.schedule.minutes: give steps or samples"),
        ("training.compile=true", "training.compile: true"),
        ("checkpoint.buffer=false", "checkpoint.buffer: false"),
    ],
)
def test_a_deterministic_run_refuses_what_asks_the_clock(tmp_path, override, expected):
    """All that it refuses in one line."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(DETERMINISTIC))

    def planned(*overrides):
        return resolve(load_config(path, overrides))

    assert planned().order == Deterministic(num_lanes=2, window=64)
    assert planned(override, "deterministic=false").order == FreeRunning()
    planned("solver.strategy={name: lagged, refresh_cost: 10}")
    with pytest.raises(PenstockError, match=f"^deterministic: true refuses {re.escape(expected)}"):
        planned(override)
    with pytest.raises(PenstockError, match=re.escape(expected)) as caught:
        planned(override, "solver.workers=auto", "solver.sort=auto")
    assert "\n" not in str(caught.value) and "solver.sort: auto, which times windows" in str(caught.value)


STRATEGY = """
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.strategy import Strategy


class Mine(Strategy):
    name = "mine"

    def __init__(self, *, fails: bool = False):
        self.fails = fails
        self.direct = Direct()

    def solve(self, system, tolerance):
        assert not self.fails, "out of order"
        return self.direct.solve(system, tolerance)
"""


def test_a_strategy_from_a_file_is_recorded_and_solves_in_a_workers_process(tmp_path, monkeypatch):
    """It lives in the run folder from then on, and travels by its source."""
    (tmp_path / "mine.py").write_text(STRATEGY)
    strategy = f"{tmp_path}/mine.py:Mine"
    folder = written(
        tmp_path, monkeypatch, {"problem": {"name": "darcy", "resolution": 8}, "solver": {"strategy": strategy}}
    )
    recorded = yaml.safe_load((folder.path / "config.yaml").read_text())["solver"]["strategy"]
    assert recorded == {"name": "./strategy_mine.py:Mine", "fails": False}
    solving = pickle.loads(pickle.dumps(resolve(folder.config()).solving))
    (tmp_path / "mine.py").unlink()
    (folder.path / "strategy_mine.py").unlink()
    worker = make_worker(solving)
    chunks = list(worker.stream(Lease(number=0, simulations=(0, 1), design="training")))
    assert sum(len(chunk) for chunk in chunks) == 2 and not any(chunk.failed for chunk in chunks)
    assert {solve.strategy for chunk in chunks for solve in chunk.solves} == {"mine"}


def test_what_a_users_strategy_raises_is_placed_in_its_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(STRATEGY)
    strategy = {"name": f"{tmp_path}/mine.py:Mine", "fails": True}
    choice = {"problem": {"name": "darcy", "resolution": 8}, "solver": {"strategy": strategy}}
    worker = make_worker(resolve(written(tmp_path, monkeypatch, choice).config()).solving)
    (chunk,) = worker.stream(Lease(number=0, simulations=(0,), design="training"))
    assert chunk.failed[0].startswith("AssertionError: out of order (") and "mine.py, line 14)" in chunk.failed[0]


@pytest.mark.parametrize(
    ("model", "training", "expected"),
    [
        ("fno", {}, ("muon", 2e-2)),
        ("fno", {"optimizer": "adamw"}, ("adamw", 4e-3)),
        ("fno", {"optimizer": {"name": "muon", "momentum": 0.9}}, ("muon", 2e-2)),
        ("fno", {"learning_rate": 1e-3}, ("muon", 1e-3)),
        ("mlp", {}, ("adamw", 4e-3)),
        ("mlp", {"optimizer": "torch.optim:NAdam"}, ("torch.optim:NAdam", 4e-3)),
    ],
)
def test_a_model_says_what_trains_it_where_the_configuration_does_not(model, training, expected):
    values = {"problem": "darcy", "model": model, "training": training | {"stop_after": {"steps": 1}}}
    found = resolve(Config.model_validate(values)).config.training
    assert (found.optimizer.name, found.learning_rate) == expected


def test_a_model_without_a_loss_is_not_trained_by_it():
    values = {"problem": "darcy", "training": {"loss": "of_model", "stop_after": {"steps": 1}}}
    with pytest.raises(PenstockError, match=r"training\.loss: of_model, and fno has no method loss"):
        resolve(Config.model_validate(values)).loss()


def test_weights_of_outputs_are_not_for_a_models_own_loss(monkeypatch):
    monkeypatch.setattr(FNO, "loss", lambda self: None, raising=False)
    training = {"loss": "of_model", "output_weights": {"solution": 2.0}, "stop_after": {"steps": 1}}
    with pytest.raises(PenstockError, match=r"training\.output_weights: of_model weighs outputs itself"):
        resolve(Config.model_validate({"problem": "darcy", "training": training})).loss()


def test_a_learning_rate_among_the_options_of_an_optimizer_is_refused():
    training = {"optimizer": {"name": "torch.optim:Adam", "lr": 0.5}, "stop_after": {"steps": 1}}
    with pytest.raises(PenstockError, match=r"training\.optimizer: lr goes by the schedule: give training\.learning_r"):
        resolve(Config.model_validate({"problem": "darcy", "training": training}))
    plan = resolve(
        Config.model_validate({"problem": "darcy", "training": training | {"optimizer": "torch.optim:Adam"}})
    )
    assert "lr" not in plan.config.training.optimizer.options
    assert resolve(plan.config).config == plan.config


@pytest.mark.parametrize("problem", ["darcy", "poisson_with_hole"])
def test_what_every_model_takes_by_default_it_takes_from_the_record(problem):
    for name in MODELS.keys() - {"neuralop"}:
        values = {"problem": problem, "model": name, "training": {"stop_after": {"steps": 1}}}
        plan = resolve(Config.model_validate(values))
        again = resolve(plan.config)
        assert again.config == plan.config, name
        try:
            plan.model_without_memory()
        except PenstockError as refusal:
            assert "options" not in str(refusal) and "must be" not in str(refusal), refusal


@pytest.mark.parametrize("model", ["moe", "mg_tfno"])
def test_a_model_around_another_is_trained_as_that_one_is(model):
    def training(**choice):
        values = {
            "problem": {"name": "darcy", "resolution": 16},
            "model": choice,
            "training": {"stop_after": {"steps": 1}},
        }
        training = resolve(Config.model_validate(values)).config.training
        return training.optimizer.name, training.learning_rate

    for inside in ("fno", "unet"):
        assert training(name=model, model=inside) == training(name=inside)
