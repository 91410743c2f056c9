"""The bound on the logs of processes, of what they start, and of a launched job."""

import os
import subprocess
import sys

from penstock.orchestrator.run.logs import MOST_BYTES, bound_log

PROGRAM = """
import logging, subprocess, sys
from pathlib import Path

from penstock.orchestrator.run.logs import bound_log, log_to

path = Path(sys.argv[1])
path.touch()
log_to(path)
child = subprocess.Popen(
    [sys.executable, "-uc", "for line in iter(input, 'end'): print('child', line)"], stdin=subprocess.PIPE, text=True
)
for number in range(200):
    print("parent", number, flush=True)
    child.stdin.write(f"{number}\\n")
    child.stdin.flush()
    logging.getLogger("name").info("logged %d", number)
    bound_log(path, 2000)
child.communicate("end\\n")
print("the end", flush=True)
"""


def test_a_log_stays_bounded_whoever_writes_it(tmp_path):
    """It is written by prints, by logging and by a child, which inherited it."""
    log = tmp_path / "solver-0.log"
    subprocess.run([sys.executable, "-c", PROGRAM, log], check=True, timeout=120)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["solver-0.log", "solver-0.log.1"]
    assert log.stat().st_size <= 2000 + 8000 and (tmp_path / "solver-0.log.1").stat().st_size <= 2000
    text = log.read_text()
    assert "\0" not in text and text.endswith("the end\n")


def test_the_newest_whole_lines_are_kept(tmp_path):
    log = tmp_path / "learner.log"
    log.write_text("".join(f"line {number:4d}\n" for number in range(1000)))  # of 10 bytes
    bound_log(log, 10_000)
    assert log.stat().st_size == 10_000 and os.listdir(tmp_path) == ["learner.log"]
    with log.open("a") as file:
        file.write("more\n")
    bound_log(log, 10_000)
    assert log.stat().st_size == 0
    assert (tmp_path / "learner.log.1").read_text().splitlines() == [*(f"line {n:4d}" for n in range(1, 1000)), "more"]


DRIVER = """
import sys
from pathlib import Path

from penstock.orchestrator.run import logs

logs.LOOK_EVERY_S = 0.01
path = Path(sys.argv[1])
for other in (path.with_name("none.log"), path.with_name("other.log"), path):
    logs.bound_output(other)
while not path.with_name("job.log.1").exists():
    print(1000 * "x")
print("the end")
"""


def test_the_output_of_a_job_stays_bounded_and_no_other_file_does(tmp_path):
    job, other = tmp_path / "job.log", tmp_path / "other.log"
    other.write_bytes(bytes(MOST_BYTES + 1))
    with job.open("a") as output:
        subprocess.run([sys.executable, "-c", DRIVER, job], stdout=output, check=True, timeout=120)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.log", "job.log.1", "other.log"]
    assert (tmp_path / "job.log.1").stat().st_size <= MOST_BYTES
    assert job.read_text().endswith("the end\n") and other.stat().st_size == MOST_BYTES + 1
