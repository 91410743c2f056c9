"""The command that goes on with a run, by what runs it."""

import json
import os
import shlex

import pytest

from penstock.orchestrator.config.config import load_config
from penstock.orchestrator.launch.commands import program, resume_command
from penstock.orchestrator.launch.job import FILE, Job
from penstock.orchestrator.launch.slurm import SEEDS
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.terminal.monitor import summary_lines


@pytest.fixture
def folder(config):
    return RunFolder.create(load_config(config, ()))


@pytest.mark.parametrize(
    ("launcher", "job_id", "expected"),
    [
        (None, "", "{program} resume runs/{name}"),
        ("local", "12@here", "{program} resume runs/{name}"),
        ("ray", "http://head:8265/#/jobs/small", "{program} resume runs/{name}"),
        ("slurm", "71", "sbatch runs/{name}/job.sbatch"),
        (
            "kuberay",
            "small",
            "kubectl delete --ignore-not-found -f runs/{name}/rayjob.yaml && kubectl create -f runs/{name}/rayjob.yaml",
        ),
        ("of another version", "1", "{program} resume runs/{name}"),
    ],
)
def test_a_run_is_gone_on_with_where_it_was_launched(folder, launcher, job_id, expected):
    if launcher is not None:
        Job(launcher, job_id, "2026-01-01T00:00:00+00:00").save(folder)
    command = expected.format(program=program(), name=folder.path.name)
    assert resume_command(folder) == command
    assert summary_lines(folder) == [f"stopped before there was anything to sum up; go on with: {command}"]


def test_a_task_of_an_array_has_the_first_ones_script_and_its_own_index(config):
    folders = [RunFolder.create(load_config(config, (f"name=seed{seed}",))) for seed in range(2)]
    (folders[0].path / SEEDS).mkdir()
    for index, folder in enumerate(folders):
        (folders[0].path / SEEDS / str(index)).symlink_to(os.path.relpath(folder.path, folders[0].path / SEEDS))
        Job("slurm", f"71_{index}", "").save(folder)
    script = f"runs/{folders[0].path.name}/job.sbatch"
    for index, folder in enumerate(folders):
        assert shlex.split(resume_command(folder)) == ["sbatch", f"--array={index}", script]


@pytest.mark.parametrize("text", ["{", json.dumps({"launcher": "slurm"})])
def test_a_damaged_file_of_the_job_hides_no_other_fault(folder, text):
    (folder.path / FILE).write_text(text)
    assert resume_command(folder) == f"{program()} resume runs/{folder.path.name}"
