"""What a Slurm job asks for and does, with stand-ins for Slurm's commands.

tests/end_to_end/test_slurm.py has a real Slurm.
"""

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import load_config
from penstock.orchestrator.launch import launching, slurm
from penstock.orchestrator.launch.job import Job, State
from penstock.orchestrator.launch.slurm import Slurm
from penstock.orchestrator.store.run_folder import RunFolder

ROOT = Path(__file__).parents[3]
BODY = ROOT / "deploy" / "slurm" / "job.sh"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Makes stand-ins for commands; no others of Slurm's are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "sleep", "sed", "awk", "grep", "head", "od", "tr", "ls", "cat", "rm", "date", "getent"):
        (folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)

    return make


def script(config, *overrides: str, num_seeds: int = 1) -> str:
    return launching.dry_run(load_config(config, overrides), "slurm", num_seeds)


def asked_for(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


def test_a_job_asks_for_what_the_configuration_says(config, command):
    site = ("account=a1", "qos=long", "time=1:30:00", "requeue=true", "options=[--reservation=course]")
    nodes = "{nodes: 3, cpus_per_node: 32, memory: 64G, partition: cpu, constraint: rome&fast}"
    options = asked_for(script(config, *(f"launch.slurm.{each}" for each in site), f"launch.slurm.solvers={nodes}"))
    assert {"--account=a1", "--qos=long", "--time=0-01:30:00", "--requeue", "--reservation=course"} <= set(options)
    assert {"--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=32", "--mem=64G"} <= set(options)
    assert {"--partition=cpu", "--constraint='rome&fast'", "--no-kill", "--signal=B:USR1@60"} <= set(options)
    assert "--open-mode=append" in options and "hetjob" not in options


def test_separate_nodes_for_the_learner_come_first(config):
    options = asked_for(script(config, "launch.slurm.learner={gres: gpu:1, exclusive: true}", "launch.slurm.qos=q"))
    learner, solvers = options[: options.index("hetjob")], options[options.index("hetjob") + 1 :]
    assert {"--gres=gpu:1", "--exclusive", "--mem=0"} <= set(learner)
    assert not any(option.startswith("--cpus-per-task") for option in learner)
    assert "--cpus-per-task=8" in solvers and "--exclusive" not in solvers
    assert "--qos=q" in learner and "--qos=q" in solvers
    assert [option for option in options if option.startswith("--output")] == options[:1]


def test_only_jobs_with_whole_nodes_have_ray_watch_their_memory(config):
    assert "RAY_memory_monitor_refresh_ms=0" in script(config)
    assert "RAY_memory_monitor_refresh_ms" not in script(config, "launch.slurm.solvers.exclusive=true")


def test_seeds_are_a_job_array(config, command):
    command("sbatch", "echo '17;cluster'")
    jobs = launching.launch(load_config(config), "slurm", 3)
    assert [job.id for _, job in jobs] == ["17_0", "17_1", "17_2"]
    folders = [folder.path for folder, _ in jobs]
    text = (folders[0] / "job.sbatch").read_text()
    assert "--array=0-2" in asked_for(text) and f"--output={folders[0]}/seeds/%a/logs/job.log" in asked_for(text)
    assert [(folders[0] / "seeds" / str(index)).resolve() for index in range(3)] == folders
    with pytest.raises(PenstockError, match="no arrays of heterogeneous jobs"):
        script(config, "launch.slurm.learner={}", num_seeds=2)


def test_names_that_mean_something_to_bash_or_to_slurm(config, command):
    hostile = config.parent / 'it\'s 100% $(touch x) "q"; #1 & é'
    hostile.mkdir()
    os.chdir(hostile)
    text = script(config, "launch.prologue=module() { echo \"$1\"; }; module 'a b'")
    assert f"--output={shlex.quote(f'{hostile}/runs/small-<UTC>/logs/job.log'.replace('%', '%%'))}" in asked_for(text)
    above = text.partition("# What a job")[0] + 'printf "%s\\n" "$folder" "$script"'
    ran = subprocess.run(["bash", "-c", above], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["a b", *(f"{hostile}/runs/small-<UTC>{end}" for end in ("", "/job.sbatch"))]
    (config.parent / "a\\b").mkdir()
    os.chdir(config.parent / "a\\b")
    with pytest.raises(PenstockError, match="Slurm can't write to a folder with such a name"):
        script(config)


def test_the_script_is_bash(config):
    text = script(config, "launch.slurm.requeue=true")
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    if check := shutil.which("shellcheck"):
        done = subprocess.run([check, "--exclude=SC2317", "-"], input=text, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout


def test_no_resources_of_this_machine_are_asked_for(config):
    assert "requeue=false" in script(config, "training.device=cuda", "solver.workers=500")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("launch.slurm.options=[exclusive]", "'exclusive' is no option of sbatch: give --name=value"),
        ("launch.slurm.time=soon", "give seconds, h:mm:ss as 4:00:00"),
        ('launch.slurm.account="a\\nb"', "launch.slurm.account"),
    ],
)
def test_what_is_no_job_is_refused(config, override, message):
    with pytest.raises(PenstockError, match=message):
        script(config, override)


def test_without_slurm_a_dry_run_is_all_there_is(config, command):
    assert "#SBATCH" in script(config)
    with pytest.raises(PenstockError, match="penstock launch slurm needs Slurm's sbatch on this machine"):
        launching.launch(load_config(config), "slurm", 1)
    assert not (config.parent / "runs").exists()


def test_what_slurm_answers(config, command, monkeypatch):
    launcher, job = Slurm(load_config(config)), Job("slurm", "17", "")
    command("scancel", f'echo "$@" >> {config.parent}/cancelled')
    for words, state in {"PENDING": State.WAITING, "PENDING\\nRUNNING": State.RUNNING, "": State.GONE}.items():
        command("squeue", f"printf '{words}\\n'")
        assert launcher.state(job, None) is state
        launcher.stop(job, None)
    assert (config.parent / "cancelled").read_text().splitlines() == [
        *["--state=PENDING 17"] * 2,
        "--batch --signal=USR2 17",
        "--state=PENDING 17",
    ]
    command("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert launcher.state(job, None) is State.GONE
    command("squeue", "echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(PenstockError, match="Slurm's squeue refuses: Unable to contact slurm controller"):
        launcher.state(job, None)
    command("squeue", "exec sleep 60")
    monkeypatch.setattr(slurm, "ANSWERS_WITHIN_S", 0.01)
    with pytest.raises(PenstockError, match="Slurm's squeue has not answered"):
        launcher.state(job, None)


def test_the_job_of_a_failed_run_that_waits_again_is_withdrawn(config, command):
    """As after the loss of a node, of which the run died first."""
    command("scancel", f'echo "$@" >> {config.parent}/cancelled')
    command("squeue", "echo PENDING")
    folder = RunFolder.create(load_config(config))
    folder.update_run(state="failed", cause="Ray died")
    job = Job("slurm", "17", "")
    job.save(folder)
    assert launching.state_of(folder, job) is State.WAITING
    assert launching.stop(folder).startswith("slurm job 17 was withdrawn")
    assert (config.parent / "cancelled").read_text() == "--state=PENDING 17\n"


WAIT = "while true; do sleep 0.05; done"


class Lives:
    """Runs the body of a job, in which penstock ends as it is told."""

    def __init__(self, folder: Path, command):
        self.folder = folder
        (folder / "logs").mkdir()
        (folder / "checkpoints").mkdir()
        command("srun", f"trap exit USR1; echo \"ray start --address='h:1'\"; echo Ray runtime started\n{WAIT}")
        requeue = "[ $1 = requeue ] && kill -9 $PPID"  # as Slurm ends this life
        command(
            "scontrol", f'case "$*" in *hostnames*) echo n1;; *node*) echo " NodeAddr=127.0.0.1 ";; esac; {requeue}'
        )
        self.command = command

    def live(self, code: int, *, asked: str = "", requeue: str = "true") -> int:
        """The exit code of the batch shell; that of SIGKILL if the job is queued again."""
        tell = f"trap 'exit {code}' TERM; kill -{asked} $PPID; {WAIT}" if asked else f"exit {code}"
        self.command("python", tell)
        lines = [f"folder={shlex.quote(str(self.folder))}", "script=/s python=python", f"requeue={requeue}"]
        job = {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "n1", "SLURMD_NODENAME": "n1", "SLURM_RESTART_COUNT": "1"}
        text = "\n".join([*lines, BODY.read_text()])
        ran = subprocess.run(["bash", "-c", text], env=os.environ | job, capture_output=True, text=True, timeout=60)
        self.said = ran.stdout
        return ran.returncode

    def checkpoint(self, name: str) -> None:
        (self.folder / "checkpoints" / name).mkdir()


@pytest.fixture
def lives(tmp_path, command):
    (tmp_path / "run's folder").mkdir()
    return Lives(tmp_path / "run's folder", command)


def test_a_life_that_was_cut_short_is_followed_by_another(lives):
    lives.checkpoint("step-1")
    assert lives.live(75) == -signal.SIGKILL  # penstock's own margin before the end of its time
    lives.checkpoint("step-2")
    assert lives.live(143, asked="USR1") == -signal.SIGKILL
    assert "the job goes back into the queue" in lives.said


@pytest.mark.parametrize(
    ("code", "asked"), [(0, ""), (0, "USR1"), (3, ""), (143, "USR2"), (143, "TERM"), (75, "USR2"), (1, "USR1")]
)
def test_a_run_that_ended_fails_or_was_stopped_is_not_queued_again(lives, code, asked):
    assert lives.live(code, asked=asked) == code
    assert ("go on with: sbatch /s" in lives.said) == (code != 0)


def test_a_job_that_does_not_get_on_is_not_queued_for_ever(lives):
    lives.checkpoint("step-1")
    assert lives.live(75) == -signal.SIGKILL  # which made it
    assert lives.live(75) == -signal.SIGKILL
    assert lives.live(75) == 75
    assert "two lives of the job in a row have made no checkpoint" in lives.said


def test_a_prologue_that_ends_the_shell_at_errors_changes_nothing(config):
    text = script(config, "launch.prologue=set -euo pipefail")
    assert text.index("set -euo pipefail") < text.index("set +eu +o pipefail") < text.index("folder=")


def test_without_requeue_the_job_says_how_to_go_on(lives):
    assert lives.live(75, requeue="false") == 75
    assert lives.said.splitlines()[-1] == "penstock: go on with: sbatch /s"
