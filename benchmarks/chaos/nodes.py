"""A run on a cluster whose nodes are lost and cut off: `python -m benchmarks chaos --nodes`."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import psutil

from benchmarks.chaos.disturbed import AT_WORK
from benchmarks.chaos.faults import MOST_BETWEEN, bear_one
from benchmarks.chaos.machines import Machine, machines
from benchmarks.chaos.page import row_of
from benchmarks.chaos.run import WORKERS, Run
from benchmarks.report import footer, paragraph, require_folder, write
from penstock.errors import PenstockError
from penstock.machine import processor
from penstock.report import markdown

PORT = 6379
CUT_S = 30.0
SIMULATIONS = 1200
NODES = ("head", "learn", "solve1", "solve2")
# As deploy/slurm/job.sh has it for the Ray that a job starts.
RAY = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_health_check_failure_threshold": "7"}


class ClusterRun(Run):
    """A run whose driver is on the first of some machines, its learner on the second, a solver on each other.

    Args:
        folder: an empty folder.
        nodes: the machines.
        seed: seed of the run.
    """

    def __init__(self, folder: Path, nodes: list[Machine], seed: int):
        super().__init__(folder, SIMULATIONS, seed)
        self.nodes = nodes
        token = secrets.token_hex(32)
        self._settings = ["env", f"RAY_AUTH_TOKEN={token}", *(f"{name}={value}" for name, value in RAY.items())]
        text = (folder / "run.yaml").read_text().replace("timeout_s: 10, memory_mb: 500", "timeout_s: auto")
        (folder / "run.yaml").write_text(f'{text}cluster: {{address: "{nodes[0].address}:{PORT}"}}\n')

    def boot(self, node: Machine) -> None:
        """Boot a machine, and start Ray on it: the head on the first one."""
        node.kill()
        node.boot()
        head, learner = self.nodes[:2]
        options = [f"--temp-dir={self.temporary / node.name}", f"--node-ip-address={node.address}"]
        options += ["--object-store-memory=100000000", "--include-log-monitor=false"]
        if node is head:
            options += ["--head", f"--port={PORT}", "--include-dashboard=false", "--num-cpus=0"]
        else:
            options += [f"--address={head.address}:{PORT}", "--num-cpus=1"]
        options += ['--resources={"learner": 1}'] if node is learner else []
        shutil.rmtree(self.temporary / node.name, ignore_errors=True)
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start"]
        command = [*node.words(self.folder), *self._settings, *ray, *options]
        with (self.folder / "ray.txt").open("a") as output:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True)
        if node is head:
            self.wrapper = [*head.words(self.folder), *self._settings]

    def start_cluster(self) -> None:
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            self.boot(node)

    def actors(self) -> list[psutil.Process]:
        """The living processes of the learner and the solvers, on all machines."""
        living = [process for node in self.nodes for process in node.processes()]
        return [process for process in living if re.match("ray::(Learner|Solver)Actor", " ".join(process.cmdline()))]

    def solver(self, random: Random) -> Machine:
        """One of the machines with a solver."""
        return random.choice(self.nodes[2:])


def solver_cut_off(run: ClusterRun, random: Random) -> None:
    """The cable of a solver's node out for 30 s."""
    node = run.solver(random)
    _cut(node)
    file, healed = run.orders / f"{AT_WORK}{node.name}", time.time()
    run.wait_until(lambda: file.stat().st_mtime > healed, "another simulation on a node that was cut off")


def learner_cut_off(run: ClusterRun, random: Random) -> None:
    """The cable of the learner's node out for 30 s."""
    _cut(run.nodes[1])


def raylet_killed(run: ClusterRun, random: Random) -> None:
    """SIGKILL of a solver's raylet, then `ray start` on its node."""
    node, before = run.solver(random), run.count("worker died")
    next(each for each in node.processes() if each.name() == "raylet").kill()
    run.wait_until(lambda: run.count("worker died") > before, "the death of a worker")
    run.boot(node)


def node_lost(run: ClusterRun, random: Random) -> None:
    """All processes of a solver's node killed at once; it is booted again."""
    node, before = run.solver(random), run.count("worker died")
    node.kill()
    run.wait_until(lambda: run.count("worker died") > before, "the death of a worker")
    run.boot(node)


def learner_node_lost(run: ClusterRun, random: Random) -> None:
    """All processes of the learner's node killed at once; it is booted again."""
    before = run.count("learner restarted")
    run.nodes[1].kill()
    run.boot(run.nodes[1])
    run.wait_until(lambda: run.count("learner restarted") > before, "another learner")


def head_lost(run: ClusterRun, random: Random) -> None:
    """All processes of the head's and driver's node killed at once; a new cluster, and `penstock resume`."""
    run.nodes[0].kill()
    run.process.wait()
    run.start_cluster()
    run.resume()


KINDS: tuple[Callable[[ClusterRun, Random], None], ...] = (
    *(solver_cut_off, learner_cut_off, raylet_killed, node_lost, learner_node_lost, head_lost),
)


def run(seed: int) -> None:
    """Disturb a run with each kind of fault once, and print and write the table.

    Args:
        seed: of the order and of the run.

    Raises:
        PenstockError: namespaces can't be made, or the run lost something, left something, or did not end by itself.
    """
    require_folder()
    random, load = Random(seed), os.getloadavg()[0]
    kinds, rows, folder = random.sample(KINDS, len(KINDS)), {}, Path(tempfile.mkdtemp(prefix="chaos-"))
    with machines(NODES) as nodes:
        cluster = ClusterRun(folder, nodes, seed)
        try:
            cluster.start_cluster()
            cluster.begin()
            for kind in kinds:
                rows[kind] = bear_one(cluster, kind, random.randint(1, MOST_BETWEEN), random)
                print(f"{kind.__name__}: recovered in {rows[kind]:.1f} s", file=sys.stderr, flush=True)
            cluster.end()
            account, left = cluster.account(), [str(each) for each in cluster.actors()]
        finally:
            for node in nodes:
                node.kill()
            cluster.remove()
    if faults := account.faults() + [f"left: {what}" for what in left]:
        raise PenstockError(f"{'; '.join(faults)} (in {folder})", exit_code=1)
    shutil.rmtree(folder)
    table = markdown(
        [row_of(kind.__name__.replace("_", " "), kind.__doc__, [rows[kind]])[:4] for kind in KINDS],
        ["kind", "what is done", "times", "seconds"],
    )
    print(table)
    introduction = f"""
        A run of {SIMULATIONS} simulations on four machines, which are namespaces of one: the head of Ray with the
        driver, the learner, and {WORKERS} solvers. It ended by itself: 0 simulations lost, 0 counted twice, 0 failed,
        and no process of a solver or learner left. The seconds are those from the blow until both workers were ready
        and both samples and training steps had increased again; a cable is out for {CUT_S:.0f} s of them, and they
        include the start of Ray on what was booted again. Validation error: {account.error:.4f} after
        {account.steps} steps."""
    made_by = footer(
        f"python -m benchmarks chaos --nodes --seed {seed}",
        f"{processor()}, {os.cpu_count()} cores, load {load:.1f} at the start",
        f"Python {sys.version.split()[0]}",
    )
    write("chaos_nodes.md", "\n\n".join(["# Chaos on several nodes", paragraph(introduction), table, made_by]) + "\n")


def _cut(node: Machine) -> None:
    node.cut()
    time.sleep(CUT_S)
    node.heal()
