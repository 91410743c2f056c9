"""A program in a separate process that simulates when it is asked."""

from __future__ import annotations

import os
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from penstock.errors import Refused
from penstock.solvers.external.protocol import DESCRIPTORS, VERSION, Announced, SharedMemory, announced
from penstock.solvers.problem import SolveError

GUARD = Path(__file__).parent / "guard.py"
MAX_LINE = 65_536  # bytes; what is longer is no line of the protocol
STDERR = 2  # the descriptor: of a worker it is its log
END_S = 5.0  # within which the guard says how a program ended whose pipe did


class ProgramFault(Refused):
    """A program that is not fit to go on: it is to be started again."""


class Misfit(Refused):
    """A program that is not that of the spec: to start it again would not help."""


class Program:
    """A program that serves one simulation after another.

    It is started on first use, and again after a fault. What it prints goes to this process's standard error: what a
    command prints on standard output is the command's alone.

    Args:
        command: the program and its arguments, as in a shell.
        memory: what it shares with this process.
        timeout_s: seconds of silence after which it is taken to hang.
    """

    def __init__(self, command: str, memory: SharedMemory, *, timeout_s: float):
        self.command = command
        self.memory = memory
        self.timeout_s = timeout_s
        self._running: _Running | None = None
        self._number = 0  # of the last simulation; it goes on counting when the program is started again

    def simulate(self, parameters: Mapping[str, np.ndarray]) -> Iterator[Announced]:
        """Have the program simulate.

        Args:
            parameters: in the shapes of the memory's.

        Yields:
            The samples, each of which is in the memory until the next one is asked for.

        Raises:
            ProgramFault: the program crashed, hangs, or does not keep to the protocol; it is ended.
            Misfit: the program was just started, and is not of the spec; it is ended.
            SolveError: the program says that this simulation can't be solved.
        """
        is_fit, is_new = False, self._running is None
        try:
            running = self._started()
            self.memory.write(parameters)
            self.memory.clear()
            self._number += 1
            running.say(f"simulate {self._number}")
            steps = set()
            running.place = "before its first sample"
            while isinstance(answer := self._answer(running, is_new=is_new), Announced):
                if answer.step in steps:
                    raise ProgramFault(f"{self.command} sent step {answer.step} twice: a wrong counter, or a fork")
                steps.add(answer.step)
                running.place = f"after step {answer.step}"
                yield answer
                self.memory.clear()
                running.say("taken")
            is_fit = True
            if answer is not None:
                raise answer
        finally:
            if not is_fit:
                self.stop()

    def stop(self) -> None:
        """End the program, and all that it has started."""
        if self._running is not None:
            self._running.end()
            self._running = None

    def _started(self) -> _Running:
        if self._running is None:
            self._running = _Running(self.command, self.memory, self.timeout_s)
            self._running.say(*self.memory.header)
            if (first := self._running.hear()) != VERSION:
                raise ProgramFault(f"{self.command} wrote {first[:80]!r}, and its first line must be {VERSION!r}")
        return self._running

    def _answer(self, running: _Running, *, is_new: bool) -> Announced | SolveError | None:
        """What the next line says: a sample, that the simulation was given up, or its end.

        Raises:
            ProgramFault: the line is a fault, of another simulation, or not of the protocol; or none came.
            Misfit: the line is a fault of a program that is in its first simulation. A later one may be the fault of
                the simulation before.
        """
        line = running.hear()
        word, _, said = line.partition(" ")
        if word == "fault":
            raise (Misfit if is_new else ProgramFault)(f"{self.command}: {said.strip()}")
        number, _, said = said.partition(" ")
        if word in ("sample", "done", "failed") and number.isdecimal() and number != str(self._number):
            raise ProgramFault(
                f"{self.command} wrote {line[:80]!r}, a line of another simulation: in the protocol the one under way "
                f"has the number {self._number}"
            )
        if number == str(self._number):
            if word == "failed":
                return SolveError(f"{self.command}: {said}")
            if word == "done" and not said:
                return None
            if word == "sample":
                try:
                    return announced(said)
                except Refused as refused:
                    raise ProgramFault(f"{self.command}: {refused}") from None
                except ValueError:
                    pass  # as of other lines that are none
        raise ProgramFault(f"{self.command} wrote {line[:80]!r} {running.place}, which is no line of the protocol")


