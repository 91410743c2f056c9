"""What is asked of wandb and mlflow, by stand-ins for the packages, which need a server or hundreds of MB."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from tests.support.watched_runs import Run, errors, record, worst_case


@pytest.fixture
def wandb(monkeypatch):
    """A package wandb without a key, and the calls of its runs."""
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    module, calls = ModuleType("wandb"), []

    class WandbRun:
        def __getattr__(self, name):
            return lambda *arguments, **options: calls.append((name, arguments, options))

    module.init = lambda **options: calls.append(("init", (), options)) or WandbRun()
    module.login = lambda *, prompt: prompt  # True would be an answer of someone who was asked
    module.Settings = module.Image = lambda *arguments, **options: SimpleNamespace(arguments=arguments, **options)
    module.setup = lambda settings: None
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_wandb_is_offline_without_a_key_and_asks_nobody(tmp_path, wandb):
    run = Run(tmp_path / "darcy-1")
    with run.sinks("wandb") as sinks:
        for step in (0, 10, 0):
            sinks.take(record(step, validation=errors(0.5)), (worst_case(step),) if step == 10 else ())
    assert run.said == []
    (_, _, options), *others = wandb
    assert options["mode"] == "offline" and options["id"] == "darcy-1" and options["resume"] == "allow"
    assert options["dir"] == run.folder.path and options["config"]["problem.name"] == "darcy"
    logged = [arguments[0] for name, arguments, _ in others if name == "log"]
    assert [values["step"] for values in logged] == [0, 10, 0]
    assert logged[0]["errors/vrmse"] == 0.75 and logged[1]["training/loss"] == pytest.approx(1 / 11)
    assert logged[1]["worst case"].arguments[0].format == "PNG"
    assert others[-1] == ("finish", (), {"exit_code": 0})


def test_wandb_goes_by_its_variables(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with Run(tmp_path / "darcy-1").sinks("wandb") as sinks:
        sinks.take(record(0), ())
    assert (wandb[0][2]["mode"], wandb[0][2]["project"]) == ("disabled", "mine")


@pytest.fixture
def mlflow(monkeypatch):
    """A package mlflow, with runs by name as its server has them."""
    server = SimpleNamespace(uris=[], runs={}, calls=[])

    class MlflowClient:
        def __init__(self, tracking_uri):
            server.uris.append(tracking_uri)

        def get_experiment_by_name(self, name):
            return SimpleNamespace(experiment_id="0") if server.runs else None

        def create_experiment(self, name, artifact_location):
            server.calls.append(("create_experiment", (name, artifact_location), {}))
            return "0"

        def search_runs(self, experiments, filter_string):
            return [each for name, each in server.runs.items() if f"'{name}'" in filter_string]

        def create_run(self, experiment, run_name):
            return server.runs.setdefault(run_name, SimpleNamespace(info=SimpleNamespace(run_id=run_name)))

        def __getattr__(self, name):
            return lambda *arguments, **options: server.calls.append((name, arguments, options))

    entities, tracking = ModuleType("mlflow.entities"), ModuleType("mlflow.tracking")
    entities.Metric = entities.Param = lambda *values: values
    tracking.MlflowClient = MlflowClient
    for name, module in (
        ("mlflow", ModuleType("mlflow")),
        ("mlflow.entities", entities),
        ("mlflow.tracking", tracking),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    return server


@pytest.mark.parametrize("uri", [None, "http://127.0.0.1:5000"])
def test_mlflow_has_one_run_for_all_lives_of_a_run(tmp_path, mlflow, monkeypatch, uri):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run = Run(tmp_path / "darcy-1")
    for steps in ((0, 10), (10, 20)):
        with run.sinks("mlflow") as sinks:
            for step in steps:
                sinks.take(record(step), (worst_case(step),) if step == 20 else ())
    assert run.said == [] and list(mlflow.runs) == ["darcy-1"]
    assert mlflow.uris == [uri or f"sqlite:///{run.folder.path}/mlflow.db"] * 2
    place = None if uri else (run.folder.path / "mlflow").as_uri()
    assert mlflow.calls[0] == ("create_experiment", ("penstock", place), {})  # without a server nothing else is touched
    parameters = [each for _, _, options in mlflow.calls for each in options.get("params", ())]
    assert ("problem.name", "darcy") in parameters and len(parameters) == len(dict(parameters))
    metrics = [each for _, _, options in mlflow.calls for each in options.get("metrics", ())]
    assert [(step, ms) for name, _, ms, step in metrics if name == "training/loss"] == [
        (step, 1000 * (1_800_000_000 + step)) for step in (0, 10, 10, 20)
    ]
    (picture,) = [options["artifact_file"] for name, _, options in mlflow.calls if name == "log_image"]
    assert picture == "worst_case/000000020.png"
    ends = [arguments for name, arguments, _ in mlflow.calls if name == "set_terminated"]
    assert ends == [("darcy-1", "FINISHED")] * 2
