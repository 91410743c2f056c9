"""Runs that are broken on purpose."""

import json
import os
import re
import signal

import psutil
import pytest

from penstock.learner.checkpoints import checkpoint
from penstock.orchestrator.history.why import why
from penstock.orchestrator.store.run_folder import RunFolder


def line_of(cli, cause: str) -> str:
    """The line of a log that `penstock logs --why` names."""
    name, number = re.search(r"Its traceback: (logs/[\w.-]+), line (\d+)\.$", cause).groups()
    return (cli.latest / name).read_text().splitlines()[int(number) - 1]


def test_a_killed_worker_is_replaced_and_its_simulations_are_done_again(cli):
    """All 800 simulations end delivered, each once, although a worker is killed twice.

    They take 0.02 s at least, so that the run outlasts the starts of the workers that replace them.
    """
    process = cli.start(
        "train",
        "tiny.yaml",
        f"problem.name={cli.slow_problem(0.02)}",
        "training.stop_after={simulations: 800}",
        "solver.workers=2",
        "solver.strategy=auto",
    )
    killed = []
    for num_delivered in (60, 160):

        def two_more_live(record, least=num_delivered):
            alive = set(cli.read("run.json").get("solver_pids", {}).values()) - set(killed)
            return record["delivered"] >= least and len(alive) == 2

        cli.wait_until(process, two_more_live)
        killed.append(min(set(cli.read("run.json")["solver_pids"].values()) - set(killed)))
        os.kill(killed[-1], signal.SIGKILL)
    result = cli.finish(process)
    assert result.returncode == 0, result.stderr
    retried = cli.read("summary.json")["retried"]
    assert f"800 simulations delivered, 0 failed, {retried} retried; 800 unique samples" in result.stdout
    assert cli.delivered_ids() == list(range(800))
    events = (cli.latest / "events.jsonl").read_text()
    assert events.count("worker died") == 2 and events.count("worker started") == 4
    assert retried > 0
    expected = "it ended: all simulations are done and trained on. Before that solver-"
    assert expected in why(RunFolder(cli.latest))
    assert events.count("strategy chosen") == 1  # by one worker, for those too that came later
    (decision,) = cli.read("strategies.json").values()
    assert decision["reason"] in result.stdout
    assert result.stderr == "" and "raylet" not in result.stdout


@pytest.mark.slow  # two starts of Ray, and two more of the learner
@pytest.mark.timeout(480)  # on a machine with many times as much to do as it has cores
def test_a_killed_learner_is_replaced_while_the_solvers_wait_and_one_that_dies_at_once_ends_the_run(cli):
    """Killed twice, each time after a new checkpoint, then once before. No simulation is lost or doubled."""
    process = cli.start(
        *("train", "tiny.yaml", f"problem.name={cli.slow_problem(0.02)}", "training.stop_after={steps: 100000}"),
        *("solver.workers=2", "solver.strategy=auto", "checkpoint.every_s=1", "buffer.batches_per_simulation=null"),
    )
    folder, pids, solvers = cli.folder / "runs" / "latest" / "checkpoints", [], {}

    def may_be_killed(record):
        """It trains, has written a checkpoint, and is another one than those that were killed."""
        run = cli.read("run.json")
        solvers.update(run.get("solver_pids", {}))
        restarted = [event["step"] for event in cli.events() if event["event"] == "learner restarted"]
        newest = checkpoint.latest(folder) if folder.exists() else None
        is_new = newest is not None and newest > max(restarted, default=0)
        return is_new and len(restarted) == len(pids) and record["step"] > newest and len(solvers) == 2

    cli.wait_until(process, lambda _: "strategy chosen" in {event["event"] for event in cli.events()})
    for _ in range(2):
        cli.wait_until(process, may_be_killed, 300)
        pids.append(cli.read("run.json")["learner_pid"])
        os.kill(pids[-1], signal.SIGKILL)
    family = psutil.Process(process.pid).children(recursive=True)
    cli.wait_until(process, lambda record: cli.read("run.json")["learner_pid"] not in pids, 300)
    family.append(psutil.Process(cli.read("run.json")["learner_pid"]))
    family[-1].kill()
    result = cli.finish(process)
    assert result.returncode == 1
    cli.assert_one_line(result, "the learner's process died", "learner.log", "resume runs/tiny-")
    died, restarted = ([e for e in cli.events() if e["event"] == f"learner {what}"] for what in ("died", "restarted"))
    assert len(died) == 3 and [event["checkpoint"] for event in died[:2]] == [event["step"] for event in restarted]
    for event in restarted:
        line = f"another one goes on from the checkpoint of step {event['step']}, and the solvers wait for it"
        assert result.stdout.count(line) == 1
    assert cli.read("run.json")["solver_pids"] == solvers  # the same processes as before
    assert f"First, the learner died at {died[0]['time'][:23]}" in why(RunFolder(cli.latest))
    assert not {"worker died", "worker outgrown"} & {event["event"] for event in cli.events()}
    assert min(record[f"{what}_per_s"] for record in cli.records() for what in ("unique", "trained")) >= 0
    psutil.wait_procs(family, timeout=10.0)  # init may be slow to reap them
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []

    # ledger.json, written once per second, may be behind the checkpoint of a learner that lived for less.
    saved = json.loads((folder / f"{checkpoint.latest(folder)}" / "meta.json").read_text())["contents"]["meta"][
        "ingest"
    ]
    given = max(saved["delivered"][-1][1], *cli.delivered_ids())
    result = cli.run("resume", f"training.stop_after={{simulations: {given + 50}}}", timeout_s=300)
    assert result.returncode == 0, result.stderr
    summary = cli.read("summary.json")
    assert cli.delivered_ids() == list(range(given + 50)) and summary["unique"] == given + 50
    assert "worker died" not in {event["event"] for event in cli.events()}
    assert [event["event"] for event in cli.events()].count("strategy chosen") == 1


