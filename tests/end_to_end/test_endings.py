"""Runs that are ended or held up from outside."""

import json
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
from penstock.orchestrator.history.why import why
from penstock.orchestrator.store.run_folder import RunFolder

LONG = "training.stop_after={steps: 100000}"


@pytest.mark.slow  # four starts of Ray
@pytest.mark.timeout(480)  # on a machine with many times as much to do as it has cores
def test_a_run_goes_on_without_gap_or_repeat_whatever_ended_it(cli):
    """SIGKILL, a full disk that left no buffer, SIGHUP. SIGTERM and SIGINT are in test_checkpoints.py."""
    # Killed before its first checkpoint, it begins again with the validation set that it had solved.
    process = cli.start("train", "tiny.yaml", LONG, "checkpoint.every_s=1000", "solver.strategy=auto")
    cli.wait_until(process, lambda record: record["step"] >= 10)
    process.kill()
    process.wait()
    folder = cli.latest
    time.sleep(3.0)  # Ray's processes notice
    result = cli.run("monitor")
    assert result.returncode == 1
    cli.assert_one_line(result, "is gone without a word", "resume runs/tiny-")

    # The kernel refuses the learner's writes beyond 2 kB per file, as a full disk does.
    process = cli.start("resume", "checkpoint.every_s=2", "checkpoint.buffer=false")
    cli.wait_until(process, lambda _: checkpoint.latest(folder / "checkpoints"))
    resource.prlimit(cli.read("run.json")["learner_pid"], resource.RLIMIT_FSIZE, (2_000, 2_000))
    result = cli.finish(process)
    assert result.returncode == 1
    cli.assert_one_line(result, "can't write the checkpoint of step", "the last one written is still valid")
    assert cli.read("run.json")["state"] == "failed"
    assert "Traceback" in (folder / "logs" / "driver.log").read_text()

    # Without the buffer it solves its simulations again. SIGHUP sent by hand, which ends it within 20 s: no terminal
    # was closed.
    newest = checkpoint.latest(folder / "checkpoints")
    assert not (folder / "checkpoints" / str(newest) / "buffer.safetensors").exists()
    began, process = time.time(), cli.start("resume", "checkpoint.buffer=true")
    events = folder / "events.jsonl"
    cli.wait_until(process, lambda record: record["time"] > began and record["step"] >= newest + 20)
    cli.wait_until(process, lambda _: "strategy chosen" in events.read_text())
    before = time.monotonic()
    process.send_signal(signal.SIGHUP)
    result = cli.finish(process, timeout_s=30)
    assert time.monotonic() - before < 20
    assert result.returncode == 129 and f"resumed at step {newest}" in result.stdout
    assert "penstock resume runs/tiny-" in result.stdout
    stopped, delivered = cli.read("summary.json"), set(cli.delivered_ids())
    assert stopped["dropped"] == 0 and stopped["validation"]["simulations"] == 16
    assert stopped["step"] >= newest + 20 and cli.read("run.json")["state"] == "stopped"
    cli.assert_every_simulation_once()

    num_before = len(cli.records())
    result = cli.run("resume", f"training.stop_after={{steps: {stopped['step'] + 20}}}", "--json")
    assert result.returncode == 0, result.stderr
    assert cli.latest == folder and f"resumed at step {stopped['step']}" in result.stdout
    resumed = cli.read("summary.json")
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    records = [line for line in printed if line.pop("kind") == "record"]
    assert records == cli.records()[num_before:] and printed[-1] == resumed
    assert records[-1]["ahead"]["until"] == "steps" and records[-1]["ahead"]["seconds"] == 0
    assert resumed["step"] == stopped["step"] + 20
    assert resumed["trained"] == stopped["trained"] + 20 * 8
    assert resumed["unique"] == len(cli.delivered_ids())
    assert delivered <= set(cli.delivered_ids())
    cli.assert_every_simulation_once()
    assert events.read_text().count("strategy chosen") == 1  # it is decided only once
    validation, _ = zarr_store.read(folder / "validation.zarr")
    saved = checkpoint.load(folder / "checkpoints")
    # their first values, because where points vary rows are padded to different lengths
    trained = {values.tobytes() for values in saved.buffer["arrays.targets"].flatten(1).numpy()[:, :100]}
    assert trained and not trained & {values[:100].tobytes() for values in validation["solution"].reshape(16, -1)}


def test_a_signal_while_ray_starts_ends_it(cli):
    process = cli.start("train", "tiny.yaml")
    while not (cli.folder / "runs" / "latest" / "run.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    result = cli.finish(process)  # Ray's start itself can take longer than 20 s on a loaded machine
    assert result.returncode == 143
    assert result.stderr.count("\n") <= 1 and "Traceback" not in result.stderr
    assert cli.read("run.json")["state"] == "stopped"
    result = cli.run("monitor")
    assert result.returncode == 0 and "stopped before there was anything to sum up" in result.stdout


@pytest.mark.slow  # 30 s of standing still, and two starts of Ray
@pytest.mark.timeout(480)  # on a machine with many times as much to do as it has cores
def test_a_learner_stalled_for_30_s_stays_in_its_memory_bound_and_a_run_whose_time_is_over_stops_by_itself(cli):
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
    cli.assert_every_simulation_once()

    # Whatever it has come to by then: on a machine with much else to do, it has not gone on with training.
    result = cli.run("resume", "cluster.walltime=25")
    assert result.returncode == 75, result.stderr
    run = cli.read("run.json")
    assert run["state"] == "stopped" and run["cause"].startswith("cluster.walltime: the end, ")
    assert f"{run['cause']}; go on with: " in result.stdout and "penstock resume runs/tiny-" in result.stdout
    if (cli.latest / "summary.json").exists():
        assert checkpoint.latest(cli.latest / "checkpoints") == cli.read("summary.json")["step"]
    cli.assert_every_simulation_once()


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
    assert "First, a process of Ray died at " in why(RunFolder(cli.latest))
    psutil.wait_procs(family, timeout=10.0)  # init may be slow to reap them
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert list(Path(gettempdir()).glob(f"penstock-{process.pid}-*")) == []
