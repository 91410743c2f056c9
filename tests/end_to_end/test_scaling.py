"""Workers that come and go: by `penstock scale`, and with the nodes of a cluster."""

import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import wait_until

TOKEN = "0123456789abcdef" * 4
PACED = """
import time
from pathlib import Path

from penstock.solvers.problems.{module} import {name}


class Paced({name}):
    def simulate(self, parameters, solve):
        if Path({pace!r}).exists():  # until the test has seen what it is about
            time.sleep(0.3)
        yield from super().simulate(parameters, solve)
"""
NODES = """
import sys
from pathlib import Path

from penstock.orchestrator.cluster.ray_session import _patience
from ray._private.utils import get_ray_address_file
from ray.cluster_utils import Cluster

Path(get_ray_address_file(None)).parent.mkdir(exist_ok=True)  # the cluster writes its address there, wherever it is
cluster, nodes = Cluster(), []
for line in sys.stdin:
    command, number = line.split()
    if command == "add":
        # The others have separate addresses, so that a driver takes the head for its node.
        options = {"node_ip_address": f"127.0.0.{1 + len(nodes)}"} if nodes else {"temp_dir": sys.argv[1]}
        options |= {"num_cpus": int(number), "include_dashboard": False, "object_store_memory": 80 * 2**20}
        with _patience():
            nodes.append(cluster.add_node(**options))
    else:
        cluster.remove_node(nodes[int(number)], allow_graceful=False)  # SIGKILL of its raylet
    print("done", cluster.address, flush=True)
"""


@pytest.fixture
def paced(cli):
    """Overrides for 400 simulations of 0.3 s, and the file whose end lets them go faster."""
    pace = cli.folder / "pace"
    pace.touch()
    module, name = cli.kind.source
    (cli.folder / "paced.py").write_text(PACED.format(module=module, name=name, pace=str(pace)))
    limits = ("solver.window=4", "validation.simulations=4", "training.stop_after={simulations: 400}")
    return ("problem.name=./paced.py:Paced", *limits), pace


class Nodes:
    """Ray nodes in processes below one of ours."""

    def __init__(self, cli):
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the paths of Ray's sockets must be
        cli.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", NODES, self.folder],
            env=cli.environment,
            stdin=pipe,
            stdout=pipe,
            stderr=(self.folder / "err.txt").open("w"),
            text=True,
        )

    def do(self, command: str, number: int) -> str:
        """Add a node with that many CPUs, or kill one; returns the head's address."""
        print(command, number, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("done "):
                return line.split()[1]
        raise AssertionError((self.folder / "err.txt").read_text())

    def close(self) -> None:
        for member in [self.process, *psutil.Process(self.process.pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def nodes(cli):
    nodes = Nodes(cli)
    yield nodes
    nodes.close()


def names(cli, event: str) -> list[str]:
    return [each["worker"] for each in cli.events() if each["event"] == event]


@pytest.mark.slow  # three workers start, of which each takes some seconds of CPU, and three more commands
def test_a_run_is_scaled_from_one_worker_to_three_and_back(cli, paced):
    overrides, pace = paced
    process = cli.start("train", "tiny.yaml", *overrides)
    cli.wait_until(process, lambda record: record["workers"] == 1 and record["delivered"] > 0)
    asked = cli.run("scale", "--solvers", "3")
    assert asked.stdout == f"asked {cli.latest.name} for 3 solver workers: it answers where it prints\n", asked.stderr
    cli.wait_until(process, lambda record: record["workers"] == 3)
    cli.run("scale", "runs/latest", "--solvers", "1")
    cli.wait_until(process, lambda record: record["workers"] == 1)
    pace.unlink()
    result = cli.finish(process)
    assert result.returncode == 0, result.stderr
    assert "1 solver worker, 2 learner threads" in result.stdout
    assert "\n3 solver workers, 1 before (penstock scale); in flight now at most " in result.stdout
    assert "\n1 solver worker, 3 before (penstock scale)\n" in result.stdout
    assert cli.delivered_ids() == list(range(400))
    summary = cli.read("summary.json")
    assert summary["unique"] == 400 and summary["dropped"] == summary["retried"] == 0  # nothing was solved twice
    assert sorted(names(cli, "worker started")) == ["solver-0", "solver-1", "solver-2"]
    assert len(names(cli, "worker retired")) == 2 and not names(cli, "worker died")
    scaled = [(each["before"], each["workers"]) for each in cli.events() if each["event"] == "workers scaled"]
    assert scaled == [(1, 3), (3, 1)]
    late = cli.run("scale", "--solvers", "2")
    assert late.returncode == 2
    cli.assert_one_line(late, f"{cli.latest.name} is not running: give solver.workers=2 where it is started or resumed")


@pytest.mark.slow  # two nodes and a third one start, which takes Ray 5 s each
def test_nodes_come_and_go(cli, paced, nodes):
    """The learner's node has two CPUs, and two other nodes one each, one after the other."""
    overrides, pace = paced
    address = [nodes.do("add", cpus) for cpus in (2, 1)][-1]
    process = cli.start("train", "tiny.yaml", f"cluster.address={address}", "solver.workers=auto", *overrides)
    cli.wait_until(process, lambda record: record["workers"] == 2 and record["delivered"] > 0)
    nodes.do("kill", 1)
    wait_until(lambda: names(cli, "worker died"), timeout_s=100)
    nodes.do("add", 1)
    wait_until(lambda: len(names(cli, "worker started")) == 3, timeout_s=100)
    pace.unlink()
    result = cli.finish(process)
    assert result.returncode == 0, result.stderr
    assert "3 CPUs of 2 nodes: 2 solver workers, " in result.stdout
    assert cli.delivered_ids() == list(range(400))
    assert cli.read("summary.json")["unique"] == 400
    (dead,) = names(cli, "worker died")
    assert dead in ("solver-0", "solver-1") and names(cli, "worker started")[-1] == "solver-2"
