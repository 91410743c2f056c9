"""How much memory there is, on the machine or in the process's control groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

KEPT_FREE = 0.05  # of the machine or control group: with more than 95 % in use Ray kills workers

# For versions 2 and 1 of control groups: folders below /sys/fs/cgroup, files of limits and use, prefix in memory.stat.
VERSION_2 = (("", "unified"), ("memory.max", "memory.high"), "memory.current", "")
VERSION_1 = (("memory",), ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_")

UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class Memory:
    """Memory of the machine, or of a control group, in bytes."""

    name: str
    total: int
    available: int

    @property
    def room(self) -> int:
        """Bytes that may still be taken."""
        return max(0, self.available - int(KEPT_FREE * self.total))


def least_memory(root: Path = Path("/")) -> Memory:
    """The memory that bounds this process: the machine's or a control group's.

    Args:
        root: the folder that holds proc and sys.

    Returns:
        The one with the least room.
    """
    here = psutil.virtual_memory()
    machine = Memory("this machine", here.total, here.available)
    groups = [group for group in _control_groups(root) if group.total < machine.total]  # version 1 writes 2^63 for none
    return min([machine, *groups], key=lambda memory: memory.room)


def _control_groups(root: Path) -> Iterator[Memory]:
    """The process's control groups and their parents, those with a limit."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "" or "memory" in controllers.split(","):
                bases, limits, used, prefix = VERSION_1 if controllers else VERSION_2
                # In a container the path may be the host's, and only the container's group is mounted.
                group = Path(path.lstrip("/"))
                folders = [root / "sys/fs/cgroup" / base / inner for base in bases for inner in (group, *group.parents)]
                yield from filter(None, (_control_group(folder, limits, used, prefix) for folder in folders))


def _control_group(folder: Path, limits: tuple[str, ...], used: str, prefix: str) -> Memory | None:
    """A group's lowest limit and what is free below it; None if it has no limit."""
    given = []
    for limit in limits:
        with suppress(OSError, ValueError):  # "max" is no number
            given.append(int((folder / limit).read_text()))
    try:
        num_used = int((folder / used).read_text())
        statistics = dict(line.split(maxsplit=1) for line in (folder / "memory.stat").read_text().splitlines())
        # The page cache can be reclaimed.
        num_used -= sum(int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    except (OSError, ValueError):
        return None
    return Memory(f"the control group {folder}", min(given), max(0, min(given) - num_used)) if given else None


def size(num_bytes: float) -> str:
    """Bytes for people, such as "1.64 GB"."""
    unit, name = next(((unit, name) for unit, name in UNITS if num_bytes >= unit), UNITS[-1])
    return f"{num_bytes / unit:.3g} {name}"
