"""The energy that this machine has taken, by counters of its processors and GPUs."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

RAPL = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"
DOMAINS = ("package", "dram")  # of RAPL that do not hold each other
CONTROL = "intel-rapl"  # of AMD's processors too; intel-rapl-mmio shows the same packages once more


class EnergyMeter:
    """Counts the joules that this machine takes from now on.

    They are those of RAPL's packages and memory, and of the GPUs that NVML shows, other work included. RAPL's counters
    (powercap of Linux) can be read by root alone; NVML's exist from Volta on. Counters that can't be read are left out.

    Args:
        rapl: the folder of the processors' counters.
        nvml: the library that reads the GPUs' counters.
    """

    def __init__(self, rapl: Path = RAPL, nvml: str = NVML):
        self._processors = [_Domain(folder) for folder in sorted(rapl.glob(f"{CONTROL}:*")) if _is_counted(folder)]
        self._gpus = _Gpus(nvml)
        self._total = 0.0

    def joules(self) -> float | None:
        """Joules since the meter was made; None where no counter can be read.

        Ask more often than the counters wrap around, which takes minutes under full load.
        """
        gained = [gain for counter in (*self._processors, self._gpus) if (gain := counter.gain()) is not None]
        if not gained:
            return None
        self._total += sum(gained)
        return self._total


class _Domain:
    """A counter of microjoules, which wraps around at the end of its range."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._last = _number(folder / "energy_uj")
        self._range = _number(folder / "max_energy_range_uj")

    def gain(self) -> float | None:
        """Joules since the last call."""
        now = _number(self._folder / "energy_uj")
        if now is None or self._last is None:
            return None
        gained, self._last = now - self._last, now
        return 1e-6 * max(gained if gained >= 0 else gained + (self._range or 0), 0)


class _Gpus:
    """The counters of all GPUs, in millijoules."""

    def __init__(self, library: str):
        self._nvml, self._devices = None, []
        with suppress(OSError, AttributeError):  # no driver, or one of another version
            self._nvml = ctypes.CDLL(library)
            self._devices = list(self._found())
        self._last = self._read()

    def _found(self) -> Iterator[ctypes.c_void_p]:
        count = ctypes.c_uint()
        if self._nvml.nvmlInit_v2() or self._nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return
        for number in range(count.value):
            device = ctypes.c_void_p()
            if not self._nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)):
                yield device

    def _read(self) -> int | None:
        energies = []
        for device in self._devices:
            energy = ctypes.c_ulonglong()
            if not self._nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy)):
                energies.append(energy.value)
        return sum(energies) if energies else None

    def gain(self) -> float | None:
        """Joules since the last call."""
        now = self._read()
        if now is None or self._last is None:
            return None
        gained, self._last = now - self._last, now
        return 1e-3 * max(gained, 0)


def _is_counted(folder: Path) -> bool:
    try:
        return (folder / "name").read_text().startswith(DOMAINS)
    except OSError:
        return False


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
