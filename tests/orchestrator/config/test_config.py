"""Complaints, overrides, the resolved configuration."""

from pathlib import Path

import pytest
import yaml

from penstock.errors import PenstockError
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.config.config import load_config
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store.run_folder import RunFolder

MINIMAL = {"problem": "darcy", "training": {"stop_after": {"steps": 10}}}


@pytest.fixture
def write(tmp_path):
    """A function that writes a configuration, given as values or as text, and returns its path."""

    def write(content):
        path = tmp_path / "run.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def complaint(path, *overrides) -> str:
    with pytest.raises(PenstockError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_and_overrides(write):
    config = load_config(
        write(MINIMAL), ("training.batch_size=8", "solver.strategy=krylov", "solver.strategy.pc=jacobi")
    )
    assert config.problem.name == "darcy" and config.buffer.kind.name == "reservoir"
    assert config.training.batch_size == 8
    assert config.solver.strategy.name == "krylov" and config.solver.strategy.options == {"pc": "jacobi"}


@pytest.mark.parametrize(
    ("key", "value"), [("solver.rtol", "1e-6"), ("solver.rtol", "1.0e-6"), ("problem.tolerance", "1e-6")]
)
def test_floats_without_a_dot_are_floats(write, key, value):
    config = load_config(write(MINIMAL), (f"{key}={value}",))
    section, name = key.split(".")
    section = getattr(config, section)
    assert (section.options[name] if section is config.problem else getattr(section, name)) == 1e-6


def test_unknown_keys_name_the_nearest_known_one(write):
    assert "trainin: unknown key; did you mean 'training'?" in complaint(write(MINIMAL | {"trainin": {}}))
    assert "solver.rtoll: unknown key; did you mean 'rtol'?" in complaint(write(MINIMAL), "solver.rtoll=1")
    text = complaint(write(MINIMAL), "training.stop_after.minute=1")
    assert "training.stop_after.minute: unknown key; did you mean 'minutes'?" in text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("solver.rtol=2", "solver.rtol = 2"),
        ("buffer.capacity=0", "buffer.capacity = 0"),
        ("buffer.kind=3", "buffer.kind = 3: give a name or {name: ..., option: value}"),
        ("solver.workers=-1", "solver.workers = -1: input should be greater than 0 or input should be 'auto'"),
        ("solver.workers=true", "solver.workers = True: input should be a valid integer or input should be 'auto'"),
        (
            "solver.workers={maxx: 2}",
            "solver.workers.max: missing; solver.workers.maxx: unknown key; did you mean 'max'?",
        ),
        ("solver.workers={min: 3, max: 2}", "solver.workers.max: it is below min = 3"),
        ("solver.workers={max: 2, reuse: 0}", "solver.workers.reuse = 0: input should be greater than 0"),
        ("solver.timeout_s={a: 1}", "solver.timeout_s: "),
        ("training.learning_rate=.inf", "training.learning_rate = inf: input should be a finite number"),
        ("seed=9223372036854775808", "seed = 9223372036854775808: input should be less than"),
        ("training.schedule=cosine", "training.schedule = 'cosine': give a section of `key: value` pairs"),
        ("training.schedule.step=10", "training.schedule.step: unknown key; did you mean 'steps'?"),
        ("training.loss=2", "training.loss = 2: give a name or {name: ..., option: value}"),
        ("buffer.draw=[pairs]", "buffer.draw = ['pairs']: give a name or {name: ..., option: value}"),
        ("metrics.port=99999", "metrics.port = 99999"),
        ("buffer.watermark=5000", "buffer: watermark = 5000 is above capacity = 1000"),
        ("training.batch_size=500", "training.batch_size = 500 is above buffer.watermark = 100"),
        ("training.stop_after={error: 0.1}", "training.stop_after: give minutes, steps, samples or simulations"),
        ("name=../escape", "name = '../escape'"),
        ("nonsense", "an override reads key=value"),
        ("solver.rtol.deeper=1", "rtol"),
        ("solver=[", "not valid YAML"),
    ],
)
def test_bad_values_are_named(write, override, expected):
    assert expected in complaint(write(MINIMAL | {"solver": {"rtol": 1e-8}}), override)


def test_missing_keys_are_named(write):
    text = complaint(write({"name": "x"}))
    assert "problem: missing" in text and "training: missing" in text


def test_files_that_are_no_configuration(write, tmp_path):
    assert "no such file" in complaint(tmp_path / "absent.yaml")
    assert "is a folder" in complaint(tmp_path)
    assert "is empty" in complaint(write(""))
    assert "this is a list" in complaint(write("- a\n- b\n"))
    assert "line 2" in complaint(write("problem: darcy\ntraining: a: b\n"))
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    assert "is not text" in complaint(tmp_path / "binary.yaml")
    (tmp_path / "control.yaml").write_bytes(b"a: \x00\x01\n")
    assert "not valid YAML" in complaint(tmp_path / "control.yaml")