class _Running:
    """The process, its pipes, and the lifeline of its guard."""

    def __init__(self, command: str, memory: SharedMemory, timeout_s: float):
        self._command = command
        self._timeout_s = timeout_s
        self._buffer = b""
        self.place = "at its start"
        """Where it is in its simulation, for people."""
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        self._out, self._in = os.fdopen(our_out, "wb", 0), os.fdopen(our_in, "rb", 0)
        self._lifeline, guards = socket.socketpair()
        theirs = (their_in, their_out, memory.descriptor)
        descriptors = " ".join(map(str, theirs))
        try:
            # -I -S: 10 ms to start, and nothing of the environment is imported.
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", GUARD, str(guards.fileno()), descriptors, *shlex.split(command)],
                stdin=subprocess.DEVNULL,
                stdout=STDERR,
                pass_fds=(*theirs, guards.fileno()),
                env=os.environ | {DESCRIPTORS: descriptors},
                start_new_session=True,  # a Ctrl-C in the terminal is the run's business
            )
        finally:
            guards.close()
            os.close(their_in)
            os.close(their_out)
        self._poll = select.poll()
        self._poll.register(self._in, select.POLLIN)
        self._poll.register(self._lifeline, select.POLLIN)

    def say(self, *lines: str) -> None:
        """Send lines."""
        with suppress(BrokenPipeError):  # what the program said before it ended is still to be heard
            self._out.write("".join(f"{line}\n" for line in lines).encode())

    def hear(self) -> str:
        """The next line that is not a heartbeat."""
        while (line := self._line()) == "beat":
            pass
        return line

    def end(self) -> None:
        """Have the guard end everything, and wait for it."""
        with suppress(OSError):
            self._lifeline.send(b"!")
        self._lifeline.settimeout(None)
        with suppress(OSError):
            while self._lifeline.recv(MAX_LINE):  # until both processes of the guard have ended
                pass
        self._guard.wait()
        self._lifeline.close()
        self._in.close()
        self._out.close()

    def _line(self) -> str:
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_LINE:
                raise ProgramFault(
                    f"{self._command} wrote {len(self._buffer)} bytes without the end of a line {self.place}, "
                    f"beginning with {self._buffer[:40]!r}"
                )
            events = dict(self._poll.poll(1000 * self._timeout_s))
            if not events:
                raise ProgramFault(
                    f"{self._command} was silent for {self._timeout_s:g} s (its timeout_s) {self.place}: it hangs, or "
                    "needs a heartbeat now and then"
                )
            # Where only the guard has spoken the program has ended, and what it last said is read already.
            piece = self._in.read(MAX_LINE) if self._in.fileno() in events else b""
            if not piece:
                raise self._fault_of_end()
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode("ascii", errors="backslashreplace")

    def _fault_of_end(self) -> ProgramFault:
        """What to raise for a program that has ended or closed its pipe."""
        self._lifeline.settimeout(END_S)
        try:
            said = self._lifeline.recv(MAX_LINE).decode()
        except TimeoutError:
            return ProgramFault(f"{self._command} closed its pipe {self.place} and went on")
        match said.split("\n")[0].split():
            case ["missing", *reason]:
                return ProgramFault(f"{self._command} can't be started: {' '.join(reason)}")
            case ["signal", number, *_]:
                return ProgramFault(f"{self._command} was ended by {signal.Signals(int(number)).name} {self.place}")
            case ["exit", code, "left", "0"]:
                return ProgramFault(f"{self._command} ended with exit code {code} {self.place}, and was not asked to")
            case ["exit", code, "left", number]:
                return ProgramFault(
                    f"{self._command} forked and ended with exit code {code} {self.place}, leaving {number} "
                    "process(es), which were ended too: it must stay in the foreground"
                )
        return ProgramFault(f"{self._command} was ended {self.place}, because its guard (guard.py) was killed")
