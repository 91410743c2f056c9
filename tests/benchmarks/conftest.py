"""The command line of the benches, in an empty folder."""

import os
import sys
from types import SimpleNamespace

import pytest

import benchmarks.__main__

os.environ.setdefault("OMP_NUM_THREADS", "1")  # BLAS threads would fight over two cores


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    """A function that runs the command line in an empty folder, in this process, which has imported what it needs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(benchmarks.__main__, "use_one_core", lambda: None)  # the tests go on with all they had

    def run(*arguments: str) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            benchmarks.__main__.main()
        printed = capfd.readouterr()
        return SimpleNamespace(returncode=ended.value.code or 0, stdout=printed.out, stderr=printed.err)

    return run
