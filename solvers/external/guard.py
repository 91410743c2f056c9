"""Runs a program, and ends it with all that it has started.

It ends them when the program ends, and when the worker wants it or is gone. The worker runs it as a script. It has no
threads, so it may fork; and as a subreaper it is the parent of all that the program leaves behind, daemons included.

    guard.py LIFELINE DESCRIPTORS COMMAND...

LIFELINE is a socket to the worker: what comes from there ends the program at once, its end after a grace. The guard's
last word on it is how the program ended: "exit 1", "signal 11", "missing No such file or directory"; and behind
"left", how many processes it left. A guard that was killed says nothing.

It is two processes, each of which cleans up where the other one is killed. Ray does that: a worker of it that ends in
order kills its children, but not theirs.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)
GRACE_MS = 1000  # for a program to end when its pipe does


def main() -> None:
    """Run the program to its end."""
    lifeline, descriptors, *command = int(sys.argv[1]), sys.argv[2], *sys.argv[3:]
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.set_inheritable(lifeline, False)
    outer = os.pidfd_open(os.getpid())
    inner = os.fork()
    if inner == 0:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # a child doesn't inherit that
        watch(libc, lifeline, outer, descriptors, command)
        return
    for descriptor in descriptors.split():
        os.close(int(descriptor))
    os.waitpid(inner, 0)
    end_children()


def watch(libc: ctypes.CDLL, lifeline: int, outer: int, descriptors: str, command: list[str]) -> None:
    """Run the program, and end it and what it leaves.

    Args:
        libc: the C library.
        lifeline: descriptor of the socket to the worker.
        outer: descriptor of the process that cleans up after this one.
        descriptors: those of the program.
        command: the program and its arguments.
    """
    guard, program = os.getpid(), os.fork()
    if program == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:
            os._exit(127)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and a program would inherit that
        try:
            os.execvp(command[0], command)
        except OSError as error:
            os.write(lifeline, f"missing {error.strerror}\n".encode())
            os._exit(127)
    for descriptor in descriptors.split():
        os.close(int(descriptor))
    ended, poll = os.pidfd_open(program), select.poll()
    for descriptor in (ended, lifeline, outer):
        poll.register(descriptor, select.POLLIN)
    events = dict(poll.poll())
    # Nobody says "at once": the worker is gone or about to be, and the program's pipe with it.
    if ended not in events and not (lifeline in events and os.read(lifeline, 1)):
        poll.unregister(lifeline)
        poll.unregister(outer)
        events = dict(poll.poll(GRACE_MS))
    status = os.waitpid(program, 0)[1] if ended in events else None
    num_left = end_children()
    if status is not None:
        said = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        with suppress(OSError):
            os.write(lifeline, f"{said} left {num_left}\n".encode())


def end_children() -> int:
    """Kill all children, and those that become ours by that.

    Returns:
        How many were alive.
    """
    num_alive = 0
    while children := _children():
        for pid, state in children.items():
            num_alive += state != "Z"
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return num_alive


def _children() -> dict[int, str]:
    """The states of this process's children by process id, "Z" of a zombie."""
    states = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/stat") as file:
            state, parent, *_ = file.read().rpartition(")")[2].split()
            if int(parent) == os.getpid():
                states[int(pid)] = state
    return states


if __name__ == "__main__":
    main()