def test_the_resolved_configuration_repeats_the_run(write, tmp_path, monkeypatch):
    """config.yaml of the run folder loads to the same run, with the user's file copied beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wave.py").write_text("class Wave: pass\n")
    config = load_config(write(MINIMAL | {"problem": {"name": "./wave.py:Wave", "speed": 2.0}}))
    assert config.problem.name == f"{tmp_path}/wave.py:Wave"
    folder = RunFolder.create(config)
    assert (folder.path / "problem_wave.py").read_text() == "class Wave: pass\n"
    again = folder.config()
    assert again.problem.name == f"{folder.path}/problem_wave.py:Wave" and again.problem.options == {"speed": 2.0}
    assert again.model_copy(update={"problem": config.problem}) == config
    assert (tmp_path / "runs" / "latest").resolve() == folder.path
    assert RunFolder.open(None).path == folder.path
    assert RunFolder.create(config).path != folder.path  # two runs in one second


def test_an_external_program_means_the_same_in_the_runs_folder(write, tmp_path, monkeypatch):
    """The spec is inside of the resolved configuration, and the program's path is absolute."""
    (tmp_path / "heat.yaml").write_text("parameters: {k: {law: uniform, low: 1e-3, high: 1}}\noutputs: {u: {}}\n")
    problem = {"name": "external", "command": "mpiexec -n 2 '../my solver' --fast", "spec": "heat.yaml"}
    config = load_config(write(MINIMAL | {"problem": problem, "model": "mlp"}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = RunFolder.create(resolve(config).config)
    (tmp_path / "heat.yaml").unlink()
    again = resolve(folder.config())
    assert again.problem.command == f"mpiexec -n 2 '{tmp_path.parent}/my solver' --fast"
    assert again.problem.space.distributions["k"].low == 1e-3
    assert again.config == resolve(config).config
    unended = load_config(write(MINIMAL | {"problem": problem | {"command": "./a 'b", "spec": {"outputs": {"u": {}}}}}))
    with pytest.raises(PenstockError, match=r"problem: command = .* can't be split into words"):
        resolve(unended).problem  # noqa: B018


def test_files_of_the_metrics_stay_where_they_are(write, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("secret")
    path = write(MINIMAL | {"metrics": {"token_file": "token"}})
    config = load_config(path, ("metrics.certificate=~/c.pem", "metrics.key=/k.pem"))
    monkeypatch.chdir(tmp_path)
    assert config.metrics.token_file == str(path.parent / "token")
    assert config.metrics.certificate == str(Path.home() / "c.pem") and config.metrics.key == "/k.pem"
    folder = RunFolder.create(config)
    assert folder.config().metrics == config.metrics
    assert not [file for file in folder.path.rglob("*") if file.is_file() and "secret" in file.read_text()]


def test_no_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PenstockError, match="there is no run under"):
        RunFolder.open(None)
    with pytest.raises(PenstockError, match="is not a run folder"):
        RunFolder.open(tmp_path)


def test_solutions_are_bounded_by_their_error_or_by_their_residual(write):
    solver = load_config(write(MINIMAL), ()).solver
    assert solver.strategy.name == "auto" and solver.accuracy == 1e-4 and solver.rtol is None
    solver = load_config(write(MINIMAL), ("solver.rtol=1e-6",)).solver
    assert solver.accuracy is None and solver.rtol == 1e-6
    assert "give accuracy" in complaint(write(MINIMAL), "solver.rtol=1e-6", "solver.accuracy=1e-3")


def test_what_accuracy_is_relative_to_reaches_every_solver(write):
    config = load_config(write(MINIMAL), ("solver.accuracy=1e-3", "solver.accuracy_of=deviation"))
    solvers = make_worker(resolve(config))._solvers
    assert {name: solver.tolerance.of_deviation for name, solver in solvers.items()} == dict.fromkeys(solvers, True)
    assert solvers["training"].tolerance.accuracy == 1e-3 > solvers["validation"].tolerance.accuracy
    assert "give accuracy with it" in complaint(write(MINIMAL), "solver.rtol=1e-6", "solver.accuracy_of=deviation")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("4:00:00", 14_400), ("'04:00:00'", 14_400), ("1-12:30:00", 131_400)]
)
def test_a_walltime_is_written_as_batch_systems_write_it(write, text, seconds):
    assert load_config(write(MINIMAL), (f"cluster.walltime={text}",)).cluster.walltime == seconds


def test_a_walltime_that_is_none_is_refused(write):
    assert "cluster.walltime: give seconds, h:mm:ss as 4:00:00" in complaint(write(MINIMAL), "cluster.walltime=4h")
    assert "cluster.walltime = 0" in complaint(write(MINIMAL), "cluster.walltime=0")
