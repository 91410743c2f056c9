"""The meter of energy on counters that are written here, and on a library with NVML's functions."""

import shutil
import subprocess

import pytest

from penstock.orchestrator.resources.energy import EnergyMeter

NVML = """
#include <stdint.h>
#include <stdio.h>
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(uintptr_t)(index + 1); return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy)
{
    if ((uintptr_t)device == 2) return 3;  /* NVML_ERROR_NOT_SUPPORTED */
    FILE *file = fopen("ENERGY", "r");
    int read = fscanf(file, "%llu", energy);
    fclose(file);
    return read != 1;
}
"""


def domain(root, number: str, name: str, energy: int, control: str = "intel-rapl") -> None:
    folder = root / f"{control}:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", 1_000_000)):
        (folder / key).write_text(f"{value}\n")


def test_packages_and_memory_count_and_start_again_after_their_range(tmp_path):
    def write(package: int, core: int, memory: int) -> None:
        for number, name, energy in (("0", "package-0", package), ("0:0", "core", core), ("0:1", "dram", memory)):
            domain(tmp_path, number, name, energy)
        domain(tmp_path, "0", "package-0", package, "intel-rapl-mmio")  # the same package by another interface

    write(900_000, 0, 10)
    meter = EnergyMeter(tmp_path, "no library")
    assert meter.joules() == 0
    write(950_000, 500_000, 1_010)  # a core is a part of its package
    assert meter.joules() == pytest.approx(0.051)
    write(50_000, 500_000, 1_010)
    assert meter.joules() == pytest.approx(0.051 + 0.1)


def test_without_counters_nothing_is_known(tmp_path):
    assert EnergyMeter(tmp_path / "none", "no library").joules() is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_gpus_that_count_energy(tmp_path):
    (tmp_path / "nvml.c").write_text(NVML.replace("ENERGY", str(tmp_path / "energy")))
    library = tmp_path / "nvml.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True)
    (tmp_path / "energy").write_text("1000")
    meter = EnergyMeter(tmp_path / "none", str(library))
    (tmp_path / "energy").write_text("3500")
    assert meter.joules() == pytest.approx(2.5)
