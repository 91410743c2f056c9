"""`penstock generate`: rates, a store that survives kill -9, and training on it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial

import numpy as np
import pytest
import torch
import zarr

from penstock.errors import PenstockError, WorkerDied
from penstock.learner.stream.stream import InProcessStream
from penstock.messages import Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.cli.catalogue.show import show_problem
from penstock.orchestrator.cli.generate import generate
from penstock.orchestrator.cli.invocation import Invocation
from penstock.orchestrator.config.config import load_config
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.run import without_learner
from penstock.orchestrator.run.checks import require_startable
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.views.terminal.screen import Form
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.linear.iterative import petsc
from penstock.solvers.problem import RETRIED
from penstock.solvers.stored.samples import SampleStore
from tests.support.refusals import refusal
from tests.support.waiting import wait_until

PROBLEM = """
import time

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem


class Bump(Problem):
    '''From a height to a bump.'''

    def __init__(self, *, seconds: float = 0.0, fails: bool = False, highest: float = 3.0):
        self.seconds, self.fails, self.highest = seconds, fails, highest
        self.space = ParameterSpace(height=Uniform(1.0, 3.0, "m"))
        self.inputs = (FieldSpec(name="height", unit="m"),)
        self.outputs = (FieldSpec(name="u", on=Grid((16,)), unit="m"),)

    def simulate(self, parameters, solve):
        time.sleep(self.seconds)
        if self.fails:
            raise ValueError("no bump")
        if parameters["height"] > self.highest:
            raise ValueError("too high a bump")
        bump = np.sin(np.pi * (np.arange(16) + 0.5) / 16)
        yield Sample(inputs=parameters, outputs={"u": parameters["height"] ** 2 * bump})
"""
STOP = "training: {stop_after: {simulations: 300}, device: cpu, batch_size: 4}\nsolver: {workers: 1}\n"


@pytest.fixture
def bump(tmp_path):
    (tmp_path / "bump.py").write_text(PROBLEM)
    (tmp_path / "bump.yaml").write_text(f"problem: ./bump.py:Bump\nmodel: {{name: mlp}}\n{STOP}")
    return lambda *overrides: load_config(tmp_path / "bump.yaml", overrides)


def test_rates_shares_and_the_strategy_that_was_chosen_are_printed(tmp_path, capfd):
    (tmp_path / "mine.yaml").write_text(f"problem: {{name: poisson, resolution: 8}}\n{STOP}")
    generate(load_config(tmp_path / "mine.yaml"), 40, None)
    printed = capfd.readouterr().out
    assert re.search(r"^39 samples of the others in \S+ s: \S+ samples/s, \S+ MB/s$", printed, re.M)
    shares = [int(share) for share in re.findall(r"(\d+) %", re.search(r"^draw .*$", printed, re.M)[0])]
    assert len(shares) == 5 and 97 <= sum(shares) <= 103
    assert sum(map(int, re.findall(r"(\d+) by ", re.search(r"^systems: .*$", printed, re.M)[0]))) == 39


def test_the_samples_per_second_are_those_of_the_wall_clock(bump, capfd):
    start = time.perf_counter()
    generate(bump("problem.seconds=0.02"), 21, None)
    elapsed = time.perf_counter() - start
    rate = float(re.search(r"(\S+) samples/s", capfd.readouterr().out)[1])
    assert 20 / elapsed < rate < 1 / 0.02  # each simulation sleeps for 20 ms


def test_a_store_is_a_zarr_group_that_holds_the_draws_of_a_run(bump, tmp_path, capfd):
    path = tmp_path / "data" / "bumps.zarr"
    generate(bump("seed=7"), 30, path)
    printed = capfd.readouterr().out
    assert f"train on it with `problem: {{name: store, path: {path}, held_out: 15}}` and `validation: " in printed
    group = zarr.open_group(str(path), mode="r")
    assert group.attrs["card"]["parameters"] == {"height": "uniform on [1, 3] m"}
    assert group.attrs["origin"]["problem"] == "bump.py:Bump" and group.attrs["origin"]["seed"] == 7
    (shard,) = (group[name] for name in group if name.startswith("shard-"))
    worker = make_worker(resolve(bump("seed=7")))
    (chunk,) = worker.stream(Lease(number=0, simulations=tuple(range(30))))
    rows = np.argsort(shard["simulation"][:])
    np.testing.assert_array_equal(shard["u"][:][rows], chunk.arrays["targets"][:, 0])
    generate(bump("seed=7"), 30, path)
    assert "has all of 30 simulations: raise --num for more" in capfd.readouterr().out


KILLED = """
import sys
from pathlib import Path

