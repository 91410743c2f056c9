"""Watching Ray's processes.

When one of them dies, Ray's own report comes late and blames another one.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable

import psutil

from penstock.errors import PenstockError

SAY_AFTER_S = 3.0
AGENTS = {"ray::DashboardAgent": "dashboard agent", "ray::RuntimeEnvAgent": "runtime environment agent"}
BACK_WITHIN_S = 45.0  # after 60 s Ray ends this process without warning


class RayWatch:
    """Threads that watch a session's processes, and its control service.

    Processes on this machine are watched by the kernel, the control service by its port. `fault` says what died.

    Args:
        parts: names, for people, of the processes that the run can't do without, by process id. If several die at once,
            the first one is blamed.
        address: host:port of the control service of a cluster whose head may be elsewhere; None if the run started Ray.
        tell: prints a line for the user.
    """

    def __init__(self, parts: dict[int, str], address: str | None, tell: Callable[[str], None]):
        self.fault: str | None = None
        self._tell = tell
        self._stopped = threading.Event()
        self._parts = {}
        for pid, name in parts.items():
            try:
                self._parts[os.pidfd_open(pid)] = f"Ray's {name} (pid {pid})"
            except ProcessLookupError:
                self.fault = f"Ray's {name} (pid {pid}) died"
        threading.Thread(target=self._watch_parts, name="RayWatch", daemon=True).start()
        if address is not None:
            threading.Thread(target=self._watch_port, args=(address,), daemon=True).start()

    def check(self) -> None:
        """Raise PenstockError if a process of Ray has died."""
        if self.fault is not None:
            raise PenstockError(self.fault, exit_code=1)

    def stop(self) -> None:
        """Stop watching: from here on processes end on purpose."""
        self._stopped.set()

    def _watch_parts(self) -> None:
        poll = select.poll()
        for descriptor in self._parts:
            poll.register(descriptor, select.POLLIN)  # readable once the process has ended
        dead = {descriptor for descriptor, _ in poll.poll()}
        if not self._stopped.is_set():
            self.fault = self.fault or f"{next(name for key, name in self._parts.items() if key in dead)} died"

    def _watch_port(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        silent_since, is_reported = None, False
        while not self._stopped.wait(1.0):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
                silent_since, is_reported = None, False
            except OSError as error:
                now = time.monotonic()
                silent_since = silent_since or now
                what = f"Ray's control service at {address} does not answer ({error})"
                if not is_reported and now - silent_since >= SAY_AFTER_S:
                    is_reported = True
                    self._tell(f"{what}: the run waits for it for {BACK_WITHIN_S:.0f} s")
                if now - silent_since >= BACK_WITHIN_S:
                    self.fault = what
                    return


def parts_of(session_name: str, raylet_socket: str) -> dict[int, str]:
    """The processes of one node's session that run on this machine.

    Args:
        session_name: name of Ray's session.
        raylet_socket: socket of the node's raylet, which distinguishes nodes of one machine.

    Returns:
        Names by process id: the raylet's agents, the raylet, the control service. Agents come first, because the raylet
        ends when one of them does.
    """
    parts = {}
    for process in psutil.process_iter(["name", "cmdline"]):
        arguments = process.info["cmdline"] or ()
        if process.info["name"] == "gcs_server" and f"--session-name={session_name}" in arguments:
            parts[process.pid] = "control service (gcs_server)"
        elif process.info["name"] == "raylet" and f"--raylet_socket_name={raylet_socket}" in arguments:
            agents = {child.pid: AGENTS.get(child.name()) for child in process.children()}
            parts = {pid: name for pid, name in agents.items() if name} | {process.pid: "raylet"} | parts
    return parts
