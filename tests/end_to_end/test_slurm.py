"""`penstock launch slurm`, through a real Slurm of several nodes on this machine."""

import json
import os
import time
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import TINY
from tests.support.slurm import require_slurm, slurm_nodes
from tests.support.waiting import wait_until

LONG_S = 400.0  # what a run may take on a busy machine
pytestmark = pytest.mark.timeout(600)

PROBLEM = """
import json
import os
import time
from pathlib import Path

import ray

from penstock.solvers.problems.steady.darcy import Darcy


class Traced(Darcy):
    def simulate(self, parameters, solve):
        left = [name for name in os.environ if name.startswith(("SLURM", "PMI"))]
        assert not left, left
        offered = {name: count for name, count in ray.cluster_resources().items() if name in ("CPU", "GPU", "learner")}
        Path(f"node-{os.getppid()}").write_text(json.dumps(offered))  # the parent of a node's workers is its raylet
        if Path("slow").exists():
            time.sleep(0.5)
        yield from super().simulate(parameters, solve)
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    require_slurm()
    with slurm_nodes(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


@pytest.fixture
def launch(cli, slurm):
    """Launches jobs for nodes as given; returns their run folders by the jobs' ids."""
    cli.environment |= slurm.environment
    (cli.folder / "traced.py").write_text(PROBLEM)
    cli.config.write_text(
        TINY.replace("PROBLEM", "{name: './traced.py:Traced', resolution: 16}").replace("MODEL", cli.kind.model)
    )
    before = session_folders()

    def launch(nodes: dict, *options: str) -> dict[str, Path]:
        (cli.folder / "site.yaml").write_text(yaml.safe_dump({"launch": {"slurm": nodes}}))
        result = cli.run("launch", "slurm", "tiny.yaml", "--site", "site.yaml", *options)
        assert result.returncode == 0, result.stderr
        *jobs, _ = (line.removeprefix("slurm job ").split(": ") for line in result.stdout.splitlines())
        return {job: cli.folder / run for job, run in jobs}

    yield launch
    wait_until(lambda: session_folders() <= before, LONG_S, every_s=0.3)