from penstock.orchestrator.cli.generate import generate
from penstock.orchestrator.config.config import load_config
from penstock.solvers import worker
from penstock.orchestrator.solving import Solving
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.linear.iterative import petsc
from penstock.solvers.stored import samples

worker.CHUNK_SECONDS = samples.SHARD_SECONDS = 0.05
generate(load_config(Path(sys.argv[1]), ("problem.seconds=0.01",)), 1000, Path(sys.argv[2]))
"""


def test_after_kill_9_a_second_call_goes_on_and_repeats_nothing(bump, tmp_path, capfd):
    path = tmp_path / "bumps.zarr"
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "bump.yaml"), str(path)])
    wait_until(lambda: len(list(path.glob("shard-*/zarr.json"))) >= 3, timeout_s=30)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = SampleStore(path).finished
    assert 3 <= len(before) < 1000
    num = len(before) + 20
    generate(bump("problem.seconds=0.01"), num, path)
    assert f"{len(before)} of {num} simulations are in {path}" in capfd.readouterr().out
    store = SampleStore(path)
    rows = np.concatenate([store.read(shard)["simulation"] for shard in store.shards])
    assert sorted(rows) == list(range(num))


def test_what_is_missing_below_the_number_is_solved_whatever_lies_above(bump, tmp_path):
    path = tmp_path / "bumps.zarr"
    generate(bump(), 3, path)
    generate(bump(), 6, path)
    shutil.rmtree(path / "shard-000000")
    generate(bump(), 5, path)
    store = SampleStore(path)
    rows = np.concatenate([store.read(shard)["simulation"] for shard in store.shards])
    assert sorted(rows) == list(range(6))


@pytest.mark.parametrize("error", [WorkerDied("one of its 2 MPI ranks died"), ValueError("a defect")])
def test_what_was_solved_before_a_worker_died_is_in_the_store(bump, tmp_path, monkeypatch, error):
    class DyingWorker:
        def __init__(self, solving):
            self._worker = make_worker(solving)

        def stream(self, lease):
            yield from self._worker.stream(lease)
            if lease.number:
                raise error

    monkeypatch.setattr(without_learner, "make_worker", DyingWorker)
    path = tmp_path / "bumps.zarr"
    with pytest.raises(type(error), match=str(error)):
        generate(bump("solver.window=8"), 30, path)
    assert SampleStore(path).finished == set(range(9))


def test_a_store_holds_one_law_and_one_design_of_the_parameters(bump, tmp_path, capfd):
    path = tmp_path / "bumps.zarr"
    generate(bump(), 3, path)
    narrow, sobol = "problem.parameters={height: [1, 2]}", "problem.design=sobol"
    message = "was generated with other parameters ({}, not {'height': [1, 2]}): give another --output"
    assert message in refusal(generate, bump(narrow), 4, path)
    assert "another design ('monte_carlo', not 'sobol')" in refusal(generate, bump(sobol), 4, path)

    metadata = json.loads((path / "zarr.json").read_text())
    for key in ("parameters", "design"):  # as in stores that were written before these were recorded
        del metadata["attributes"]["origin"][key]
    (path / "zarr.json").write_text(json.dumps(metadata))
    assert "other parameters" in refusal(generate, bump(narrow), 4, path)
    assert "another design" in refusal(generate, bump(sobol), 4, path)
    generate(bump(), 4, path)
    assert SampleStore(path).finished == set(range(4))

    generate(bump(narrow, sobol), 2, tmp_path / "other.zarr")
    generate(bump(narrow, sobol), 4, tmp_path / "other.zarr")
    assert "another design ('sobol', not 'monte_carlo')" in refusal(generate, bump(narrow), 4, tmp_path / "other.zarr")


def test_a_surrogate_is_trained_on_a_store_and_predicts_draws_that_it_did_not_hold(bump, tmp_path):
    """u = h² sin πx: a store of 120 draws is read for two and a half epochs."""
    path = tmp_path / "bumps.zarr"
    generate(bump(), 140, path)
    store = ("problem={name: store, held_out: 20}", f"problem.path={path}", "validation.simulations=20")
    plan = resolve(bump(*store, "model.hidden=[32, 32]", "buffer.batches_per_simulation=1"))
    worker = make_worker(plan)
    torch.manual_seed(0)
    with closing(InProcessStream()) as stream:
        learner = plan.learner(stream)
        stream.submit(Lease(number=0, simulations=tuple(range(20)), design="validation"), worker)
        for number in range(5):
            stream.submit(Lease(number=1 + number, simulations=tuple(range(60 * number, 60 * (number + 1)))), worker)
        assert learner.run() == "stream ended"
    assert learner.status().account.unique == 300
    assert learner.status().training.validation["relative_l2"]["mean"] < 0.1
    (chunk,) = make_worker(resolve(bump("seed=1"))).stream(Lease(number=0, simulations=tuple(range(50))))
    truth = chunk.arrays["targets"]
    surrogate = learner.trainer.surrogate.eval()
    with torch.no_grad():
        predicted = surrogate(height=torch.from_numpy(chunk.arrays["scalars"][:, 0]))["u"].numpy()
    errors = np.linalg.norm(predicted - truth[:, 0], axis=1) / np.linalg.norm(truth[:, 0], axis=1)
    assert errors.mean() < 0.1


def test_what_can_t_be_generated_is_refused_in_one_line(bump, tmp_path):
    path = tmp_path / "bumps.zarr"
    assert "the first 8 simulations all failed: ValueError: no bump" in refusal(
        generate, bump("problem.fails=true"), 9, None
    )
    generate(bump(), 3, path)
    assert "was generated with another seed (0, not 1): give another --output" in refusal(
        generate, bump("seed=1"), 4, path
    )
    (tmp_path / "bump.py").write_text(PROBLEM.replace("** 2", "** 3"))
    assert "was generated with another source: give another --output" in refusal(generate, bump(), 4, path)
    (tmp_path / "file").touch()
    assert "can't write" in refusal(generate, bump(), 4, tmp_path / "file" / "bumps.zarr")
    assert "is no store of samples" in refusal(generate, bump(), 4, tmp_path)


def test_where_all_fail_one_line_is_printed_and_eight_are_tried(bump, capfd):
    message = refusal(generate, bump("problem.fails=true", "solver.window=64"), 300, None)
    assert "the first 8 simulations all failed: ValueError: no bump" in message
    (line,) = [line for line in capfd.readouterr().out.splitlines() if "failed" in line]
    assert line.startswith("simulation 0 failed: ValueError: no bump (") and line.endswith(
        "bump.py, line 24); `penstock --debug generate ...` shows tracebacks"
    )
    assert "all of 3 simulations failed" in refusal(generate, bump("problem.fails=true"), 3, None)


PROGRAM = """
import os
from penstock.solvers.external.client import Program
program = Program()
for number, parameters in enumerate(program):
    print("residual 1e-9", flush=True)
    if number == 1 and not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), 9)
    program.fail("no bump") if parameters["height"] < 1.5 else program.send(step=0, u=parameters["height"])
