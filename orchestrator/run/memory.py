"""How much memory there is: of the machine, or of the control groups that the process is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

KEPT_FREE = 0.05  # of the machine or control group: with more than 95 % in use Ray kills workers

# Names of version 2 and version 1 of control groups: folders below /sys/fs/cgroup, limits, use, prefix in memory.stat.
VERSION_2 = (("", "unified"), ("memory.max", "memory.high"), "memory.current", "")
VERSION_1 = (("memory",), ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_")

UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class Memory:
    """That of the machine, or of a control group."""

    name: str
    total: int
    available: int

    @property
    def room(self) -> int:
        """Bytes that may still be taken."""
        return max(0, self.available - int(KEPT_FREE * self.total))


def least_memory(root: Path = Path("/")) -> Memory:
    """What bounds this process: the machine, or one of its control groups. root: of /proc and /sys."""
    here = psutil.virtual_memory()
    machine = Memory("this machine", here.total, here.available)
    groups = [group for group in _control_groups(root) if group.total < machine.total]  # version 1 writes 2^63 for none
    return min([machine, *groups], key=lambda memory: memory.room)


def _control_groups(root: Path) -> Iterator[Memory]:
    """The groups of the process, and those that they are in, that have a limit."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "" or "memory" in controllers.split(","):
                bases, limits, used, prefix = VERSION_1 if controllers else VERSION_2
                # In a container the path may be the host's, while its own group is what is mounted: not all are there.
                group = Path(path.lstrip("/"))
                folders = [root / "sys/fs/cgroup" / base / inner for base in bases for inner in (group, *group.parents)]
                yield from filter(None, (_control_group(folder, limits, used, prefix) for folder in folders))


def _control_group(folder: Path, limits: tuple[str, ...], used: str, prefix: str) -> Memory | None:
    """The lowest of its limits, and what it leaves free; the page cache can be taken back. None where it has none."""
    given = []
    for limit in limits:
        with suppress(OSError, ValueError):  # "max" is no number
            given.append(int((folder / limit).read_text()))
    try:
        num_used = int((folder / used).read_text())
        statistics = dict(line.split(maxsplit=1) for line in (folder / "memory.stat").read_text().splitlines())
        num_used -= sum(int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    except (OSError, ValueError):
        return None
    return Memory(f"the control group {folder}", min(given), max(0, min(given) - num_used)) if given else None


def size(num_bytes: float) -> str:
    """For people: "1.64 GB"."""
    unit, name = next(((unit, name) for unit, name in UNITS if num_bytes >= unit), UNITS[-1])
    return f"{num_bytes / unit:.3g} {name}"
