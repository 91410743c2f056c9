"""Allocator settings with which a training process keeps freed memory for the next step.

A step frees every tensor that it made. glibc's malloc gives large ones back to the system at once, and the next step
asks for them anew and faults in each page: some 20 thousand faults a step of an FNO at 64x64, and 30 thousand of an MLP
with 10^5 outputs. Told to keep them, next to all faults are gone; what that does to time and peak memory is a section
of benchmarks/tables/learner-cpu.md. Between peaks nothing goes back to the system.

Other allocators don't read these variables. On a GPU tensors are in memory of torch's own, which it keeps anyway.
"""

from __future__ import annotations

import os
import platform
import sys

KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",  # the heaps of other arenas hold 64 MB: what is larger is mapped, and unmapped when freed
    "MALLOC_MMAP_MAX_": "0",  # nothing is mapped on its own
    "MALLOC_TRIM_THRESHOLD_": "-1",  # the heap never shrinks
}
"""Environment of the process; glibc reads it once, when the process starts (man 3 mallopt).

Set later by mallopt() it comes too late for a process with threads, which have arenas by then: the MLP's faults stay.
"""


def keep_freed_memory() -> None:
    """Starts this program again with KEEP_FREED_MEMORY, unless it has it or its malloc is not glibc's."""
    if platform.libc_ver()[0] == "glibc" and not KEEP_FREED_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | KEEP_FREED_MEMORY)
