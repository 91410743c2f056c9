"""Runs that are broken on purpose."""

import os
import resource
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import gettempdir

import psutil
import pytest

from penstock.arrays import zarr_store
from penstock.learner.checkpoints import checkpoint

LONG = "training.stop_after={steps: 100000}"


def delivered_ids(ledger: dict) -> list[int]:
    return [i for start, end in ledger["delivered"] for i in range(start, end)]


def assert_every_simulation_once(ledger: dict) -> None:
    leased = [i for ids in ledger["leased"].values() for i in ids]
    everything = delivered_ids(ledger) + [int(i) for i in ledger["failed"]] + leased + ledger["returned"]
    assert sorted(everything) == list(range(len(everything)))


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
    assert delivered_ids(cli.read("ledger.json")) == list(range(800))
    events = (cli.latest / "events.jsonl").read_text()
    assert events.count("worker died") == 2 and events.count("worker started") == 4
    assert retried > 0
    assert events.count("strategy chosen") == 1  # by one worker, for those too that came later
    (decision,) = cli.read("strategies.json").values()
    assert decision["reason"] in result.stdout
    assert result.stderr == "" and "raylet" not in result.stdout


def test_a_stopped_run_goes_on_without_gap_or_repeat(cli):
    """Stopped by SIGINT; SIGTERM is in test_checkpoints.py."""
    process = cli.start("train", "tiny.yaml", LONG)
    cli.wait_until(process, lambda record: record["step"] >= 40)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    result = cli.finish(process, timeout_s=30)
    assert time.monotonic() - before < 20
    assert result.returncode == 130, result.stderr
    assert "penstock resume runs/tiny-" in result.stdout
    stopped, ledger = cli.read("summary.json"), cli.read("ledger.json")
    assert_every_simulation_once(ledger)
    assert stopped["step"] >= 40 and cli.read("run.json")["state"] == "stopped"

    folder = cli.latest
    result = cli.run("resume", f"training.stop_after={{steps: {stopped['step'] + 40}}}")
    assert result.returncode == 0, result.stderr
    assert cli.latest == folder and f"resumed at step {stopped['step']}" in result.stdout
    resumed, ledger_after = cli.read("summary.json"), cli.read("ledger.json")
    assert resumed["step"] == stopped["step"] + 40
    assert resumed["trained"] == stopped["trained"] + 40 * 8
    assert resumed["unique"] == len(delivered_ids(ledger_after)) > stopped["unique"] - 1
    assert set(delivered_ids(ledger)) <= set(delivered_ids(ledger_after))
    assert_every_simulation_once(ledger_after)
    steps = [record["step"] for record in cli.records() if record["step"]]
    assert steps == sorted(steps)