"""
SPEC = "parameters: {height: {law: uniform, low: 1, high: 3}}\ninputs: {height: {}}\noutputs: {u: {}}\n"


@pytest.mark.parametrize("debug", [False, True])
def test_what_an_external_program_prints_and_does_wrong(tmp_path, monkeypatch, capfd, debug):
    """Standard output holds JSON alone; a note reports the fault that the retry survived, without a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Invocation, "debug", debug)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "spec.yaml").write_text(SPEC)
    problem = f"{{name: external, command: {sys.executable} ./program.py, spec: spec.yaml}}"
    (tmp_path / "mine.yaml").write_text(f"problem: {problem}\nmodel: {{name: mlp}}\n{STOP}")
    generate(load_config(tmp_path / "mine.yaml"), 12, None, Form.JSON)
    out, err = capfd.readouterr()
    *notes, result = (json.loads(line) for line in out.splitlines())
    assert err.count("residual 1e-9") == 13
    command = f"{sys.executable} {tmp_path}/program.py"
    died, failed, *_ = (note["text"] for note in notes)
    assert died == f"simulation 1: {command} was ended by SIGKILL before its first sample; {RETRIED}"
    rest = "" if debug else "; `penstock --debug generate ...` names all that fail"
    assert re.fullmatch(rf"simulation \d+ failed: {re.escape(command)}: no bump{re.escape(rest)}", failed)
    assert 0 < result["failed"] < 12 and result["solved"] + result["failed"] == 12


def test_the_last_line_says_why_most_failed(bump, capfd):
    generate(bump("problem.highest=2.0"), 12, None)
    line = [line for line in capfd.readouterr().out.splitlines() if "failed" in line][-1]
    found = re.match(
        r"(\d+) of 12 simulations failed, all of them like simulation \d+: ValueError: too high a bump", line
    )
    assert found and 0 < int(found[1]) < 12


