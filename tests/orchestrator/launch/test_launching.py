"""Launching without a scheduler: what is refused, what would be submitted, and jobs in the background."""

import json
import os
import signal
import socket
import subprocess

import pytest
from typer.testing import CliRunner

from penstock.errors import PenstockError
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.config.config import load_config
from penstock.orchestrator.launch import launching, local
from penstock.orchestrator.launch.job import Job, State
from penstock.orchestrator.store.run_folder import RunFolder
from tests.support.waiting import wait_until


@pytest.fixture
def sleeping(monkeypatch):
    """Jobs that wait for a signal, which they note in their output, in place of runs."""
    script = "trap 'echo asked to end; exit 143' TERM\necho begun\nwhile true; do read -t 0.05 <> <(:); done # {}\n"
    monkeypatch.setattr(local.Local, "text", lambda self, folders: script.format(folders[0]))


def test_a_dry_run_prints_the_script_and_makes_nothing(config):
    result = CliRunner().invoke(app, ["launch", "local", "small.yaml", "launch.prologue=module load a", "--dry-run"])
    lines = result.output.splitlines()
    assert lines[:2] == ["#!/bin/bash", "module load a"]
    assert lines[2].startswith("exec ") and lines[2].endswith("/runs/small-<UTC>'")
    assert not (config.parent / "runs").exists()


def test_the_script_is_bash(config):
    script = launching.dry_run(load_config(config, ("launch.prologue=export A='x y'",)), "local", 1)
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_a_site_file_lies_under_the_configuration(config):
    site = config.parent / "site.yaml"
    site.write_text("launch: {prologue: module load petsc}")
    assert load_config(config, (), site).launch.prologue == "module load petsc"
    assert load_config(config, ("launch.prologue=module load other",), site).launch.prologue == "module load other"
    site.write_text("launch: {}\nseed: 3")
    with pytest.raises(PenstockError, match=r"site.yaml: seed: a site's file has the section `launch` alone"):
        load_config(config, (), site)


@pytest.mark.parametrize(
    ("where", "overrides", "num_seeds", "message"),
    [
        ("lokal", (), 1, "did you mean 'local'"),
        ("local", (), 2, "only `launch slurm` takes several"),
        ("local", ("model.modes=99",), 1, "model"),
    ],
)
def test_what_would_fail_is_refused_before_a_folder_is_made(config, where, overrides, num_seeds, message):
    with pytest.raises(PenstockError, match=message):
        launching.launch(load_config(config, overrides), where, num_seeds)
    assert not (config.parent / "runs").exists()


def test_a_job_is_followed_listed_and_stopped(config, sleeping):
    ((folder, job),) = launching.launch(load_config(config), "local", 1)
    assert Job.of(folder) == job and folder.read("run.json")["state"] == "submitted"
    wait_until(lambda: "begun" in (folder.logs / "job.log").read_text())
    assert launching.state_of(folder, job) is State.RUNNING
    row = CliRunner().invoke(app, ["jobs"]).output.splitlines()[-1].split()
    assert row == [folder.path.name, "local", job.id, "running", "submitted", job.submitted]
    assert CliRunner().invoke(app, ["logs"]).output.split() == ["job", "|", "begun"]
    assert CliRunner().invoke(app, ["stop"]).output == f"local job {job.id} ends before the run began\n"
    wait_until(lambda: launching.state_of(folder, job) is State.GONE)
    followed = CliRunner().invoke(app, ["logs", "--follow"]).output.splitlines()
    assert [line.partition("| ")[2] for line in followed] == ["begun", "asked to end"]
    with pytest.raises(PenstockError, match="is not running: stopped before it began"):
        launching.stop(folder)


def test_a_process_id_that_another_process_has_now_is_no_job(config, sleeping):
    ((folder, job),) = launching.launch(load_config(config), "local", 1)
    os.kill(int(job.id.partition("@")[0]), signal.SIGKILL)
    stranger = Job("local", f"{os.getpid()}@{socket.gethostname()}", job.submitted)
    assert launching.state_of(folder, stranger) is State.GONE


def test_a_run_that_was_not_launched_has_no_job(config):
    folder = RunFolder.create(load_config(config))
    with pytest.raises(PenstockError, match="has written anything yet to runs/small-"):
        launching.follow(folder, print, to_the_end=False)
    with pytest.raises(PenstockError, match="is not running on this machine, and it was not launched"):
        launching.stop(folder)


