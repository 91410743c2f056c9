"""What a process keeps of the memory that it frees."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import sys

import numpy as np

from penstock.machine import keep_freed_arrays

if sys.argv[1] == "keep":
    keep_freed_arrays()


def steps(num):
    for _ in range(num):
        arrays = [np.ones(200_000) for _ in range(10)]  # glibc gives back what exceeds twice the largest of them
        del arrays


steps(5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_arrays_that_are_made_again_and_again_are_not_faulted_in_again():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True).stdout)
        for how in ("keep", "return")
    }
    assert faults["keep"] < 100 < 1000 < faults["return"]