def test_the_command_prints_no_traceback(bump, tmp_path):
    command = [sys.executable, "-m", "penstock", "generate", str(tmp_path / "bump.yaml"), "--num", "9"]
    result = subprocess.run([*command, "problem.fails=true"], capture_output=True, text=True)
    assert result.returncode == 3 and result.stderr.count("\n") == 1
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("strategy", "complaint"),
    [
        ("{name: krylov, pc: multigrid}", "solver.strategy.pc = 'multigrid' needs a regular grid, and this system has"),
        ("{name: krylov, options: {foo: 1}}", "solver.strategy.options: PETSc's cg with icc has no 'foo'"),
    ],
)
def test_a_fault_of_the_configuration_is_named_as_such_at_the_first_solve(tmp_path, strategy, complaint):
    (tmp_path / "mine.yaml").write_text(f"problem: {{name: cook, resolution: 4}}\n{STOP}")
    config = load_config(tmp_path / "mine.yaml", (f"solver.strategy={strategy}",))
    with pytest.raises(PenstockError) as caught:
        generate(config, 9, None)
    assert str(caught.value).startswith(complaint) and caught.value.exit_code == 2


@pytest.mark.parametrize("strategy", [*STRATEGIES, *(f"{{name: {name}}}" for name in STRATEGIES)])
def test_every_strategy_can_be_named_with_its_defaults(tmp_path, strategy):
    (tmp_path / "mine.yaml").write_text(f"problem: {{name: darcy, resolution: 8}}\n{STOP}")
    solutions = []
    for named in (strategy, "direct"):
        config = load_config(tmp_path / "mine.yaml", (f"solver.strategy={named}", "solver.rtol=1e-8"))
        chunks = list(make_worker(Solving.of(config)).stream(Lease(number=0, simulations=(0, 1, 2))))
        order = np.concatenate([chunk.simulations for chunk in chunks])
        assert sorted(order) == [0, 1, 2]
        solutions.append(np.concatenate([chunk.arrays["targets"] for chunk in chunks])[np.argsort(order)])
    np.testing.assert_allclose(*solutions, rtol=1e-5)


def test_a_preconditioner_that_petsc_lacks_is_refused_before_anything_is_solved(tmp_path, monkeypatch):
    monkeypatch.setattr(petsc, "PRECONDITIONERS", (*petsc.PRECONDITIONERS, "no_such"))
    (tmp_path / "mine.yaml").write_text(f"problem: {{name: poisson, resolution: 8}}\n{STOP}")
    config = load_config(tmp_path / "mine.yaml", ("solver.strategy={name: krylov, pc: no_such}",))
    with pytest.raises(PenstockError, match=r"solver\.strategy\.pc = 'no_such' is not part of this build of PETSc"):
        make_worker(Solving.of(config))


def test_ranks_that_a_problem_does_not_take_are_refused_before_they_are_started(bump, monkeypatch):
    monkeypatch.setattr(without_learner, "make_worker", lambda solving: pytest.fail("it was started"))
    assert "solves on one rank: give 1" in refusal(generate, bump("solver.ranks=2"), 3, None)


@pytest.mark.parametrize("derivatives", [0, 2])
def test_a_derivative_s_cost_is_printed_against_a_solve(tmp_path, capfd, derivatives):
    problem = f"{{name: darcy, resolution: 6, medium: log_normal, derivatives: {derivatives}}}"
    (tmp_path / "mine.yaml").write_text(f"problem: {problem}\n{STOP}")
    generate(load_config(tmp_path / "mine.yaml", ("solver.strategy=direct",)), 6, None)
    line = r"^darcy: a further right-hand side of a matrix takes \d+ % of the first one's time$"
    assert bool(re.search(line, capfd.readouterr().out, re.M)) == (derivatives > 0)


@pytest.mark.parametrize("name", ["poisson_polygons", "square_with_holes"])
def test_meshes_by_gmsh_are_refused_where_it_is_missing_before_anything_is_solved(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "gmsh", None)
    (tmp_path / "mine.yaml").write_text(f"problem: {{name: {name}}}\n{STOP}")
    config = load_config(tmp_path / "mine.yaml")
    shown = tmp_path / "picture.png"
    for command in (
        partial(generate, config, 3, None),
        partial(require_startable, resolve(config)),
        partial(show_problem, name, (), shown),
    ):
        with pytest.raises(PenstockError, match=r"^problem\.name: .* pip install 'penstock\[geometry\]'") as caught:
            command()
        assert caught.value.exit_code == 2
