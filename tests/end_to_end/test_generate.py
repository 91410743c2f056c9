"""Samples of workers that Ray starts without a learner: kept by `penstock generate`, and counted by a bench."""

import json
import os
import re
import signal

import numpy as np

from benchmarks import scaling
from penstock.solvers.stored.samples import SampleStore
from tests.support.waiting import wait_until

NUM = 400


def rows_of(path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Ids of the rows in order, and arrays in their order."""
    store = SampleStore(path)
    shards = [store.read(shard) for shard in store.shards]
    arrays = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    order = np.argsort(arrays["simulation"], kind="stable")
    return arrays["simulation"][order], {name: array[order] for name, array in arrays.items() if name != "simulation"}


def test_a_store_of_two_workers_is_that_of_one_although_one_is_killed(cli):
    """Simulations take 30 ms at least, so that the command outlasts the start of the worker that is killed."""
    accuracy = "solver.accuracy=1e-7"
    arguments = (f"problem.name={cli.slow_problem(0.03)}", "solver.workers=2", "solver.strategy=auto", accuracy)
    process = cli.start("generate", "tiny.yaml", "--num", NUM, "--output", "two.zarr", *arguments)

    def has_chosen_a_strategy() -> bool:
        assert process.poll() is None, process.communicate()
        return any('"strategy chosen"' in path.read_text() for path in cli.folder.glob("runs/tiny-*/events.jsonl"))

    wait_until(has_chosen_a_strategy, timeout_s=200)
    (folder,) = cli.folder.glob("runs/tiny-*")
    (name, pid), *_ = json.loads((folder / "run.json").read_text())["solver_pids"].items()
    os.kill(pid, signal.SIGKILL)
    result = cli.finish(process)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert f"2 solver workers, which log to {folder / 'logs'}" in result.stdout
    assert re.search(rf"^{name} died.*: ", result.stdout, re.M), result.stdout
    assert re.search(r"samples/s, \S+ MB/s$", result.stdout, re.M)
    shares = re.search(r"^draw .*; meanwhile write \d+ %$", result.stdout, re.M)[0].partition(";")[0]
    assert re.search(r"transport \d+ %$", shares)
    assert 97 <= sum(map(int, re.findall(r"(\d+) %", shares))) <= 103
    assert (folder / "logs" / "solver-2.log").exists() and not (cli.folder / "runs" / "latest").exists()

    again = cli.run("generate", "tiny.yaml", "--num", NUM, "--output", "two.zarr", *arguments)
    assert again.stdout == f"two.zarr has all of {NUM} simulations: raise --num for more\n"
    arguments = ("--num", NUM, "--output", "one.zarr", "solver.strategy=direct", accuracy, "--json")
    alone = cli.run("generate", "tiny.yaml", *arguments)
    assert alone.returncode == 0, alone.stderr
    counted = json.loads(alone.stdout.splitlines()[-1])
    assert counted["kind"] == "result" and counted["output"] == "one.zarr"
    assert counted["solved"] == NUM and counted["samples"] == NUM - 1 and counted["solved_by"]["direct"] == NUM - 1
    (ids, two), (_, one) = rows_of(cli.folder / "two.zarr"), rows_of(cli.folder / "one.zarr")
    np.testing.assert_array_equal(ids, np.arange(NUM))
    assert two.keys() == one.keys()
    for name, array in two.items():
        np.testing.assert_allclose(array, one[name], rtol=1e-5, atol=1e-6 * np.abs(one[name]).max())


def test_the_bench_of_two_workers_takes_what_they_send(monkeypatch):
    monkeypatch.setattr(scaling, "WARM_UP_S", 0.0)
    assert scaling.of_run("darcy", 1, seconds=0.2) > 0
