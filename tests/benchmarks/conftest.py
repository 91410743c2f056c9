"""The command line of the benches, in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # BLAS threads would fight over two cores
ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(tmp_path):
    """A function that runs `python -m benchmarks` in an empty folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "benchmarks", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, env=environment)

    return run