def test_a_signal_while_ray_starts_ends_it(cli):
    process = cli.start("train", "tiny.yaml")
    while not (cli.folder / "runs" / "latest" / "run.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    result = cli.finish(process, timeout_s=20)
    assert result.returncode == 143
    assert result.stderr.count("\n") <= 1 and "Traceback" not in result.stderr
    assert cli.read("run.json")["state"] == "stopped"
    result = cli.run("monitor")
    assert result.returncode == 0 and "stopped before there was anything to sum up" in result.stdout


def test_without_the_buffer_a_resumed_run_solves_its_simulations_again(cli):
    process = cli.start("train", "tiny.yaml", LONG, "checkpoint.buffer=false", "solver.strategy=auto")
    cli.wait_until(process, lambda record: record["step"] >= 30)
    process.send_signal(signal.SIGHUP)  # sent by hand: no terminal was closed
    assert cli.finish(process).returncode == 129
    (checkpoint,) = (
        path for path in (cli.latest / "checkpoints").glob("[0-9]*") if (path / "optimizer.safetensors").exists()
    )
    assert not (checkpoint / "buffer.safetensors").exists()
    stopped = cli.read("summary.json")
    result = cli.run("resume", f"training.stop_after={{steps: {stopped['step'] + 20}}}")
    assert result.returncode == 0, result.stderr
    ledger = cli.read("ledger.json")
    assert_every_simulation_once(ledger)
    assert cli.read("summary.json")["unique"] == len(delivered_ids(ledger))
    assert (cli.latest / "events.jsonl").read_text().count("strategy chosen") == 1  # nor is it decided again


@pytest.mark.slow  # 30 s of standing still
def test_a_learner_stalled_for_30_s_stays_in_its_memory_bound(cli):
    """Takes 30 s because the guarantee names them. The stalled learner is a stopped process: nothing in it runs.

    The solver makes over 5 MB a second, so in 30 s an unbounded stream would hold several times what is allowed.
    """
    process = cli.start(
        "train",
        "tiny.yaml",
        LONG,
        "problem.resolution=64",
        "solver.strategy=direct",
        "buffer.kind=fifo",
        "buffer.batches_per_simulation=null",
        "buffer.capacity=600",
    )
    cli.wait_until(process, lambda record: record["step"] >= 20)
    run = cli.read("run.json")
    processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]

    def memory() -> int:
        """Proportional set size of all but files: what processes share, the object store above all, counts once, and
        libraries don't count, which runs beside this one share and let go of."""
        total = 0
        for process in processes:
            with suppress(OSError):  # one of Ray's that had its time
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
                total += sum(
                    1024 * int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem"))
                )
        return total

    before, peak = memory(), 0
    os.kill(run["learner_pid"], signal.SIGSTOP)
    for _ in range(30):
        time.sleep(1.0)
        peak = max(peak, memory())
    os.kill(run["learner_pid"], signal.SIGCONT)
    assert peak - before < run["data_bytes"]
    step = cli.records()[-1]["step"]
    cli.wait_until(process, lambda record: record["step"] >= step + 20)
    os.killpg(process.pid, signal.SIGTERM)  # Ray's processes too, as `timeout` and batch systems do
    result = cli.finish(process)
    assert result.returncode == 143 and "penstock resume runs/tiny-" in result.stdout, result.stderr
    assert cli.read("run.json")["state"] == "stopped"
    assert_every_simulation_once(cli.read("ledger.json"))


def test_a_full_disk_at_a_checkpoint_is_one_line_and_keeps_the_last_one(cli):
    """The kernel refuses the learner's writes beyond 20 kB a file, as a full disk does, after the first checkpoint."""
    process = cli.start("train", "tiny.yaml", LONG, "checkpoint.every_s=2")
    cli.wait_until(process, lambda record: any((cli.latest / "checkpoints").glob("[1-9]*")))
    resource.prlimit(cli.read("run.json")["learner_pid"], resource.RLIMIT_FSIZE, (20_000, 20_000))
    result = cli.finish(process)
    assert result.returncode == 1
    cli.assert_one_line(result, "can't write the checkpoint of step", "the last one written is still valid")
    assert cli.read("run.json")["state"] == "failed"
    assert "Traceback" in (cli.latest / "logs" / "driver.log").read_text()
    result = cli.run("resume", "training.stop_after={steps: 60}")
    assert result.returncode == 0, result.stderr


def test_a_learner_that_does_not_answer_can_not_hold_up_the_end(cli):
    process = cli.start("train", "tiny.yaml", LONG)
    cli.wait_until(process, lambda record: record["step"] >= 10)
    os.kill(cli.read("run.json")["learner_pid"], signal.SIGSTOP)
    before = datetime.now(UTC)
    process.send_signal(signal.SIGTERM)
    result = cli.finish(process, timeout_s=40)
    assert result.returncode == 143 and "resume" in result.stdout
    (ended,) = (event for event in cli.events() if event["event"] == "ended")
    assert datetime.fromisoformat(ended["time"]) - before < timedelta(seconds=20)


