"""The machine that the process runs on."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1  # of prctl(2)
# Of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 * 2**20  # glibc takes no more
MOST_KEPT = 128 * 2**20


def processor() -> str:
    """The name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def description() -> dict[str, str | int]:
    """This machine, for a record: processor, cores that the process may use, memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"processor": processor(), "cores": cores, "memory_bytes": memory}


def identity_of(pid: int) -> str | None:
    """What no other process of any machine has; None if there is none of this id.

    The time of day at which a process began would not do: it moves when the clock is set.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {_start_ticks(pid)}"
    except OSError:
        return None


def age_s() -> float:
    """Seconds since this process began, whatever the clock was set to meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - _start_ticks(os.getpid()) / os.sysconf("SC_CLK_TCK")


def _start_ticks(pid: int) -> int:
    """Ticks from the boot of the machine to the start of a process, see proc(5)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def use_one_core() -> None:
    """Keep this process, and the BLAS that it has not loaded yet, on one core."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def own_bytes() -> int:
    """Resident memory of this process that it shares with no other."""
    resident, shared = _memory_of("self")
    return resident - shared


def resident_bytes(pid: int) -> int | None:
    """Resident memory of a process of this machine; None if there is none of this id."""
    try:
        return _memory_of(pid)[0]
    except OSError:
        return None


def _memory_of(process: int | str) -> tuple[int, int]:
    """Bytes of a process's resident memory, and those it may share; see proc(5)."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{process}/statm").read_text().split())
    return resident * resource.getpagesize(), shared * resource.getpagesize()


def keep_freed_arrays() -> None:
    """Let malloc keep the memory of freed arrays of up to 32 MB, 128 MB at most.

    A step of a scheme on a grid makes and frees dozens of arrays. glibc returns large ones to the system at once, and
    the next step faults in each of their pages again: that is half the time of shallow water on 128 x 128 cells.
    Other allocators than glibc's are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        malloc = ctypes.CDLL(None)
        malloc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        malloc.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
