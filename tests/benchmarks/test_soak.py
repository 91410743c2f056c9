"""The long run's looks at processes and files, and what its tables make of them."""

import json
import subprocess
import sys

import pytest

from benchmarks import canned
from benchmarks.chaos.soak import Look, files_table, look, memory_table
from benchmarks.chaos.watched_run import WatchedRun


def test_memory_is_flat_up_to_2_percent_or_a_megabyte():
    def looks(*sizes):
        return [Look({"learner": size, "small": size // 1000, "gone": 5}, {}) for size in sizes] + [
            Look({"learner": sizes[-1], "small": sizes[-1] // 1000}, {})
        ]

    table, has_grown = memory_table(looks(*[100_000_000] * 4, *[101_900_000] * 4))
    assert not has_grown and "| learner | 100.0             | 101.9            | +1.9 % | yes  |" in table
    assert "gone" not in table
    table, has_grown = memory_table(looks(*[100_000_000] * 4, *[102_100_000] * 4))
    assert has_grown and "+2.1 % | no " in table and table.count("| no ") == 1


def test_files_that_grow_are_listed_with_their_rate():
    sizes = [{"metrics.jsonl": 1000 * i, "config.yaml": 4000, "logs/*.log": 9000 + i} for i in range(9)]
    lines = files_table([Look({}, each) for each in sizes], minutes=60.0).splitlines()[2:]
    assert [line.split()[1] for line in lines] == ["metrics.jsonl", "logs/*.log"]
    assert lines[0].split()[-2] == "9"  # 7 kB between the first two looks and the last two, 45 minutes later


def test_a_look_finds_processes_and_files_by_name(tmp_path):
    watched = WatchedRun(tmp_path, "name: soak", canned.__file__)
    try:
        (tmp_path / "runs" / "one" / "checkpoints").mkdir(parents=True)
        (tmp_path / "runs" / "latest").symlink_to("one")
        for step in (7, 8):
            (watched.path / "checkpoints" / f"{step}.safetensors").write_bytes(bytes(10_000))
        logs = watched.temporary / "penstock-1" / "session_2026-01-01" / "logs"
        logs.mkdir(parents=True)
        (logs / "raylet.out").write_bytes(bytes(10_000))
        command = [sys.executable, "-c", "print(flush=True); input()"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, cwd=tmp_path, **pipes) as watched.process:
            watched.process.stdout.readline()
            (watched.path / "run.json").write_text(json.dumps({"solver_pids": {"solver-0": watched.process.pid + 1}}))
            found = look(watched)
            watched.process.stdin.close()
    finally:
        watched.remove()
    assert list(found.memory) == ["driver"] and found.memory["driver"] > 1_000_000
    assert found.files["checkpoints/*.safetensors"] == pytest.approx(20_000, rel=0.3)
    assert found.files["ray/logs/raylet.out"] == pytest.approx(10_000, rel=0.3)
    assert set(found.files) == {"checkpoints/*.safetensors", "ray/logs/raylet.out", "run.json"}