def test_job_json_is_plain(config, sleeping):
    ((folder, _),) = launching.launch(load_config(config), "local", 1)
    assert json.loads((folder.path / "job.json").read_text()).keys() == {"launcher", "id", "submitted"}
    launching.stop(folder)


@pytest.mark.parametrize(
    ("where", "override"), [("local", "cluster.walltime=4:00:00"), ("slurm", "launch.slurm.time=4:00:00")]
)
def test_a_walltime_is_that_of_the_job_or_of_the_run(config, where, override, monkeypatch):
    given = []
    load = "penstock.orchestrator.config.config.load_config"
    monkeypatch.setattr(load, lambda path, overrides, site: given.extend(overrides))
    monkeypatch.setattr(launching, "dry_run", lambda *arguments: "")
    CliRunner().invoke(app, ["launch", where, "small.yaml", "--walltime", "4:00:00", "--dry-run"])
    assert given == [override]


def test_only_slurm_queues_a_run_again(config):
    result = CliRunner().invoke(app, ["launch", "local", "small.yaml", "--requeue"])
    assert "--requeue: a run that is launched local is not queued again" in str(result.exception)


def test_a_folder_behind_a_link_is_launched_and_named(config, sleeping):
    elsewhere = config.parent.parent / f"{config.parent.name}-elsewhere"
    elsewhere.mkdir()
    (config.parent / "runs").symlink_to(elsewhere)
    result = CliRunner().invoke(app, ["launch", "local", "small.yaml"])
    assert result.exit_code == 0 and f"{elsewhere}/small-" in result.output
    CliRunner().invoke(app, ["stop"])


def test_what_the_launcher_refuses_leaves_no_folder(config, monkeypatch):
    def refuse(self, folders):
        raise PenstockError("no")

    monkeypatch.setattr(local.Local, "text", refuse)
    with pytest.raises(PenstockError, match="no"):
        launching.launch(load_config(config), "local", 1)
    assert not (config.parent / "runs").exists()


def test_a_launch_that_breaks_is_recorded(config, monkeypatch):
    def broken(self, folders):
        raise OSError("no space left")

    monkeypatch.setattr(local.Local, "submit", broken)
    with pytest.raises(OSError, match="no space left"):
        launching.launch(load_config(config), "local", 1)
    run = RunFolder.open(None).read("run.json")
    assert run["state"] == "failed" and "no space left" in run["cause"]


def test_jobs_shows_the_others_whatever_one_folder_holds(config, sleeping):
    ((folder, job),) = launching.launch(load_config(config), "local", 1)
    for number, text in enumerate(('{"launch', '{"host": 1}', '{"launcher": "moon", "id": "1", "submitted": ""}')):
        odd = config.parent / "runs" / f"odd-{number}"
        odd.mkdir()
        (odd / "job.json").write_text(text)
    output = CliRunner().invoke(app, ["jobs"]).output
    assert output.count("is damaged") == 2 and "unknown" in output and job.id in output
    launching.stop(folder)


def test_a_job_of_another_host_is_not_taken_for_gone(config):
    folder = RunFolder.create(load_config(config))
    folder.update_run(state="submitted")
    Job("local", "1@elsewhere", "").save(folder)
    with pytest.raises(PenstockError, match="it was launched on elsewhere: ask there"):
        launching.stop(folder)


def test_a_run_whose_job_waits_again_keeps_its_checkpoint_when_it_is_stopped(config, monkeypatch):
    folder = RunFolder.create(load_config(config))
    folder.update_run(state="stopped", cause="cluster.walltime")
    Job("local", "1@here", "").save(folder)
    monkeypatch.setattr(local.Local, "state", lambda *_: State.WAITING)
    monkeypatch.setattr(local.Local, "stop", lambda *_: None)
    assert launching.stop(folder) == "local job 1@here was withdrawn; the run's last checkpoint is valid"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("4:00:00", 14400), ("'04:00:00'", 14400), ("1-12:00:00", 129600), ("600", 600), ("'600'", 600), ("'4:00'", None)],
)
def test_a_walltime_has_one_meaning(config, text, seconds):
    """What YAML itself reads as a number of base 60 is in seconds, as Slurm reads it."""
    if seconds is None:
        with pytest.raises(PenstockError, match=r"give seconds, h:mm:ss as 4:00:00"):
            load_config(config, (f"cluster.walltime={text}",))
    else:
        assert load_config(config, (f"cluster.walltime={text}",)).cluster.walltime == seconds
