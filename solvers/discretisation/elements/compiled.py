"""Forms of DOLFINx, compiled by one process at a time.

DOLFINx compiles a form when it is first met, and keeps it in a folder for all processes. One that meets a form while
another process compiles it waits for 10 s and then raises TimeoutError; and after a process that was killed while it
compiled, all others do, until somebody cleans the folder. So a lock is held here, which ends with its process.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import dolfinx
    import numpy as np
    import ufl

LOCK = ".penstock.lock"


def form(integrals: ufl.Form) -> dolfinx.fem.Form:
    """`dolfinx.fem.form`, for however many processes at once.

    Args:
        integrals: the form.
    """
    import dolfinx

    with _alone(integrals.ufl_domain()):
        return dolfinx.fem.form(integrals)


def expression(value: ufl.core.expr.Expr, points: np.ndarray, domain: ufl.Mesh) -> dolfinx.fem.Expression:
    """`dolfinx.fem.Expression`, for however many processes at once.

    Args:
        value: the expression.
        points: of the reference cell, where it is taken, [P, d].
        domain: the mesh that it is on.
    """
    import dolfinx

    with _alone(domain):
        return dolfinx.fem.Expression(value, points)


@contextmanager
def _alone(domain: ufl.Mesh) -> Iterator[None]:
    """Within the block, no other process compiles.

    Of several ranks only the first one compiles, and the others wait for it in DOLFINx.
    """
    import dolfinx.jit

    folder = Path(dolfinx.jit.get_options()["cache_dir"])
    if domain.ufl_cargo().comm.rank > 0 or (lock := _locked(folder / LOCK)) is None:
        yield
        return
    with lock:
        if lock.read():  # whoever had the lock died within its block
            _remove_unfinished(folder, since=(folder / LOCK).stat().st_mtime_ns)
        lock.write("compiling")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def _locked(path: Path) -> IO[str] | None:
    """The lock's file, once it is ours; None where there can be no lock.

    Some file systems have none (Lustre mounted without `flock`), and in a folder that can't be written to nothing is
    compiled.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.seek(0)
            return lock
        lock.close()
    return None


def _remove_unfinished(folder: Path, *, since: int) -> None:
    """Remove sources begun since a time, in ns, that never became a module."""
    for source in folder.glob("*.c"):
        if not source.with_suffix(".c.cached").exists():
            with suppress(OSError):
                if source.stat().st_mtime_ns >= since:
                    source.unlink()
