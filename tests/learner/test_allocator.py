"""What a training process tells its allocator, against the faults that the system counts."""

import os
import subprocess
import sys

from penstock.learner.allocator import KEEP_FREED_MEMORY

WITHOUT = {name: value for name, value in os.environ.items() if name not in KEEP_FREED_MEMORY}
FAULTS = """
import resource, threading
import numpy as np
def work():
    for round in range(10):
        if round == 5:
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        np.add(np.ones(12_500_000), 1.0)  # 100 MB twice, touched and freed
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
RESTART = """
import os, sys
from penstock.learner.allocator import keep_freed_memory
print("start")
sys.stdout.flush()
keep_freed_memory()
print(sys.argv[1:], os.environ["MALLOC_TRIM_THRESHOLD_"], sys.flags.utf8_mode)
"""


def output(*arguments, environment):
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200).stdout


def test_freed_memory_is_not_faulted_in_again_in_a_thread():
    """NumPy asks for huge pages, 2 MB a fault: 100 a round."""
    assert int(output("-c", FAULTS, environment=WITHOUT)) > 400
    assert int(output("-c", FAULTS, environment=WITHOUT | KEEP_FREED_MEMORY)) < 40


def test_a_program_starts_again_once_with_its_arguments():
    options = ("-X", "utf8=1", "-c", RESTART, "--device", "a b")
    lines = output(*options, environment=WITHOUT).splitlines()
    assert lines == ["start", "start", "['--device', 'a b'] -1 1"]
    assert output(*options, environment=WITHOUT | KEEP_FREED_MEMORY).splitlines() == lines[1:]
