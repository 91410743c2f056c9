import subprocess
import sys

import pytest


@pytest.mark.parametrize(("bench", "file"), [("recycling", "gcrodr.md"), ("discretisation", "discretisation.md")])
def test_each_bench_prints_its_table_and_writes_it(tmp_path, bench, file):
    command = [sys.executable, "-m", "penstock.solvers.bench", bench, "--systems", "2", "--resolution", "8"]
    result = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    table = (tmp_path / "benchmarks" / file).read_text()
    assert result.stdout.strip() in table
    assert f"python -m penstock.solvers.bench {bench} --systems 2 --resolution 8" in table
