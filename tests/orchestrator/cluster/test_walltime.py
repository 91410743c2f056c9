"""How long a process may run, by its configuration and by a stub of Slurm's scontrol."""

import time
from datetime import datetime, timedelta

import psutil
import pytest

from penstock.orchestrator.cluster.walltime import seconds_left

SCONTROL = """#!/bin/sh
[ "$*" = "show job -o 4711" ] && [ "$SLURM_TIME_FORMAT" = standard ] || exit 1
{answer}
"""
JOB = "JobId=4711 JobName=run TimeLimit=01:00:00 StartTime=2026-01-01T00:00:00 EndTime={end} Deadline=N/A"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A function that puts a job around this process, about which scontrol says what is given."""

    def job(answer: str) -> None:
        stub = tmp_path / "scontrol"
        stub.write_text(SCONTROL.format(answer=answer))
        stub.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.setenv("SLURM_JOB_ID", "4711")
        monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")

    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return job


def in_seconds(seconds: float) -> str:
    return (datetime.now() + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def test_without_a_limit_and_without_a_job_there_is_none(slurm):
    assert seconds_left(None) is None
    age = time.time() - psutil.Process().create_time()
    assert seconds_left(10_000) == pytest.approx(10_000 - age, abs=5)


def test_the_earlier_one_of_both_ends_counts(slurm):
    slurm(f"echo '{JOB.format(end=in_seconds(3600))}'")
    age = time.time() - psutil.Process().create_time()
    assert seconds_left(None) == pytest.approx(3600, abs=5) == seconds_left(50_000)
    assert seconds_left(3000) == pytest.approx(3000 - age, abs=5)


@pytest.mark.parametrize(
    "answer",
    ["echo slurm_load_jobs error: Invalid job id >&2; exit 1", f"echo '{JOB.format(end='Unknown')}'", "exec sleep 60"],
    ids=["an error", "no end", "no answer in time"],
)
def test_a_slurm_that_does_not_say_is_no_limit(slurm, monkeypatch, answer):
    monkeypatch.setattr("penstock.orchestrator.cluster.walltime.ANSWERS_WITHIN_S", 0.5)
    slurm(answer)
    assert seconds_left(None) is None


def test_no_scontrol_is_no_limit(slurm, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert seconds_left(None) is None