def test_a_killed_driver_loses_nothing_and_trains_on_no_validation_sample(cli):
    """Killed before its first checkpoint, the run begins again with the validation set that it had solved."""
    process = cli.start("train", "tiny.yaml", LONG, "checkpoint.every_s=1000")
    cli.wait_until(process, lambda record: record["step"] >= 10)
    process.kill()
    process.wait()
    time.sleep(3.0)  # Ray's processes notice
    result = cli.run("monitor")
    assert result.returncode == 1
    cli.assert_one_line(result, "is gone without a word", "resume runs/tiny-")
    result = cli.run("resume", "training.stop_after={steps: 60}")
    assert result.returncode == 0, result.stderr
    summary = cli.read("summary.json")
    assert summary["dropped"] == 0 and summary["validation"]["simulations"] == 16
    validation, _ = zarr_store.read(cli.latest / "validation.zarr")
    saved = checkpoint.load(cli.latest / "checkpoints")
    # their first values, because where points vary rows are padded to different lengths
    trained = {values.tobytes() for values in saved.buffer["arrays.targets"].flatten(1).numpy()[:, :100]}
    assert trained and not trained & {values[:100].tobytes() for values in validation["solution"].reshape(16, -1)}
    assert_every_simulation_once(cli.read("ledger.json"))


def test_a_run_outlives_its_reader(cli):
    """`penstock train ... | head -1`: the view goes quiet, the run goes on."""
    process = cli.start("train", "tiny.yaml", "training.stop_after={steps: 30}")
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    result = cli.finish(process)
    assert result.returncode == 0, result.stderr
    assert cli.read("run.json")["state"] == "ended" and cli.read("summary.json")["step"] == 30


def test_a_full_disk_for_the_driver_is_one_line_too(cli):
    process = cli.start("train", "tiny.yaml", LONG)
    cli.wait_until(process, lambda record: record["step"] >= 5)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
    result = cli.finish(process)
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]  # Ray's native log may have complained before
    assert line.startswith("penstock: can't write ") and "the last checkpoint is still valid" in line


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
@pytest.mark.parametrize(
    ("num_good", "code", "where"),
    [(0, 2, "model: a training step on 8 samples fails"), (100, 1, "learner.log")],
    ids=["at once, which the rehearsal meets", "later"],
)
def test_an_error_in_training_of_the_users_model_names_its_line(cli, num_good, code, where):
    (cli.folder / "mine.py").write_text(BROKEN_MODEL.replace("NUM_GOOD", str(num_good)))
    (cli.folder / "mine.yaml").write_text(cli.config.read_text().replace(cli.kind.model, "./mine.py:Broken"))
    result = cli.run("train", "mine.yaml")
    assert result.returncode == code
    cli.assert_one_line(result, "RuntimeError: shape '[7, -1]' is invalid", "mine.py, line 15", where)
    if code == 1:
        assert "Traceback" in (cli.latest / "logs" / "learner.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tiny.yaml", "training.batch_sise=4"], "training.batch_sise: unknown key; did you mean 'batch_size'?"),
        (["empty.yaml"], "empty.yaml is empty"),
        (["binary.yaml"], "binary.yaml is not text"),
        (["broken.yaml"], "broken.yaml, line 2"),
        (["."], "is a folder"),
        (["tiny.yaml", "problem.name=darci"], "problem.name: there is no 'darci'; did you mean 'darcy'?"),
        (["tiny.yaml", "problem.resolutoin=8"], "problem.resolutoin: unknown key; did you mean 'resolution'?"),
        (["tiny.yaml", "solver.strategy=gcrodrr"], "solver.strategy: there is no 'gcrodrr'; did you mean 'gcrodr'?"),
        (["tiny.yaml", "solver.strategy.pc=jakobi"], "'jakobi' is not known; did you mean 'jacobi'?"),
        (["tiny.yaml", "cluster.address=127.0.0.1:1"], "cluster.address: can't join a Ray cluster at '127.0.0.1:1'"),
        (["tiny.yaml", "model.width=0"], "width"),
        (["tiny.yaml", "model.modes=50"], "modes"),
        (["tiny.yaml", "training.device=cuda:99"], "training.device: 'cuda:99' was asked for and torch sees"),
        (["tiny.yaml", "training.device=gpu"], "training.device: there is no 'gpu'"),
        (["tiny.yaml", "buffer.placement=device"], "buffer.placement: 'device' was asked for and training runs on the"),
    ],
)
def test_bad_input_is_one_line(cli, arguments, expected):
    (cli.folder / "empty.yaml").write_text("")
    (cli.folder / "binary.yaml").write_bytes(bytes(range(256)))
    (cli.folder / "broken.yaml").write_text("name: x\nproblem: a: b\n")
    result = cli.run("train", *arguments)
    assert result.returncode == 2
    cli.assert_one_line(result, expected)


