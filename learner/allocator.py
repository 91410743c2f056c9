"""Allocator settings that let a training process keep the memory it frees.

A step frees every tensor that it made. glibc's malloc returns large ones to the system at once, so the next step has
to ask for the memory again and faults in each page: about 20,000 page faults per step of an FNO at 64x64, and 30,000
of an MLP with 10^5 outputs. With these settings nearly all of these faults disappear; benchmarks/tables/learner-cpu.md
has a section on what this does to time and peak memory. In return, nothing goes back to the system between peaks.

Other allocators ignore these variables. On a GPU tensors lie in memory that torch manages and keeps anyway.
"""

from __future__ import annotations

import os
import platform
import sys

KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",  # heaps of other arenas hold 64 MB: anything larger is mapped, and unmapped when freed
    "MALLOC_MMAP_MAX_": "0",  # no allocation gets a mapping to itself
    "MALLOC_TRIM_THRESHOLD_": "-1",  # the heap never shrinks
}
"""Environment variables, which glibc reads once, when the process starts (man 3 mallopt).

A later call of mallopt() comes too late for a process with threads, which have arenas by then: the MLP's faults stay.
"""


def keep_freed_memory() -> None:
    """Restart this program with KEEP_FREED_MEMORY in its environment.

    If the settings are there already, or malloc is not glibc's, do nothing.
    """
    if platform.libc_ver()[0] == "glibc" and not KEEP_FREED_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | KEEP_FREED_MEMORY)