BROKEN_MODEL = """
import torch

num_steps = 0


class Broken(torch.nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, fields):
        global num_steps
        num_steps += self.training
        return (self.weight * fields).reshape(7, -1) if num_steps > NUM_GOOD else self.weight * fields
"""


@pytest.mark.darcy
def test_an_error_in_training_of_the_users_model_names_its_line(cli):
    """One that comes at once is met by the rehearsal: tests/orchestrator/test_parts.py."""
    (cli.folder / "mine.py").write_text(BROKEN_MODEL.replace("NUM_GOOD", "100"))
    (cli.folder / "mine.yaml").write_text(cli.config.read_text().replace(cli.kind.model, "./mine.py:Broken"))
    result = cli.run("train", "mine.yaml")
    assert result.returncode == 1
    cli.assert_one_line(result, "RuntimeError: shape '[7, -1]' is invalid", "mine.py, line 15", "learner.log")
    cause = why(RunFolder(cli.latest))
    assert "First, the learner raised an error: RuntimeError: shape '[7, -1]'" in cause
    assert line_of(cli, cause) == "Traceback (most recent call last):"


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["train", "tiny.yaml", "model.width=0"], 2, "penstock: model: fno: width must be at least 1, not 0"),
        (
            ["train", "tiny.yaml", "cluster.address=127.0.0.1:1"],
            2,
            "penstock: cluster.address: can't join a Ray cluster at '127.0.0.1:1'",
        ),
        (["trian"], 2, "No such command 'trian'"),
    ],
)
def test_bad_input_ends_the_process_with_its_code(cli, arguments, code, expected):
    """All else that is refused before Ray starts is in tests/orchestrator/cli/test_app.py, in one process."""
    result = cli.run(*arguments)
    assert result.returncode == code and expected in result.stderr and "Traceback" not in result.stderr


FAILING = """
from penstock.geometry import Grid
from penstock.layout import FieldSpec
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem


class Failing(Problem):
    '''A problem whose every solve fails.'''

    space = ParameterSpace(x=Uniform(0.0, 1.0))
    inputs = (FieldSpec(name="a", on=Grid((16, 16))),)
    outputs = (FieldSpec(name="u", on=Grid((16, 16))),)

    def simulate(self, parameters, solve):
        raise ArithmeticError("the mesh is inside out")
        yield
"""


@pytest.mark.darcy
def test_a_problem_whose_every_solve_fails_ends_with_the_first_cause(cli):
    (cli.folder / "failing.py").write_text(FAILING)
    result = cli.run("train", "tiny.yaml", "problem=./failing.py:Failing")
    assert result.returncode == 3
    cli.assert_one_line(result, "simulation 0: ArithmeticError: the mesh is inside out", "failing.py, line 16")
    assert "Traceback" in (cli.latest / "logs" / "solver-0.log").read_text()
    cause = why(RunFolder(cli.latest))
    assert "First, simulation 0 of the validation set failed" in cause and "the mesh is inside out" in cause
    assert line_of(cli, cause).endswith("simulation 0 of design 'validation' failed")
    event = next(event for event in cli.events() if event["event"] == "simulation failed")
    assert event["design"] == "validation" and event["reason"].startswith("ArithmeticError: the mesh is inside out")
    assert result.stdout.count("failed") == 1 and f": {event['reason']}; ledger.json has" in result.stdout
    reasons = cli.read("ledger.json")["validation_failed"]
    assert reasons[str(event["simulation"])] == event["reason"]
    for command in ("export", "predict"):
        cause = "failed before its first one: all of the first"
        cli.assert_one_line(cli.run(command), "has no checkpoint: the run", cause, "the mesh is inside out")


BAD_STARTS = """
import os, sys, time
from pathlib import Path

from penstock.solvers.problems.steady.darcy import Darcy


class BadStarts(Darcy):
    '''The first worker dies while it starts, the second one hangs.'''

    def __init__(self, *, resolution: int = 16):
        super().__init__(resolution=resolution)
        if "petsc4py" in sys.modules:  # a worker
            for attempt in ("crash", "hang"):
                if not Path({folder!r}, attempt).exists():
                    Path({folder!r}, attempt).touch()
                    if attempt == "hang":
                        time.sleep(3600)
                    print("libfoo.so: no licence left", flush=True)
                    os._exit(7)
"""
IMPATIENT = """
from penstock.orchestrator.cli import app as cli
from penstock.orchestrator.run import starting, workers

starting.START_WITHIN_S = workers.START_WITHIN_S = 20.0
cli.run()
"""


@pytest.mark.darcy
@pytest.mark.slow  # a worker is waited for for 20 s
def test_a_worker_that_dies_or_hangs_while_it_starts_is_named_with_its_last_words_and_replaced(cli):
    (cli.folder / "bad.py").write_text(BAD_STARTS.format(folder=str(cli.folder)))
    name = "problem.name=./bad.py:BadStarts"
    result = cli.finish(cli.start("train", "tiny.yaml", name, "training.stop_after={steps: 5}", script=IMPATIENT))
    assert result.returncode == 0, result.stderr
    assert "solver-0 died while starting: The actor died unexpectedly" in result.stdout
    assert "its log ends: libfoo.so: no licence left" in result.stdout
    assert "solver-1 died while starting: not ready after 20 s; its log ends: " in result.stdout
    died = [event["error"] for event in cli.events() if event["event"] == "worker died"]
    assert "no licence left" in died[0] and "not ready after 20 s" in died[1]