def test_a_port_in_use_is_one_line(cli):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli.run("train", "tiny.yaml", f"metrics.port={port}")
    assert result.returncode == 2
    cli.assert_one_line(result, f"metrics.port: {port} is in use")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train"], "Missing argument"),
        (["trian"], "No such command 'trian'"),
        (["train", "tiny.yaml", "--bogus"], "No such option: --bogus"),
        (["predict", "--num", "0"], "Invalid value for '--num'"),
    ],
)
def test_a_misused_command_says_how_to_use_it(cli, arguments, expected):
    result = cli.run(*arguments)
    assert result.returncode == 2
    assert expected in result.stderr and "Usage: " in result.stderr and "Traceback" not in result.stderr


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
    event = next(event for event in cli.events() if event["event"] == "simulation failed")
    assert event["design"] == "validation" and event["reason"].startswith("ArithmeticError: the mesh is inside out")
    assert result.stdout.count("failed") == 1 and f": {event['reason']}; ledger.json has" in result.stdout
    reasons = cli.read("ledger.json")["validation_failed"]
    assert reasons[str(event["simulation"])] == event["reason"]
    for command in ("export", "predict"):
        cause = "failed before its first one: all of the first"
        cli.assert_one_line(cli.run(command), "has no checkpoint: the run", cause, "the mesh is inside out")


def test_commands_without_a_run_are_one_line(cli):
    for command in ("monitor", "export", "predict", "resume"):
        result = cli.run(command)
        assert result.returncode == 2
        cli.assert_one_line(result, "there is no run under")
        result = cli.run(command, "absent")
        assert result.returncode == 2
        cli.assert_one_line(result, "absent is not a run folder")


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
from penstock.orchestrator.run import workers

workers.START_WITHIN_S = 20.0
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


def test_ray_without_its_control_service_ends_the_run_with_its_name_and_leaves_nothing(cli):
    """By itself Ray ends the driver after 60 s, blames nobody in run.json, and leaves its agents and its folder."""
    process = cli.start("train", "tiny.yaml", LONG, "checkpoint.every_s=1")
    cli.wait_until(process, lambda record: any((cli.latest / "checkpoints").glob("[1-9]*")))
    family = psutil.Process(process.pid).children(recursive=True)
    (service,) = (child for child in family if child.name() == "gcs_server")
    service.kill()
    result = cli.finish(process)
    assert result.returncode == 1
    cli.assert_one_line(
        result, f"Ray's control service (gcs_server) (pid {service.pid}) died", "go on with: ", "logs/ray"
    )
    assert cli.read("run.json")["state"] == "failed"
    assert cli.read("run.json")["cause"] == result.stderr.removeprefix("penstock: ").rstrip()
    assert "gcs_server" in cli.events()[-1]["cause"]
    psutil.wait_procs(family, timeout=10.0)  # init may be slow to reap them
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert list(Path(gettempdir()).glob(f"penstock-{process.pid}-*")) == []