def session_folders() -> set[Path]:
    return {path for path in Path("/tmp").glob("penstock-??????") if path.stat().st_uid == os.getuid()}


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def wait_for_end(slurm, job: str, folder: Path) -> dict[str, str]:
    """What Slurm says of a job that has ended."""

    def facts() -> dict[str, str]:
        text = slurm("scontrol", "show", "job", "--oneliner", job).splitlines()[0]
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    try:
        wait_until(lambda: facts()["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), LONG_S, every_s=0.3)
    except AssertionError as error:
        raise AssertionError((folder / "logs" / "job.log").read_text()) from error
    return facts()


def has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("[0-9]*/"))


@pytest.mark.slow  # Ray on three nodes, one after the other, and an export
def test_a_learner_and_two_nodes_of_solvers(cli, slurm, launch):
    learner = {"partition": "gpu", "constraint": "gpu", "gres": "gpu:1", "cpus_per_node": 2}
    solvers = {"partition": "cpu", "nodes": 2, "cpus_per_node": 1}
    ((job, folder),) = launch({"learner": learner, "solvers": solvers}, "solver.workers=2").items()
    assert wait_for_end(slurm, job, folder)["ExitCode"] == "0:0", (folder / "logs" / "job.log").read_text()
    assert read(folder, "run.json")["state"] == "ended" and read(folder, "summary.json")
    nodes = [json.loads(path.read_text()) for path in cli.folder.glob("node-*")]
    assert nodes == [{"CPU": 3, "GPU": 1, "learner": 2}] * 2  # the allocation's; the learner's node keeps one
    row = cli.run("jobs").stdout.splitlines()[-1].split()
    assert row[:5] == [folder.name, "slurm", job, "gone", "ended"]
    assert cli.run("export").returncode == 0
    token = [line for line in (folder / "job.sbatch").read_text().splitlines() if "TOKEN" in line]
    assert all("urandom" in line or line.startswith("export RAY_AUTH_TOKEN ") for line in token)


@pytest.mark.slow  # two lives of a job, and Slurm looks at the time every 30 s
def test_a_job_whose_time_is_over_goes_on_by_itself_to_the_end(cli, slurm, launch):
    (cli.folder / "slow").touch()
    nodes = {"cpus_per_node": 2}
    ((job, folder),) = launch({"solvers": nodes}, "--requeue", "--walltime", "1:00:00", "solver.workers=1").items()
    wait_until(lambda: has_checkpoint(folder), LONG_S, every_s=0.3)
    begun = slurm("squeue", "--noheader", f"--jobs={job}", "--format=%S")
    elapsed_s = time.time() - time.mktime(time.strptime(begun, "%Y-%m-%dT%H:%M:%S"))
    slurm("scontrol", "update", f"JobId={job}", f"TimeLimit={int((elapsed_s + 40) // 60) + 1}")
    job_log = folder / "logs" / "job.log"
    wait_until(lambda: "goes back into the queue" in job_log.read_text(), LONG_S, every_s=0.3)
    assert read(folder, "run.json")["state"] == "stopped"
    (cli.folder / "slow").unlink()
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    facts = wait_for_end(slurm, job, folder)
    assert (facts["ExitCode"], facts["Restarts"]) == ("0:0", "1")
    assert read(folder, "run.json")["state"] == "ended"
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 150


@pytest.mark.slow  # two runs at once
def test_runs_of_several_seeds_share_a_node_and_end_each_by_itself(cli, slurm, launch):
    nodes = {"cpus_per_node": 2, "constraint": None, "memory": "2000"}
    (cli.folder / "slow").touch()
    options = ("--seeds", "2", "solver.workers=1", "launch.slurm.options=[--nodelist=solve1]")
    jobs = launch({"solvers": nodes}, *options)
    (cancelled, one), (stopped, two) = jobs.items()
    assert [job.partition("_")[2] for job in jobs] == ["0", "1"]
    for folder in jobs.values():
        wait_until(lambda folder=folder: has_checkpoint(folder), LONG_S, every_s=0.3)
    assert [read(folder, "run.json")["state"] for folder in jobs.values()] == ["running"] * 2
    assert cli.run("stop", two).stdout == f"slurm job {stopped} writes a checkpoint and ends\n"
    slurm("scancel", cancelled)
    (cli.folder / "slow").unlink()
    assert wait_for_end(slurm, stopped, two)["ExitCode"] == "143:0"
    assert read(two, "run.json")["cause"] == "stopped by SIGTERM"
    assert f"sbatch --array=1 {one}/job.sbatch" in cli.run("logs", two).stdout
    assert wait_for_end(slurm, cancelled, one)["JobState"] == "CANCELLED"
    assert len({read(folder, "run.json")["metrics"] for folder in jobs.values()}) == 2


def test_a_folder_whose_name_means_something_to_bash_and_to_slurm(cli, slurm, launch):
    cli.folder = cli.folder / 'it\'s 100% $(touch x) "q"; #1 %j'
    cli.folder.mkdir()
    (cli.folder / "tiny.yaml").write_text(TINY.replace("PROBLEM", cli.kind.problem).replace("MODEL", cli.kind.model))
    ((job, folder),) = launch({"solvers": {"cpus_per_node": 1}}, "launch.prologue=pwd; exit 5").items()
    assert wait_for_end(slurm, job, folder)["ExitCode"] == "5:0"
    assert (folder / "logs" / "job.log").read_text().splitlines()[0] == str(cli.folder)


def test_a_job_that_waits_is_withdrawn_and_one_that_is_refused_fails_in_a_line(cli, slurm, launch):
    ((job, folder),) = launch({"solvers": {"cpus_per_node": 2}, "options": ["--begin=now+1hour"]}).items()
    assert cli.run("stop").stdout == f"slurm job {job} was withdrawn\n"
    assert wait_for_end(slurm, job, folder)["JobState"] == "CANCELLED"
    result = cli.run("launch", "slurm", "tiny.yaml", "launch.slurm.solvers.partition=none")
    assert result.returncode == 2
    cli.assert_one_line(result, "Slurm's sbatch refuses:", "invalid partition specified: none")
    assert cli.read("run.json")["state"] == "failed"
