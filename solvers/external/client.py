"""The program's side of the protocol in Python.

It needs NumPy alone, and may be copied.

    program = Program()
    for parameters in program:
        program.send(step=0, temperature=solve(parameters["initial"], parameters["diffusivity"]))
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator, Mapping
from typing import NoReturn

import numpy as np


class Program:
    """What penstock asks of this process, simulation by simulation.

    An error that leaves the loop ends the process, and penstock names it as crashed; `fail` gives up one simulation.

    Raises:
        RuntimeError: this process was not started by penstock.
    """

    def __init__(self):
        if "PENSTOCK_DESCRIPTORS" not in os.environ:
            raise RuntimeError("PENSTOCK_DESCRIPTORS is not set: penstock starts this program, see `problem: external`")
        reading, writing, memory = map(int, os.environ["PENSTOCK_DESCRIPTORS"].split())
        self._reading, self._writing = os.fdopen(reading, "rb"), os.fdopen(writing, "wb", 0)
        self._pid = os.getpid()
        self._number: str | None = None  # of the simulation that is under way
        self.parameters: dict[str, np.ndarray] = {}
        """The parameters of the simulation, which can't be written."""
        self.arrays: dict[str, np.ndarray] = {}
        """The arrays of the sample, all NaN before each; those on points that vary as for the most points."""
        if (version := self._hear()) != "penstock 1":
            raise RuntimeError(f"{version!r}: this client is of the protocol 1")
        mapped = mmap.mmap(memory, 0)
        self._lengths: dict[str, list[str]] = {}  # such as ["3", "points:800"]
        while (line := self._hear()) != "begin":
            role, name, offset, *lengths = line.split()
            shape = [int(length.rpartition(":")[2]) for length in lengths]
            view = np.frombuffer(mapped, np.float64, int(np.prod(shape, dtype=int)), int(offset)).reshape(shape)
            view.flags.writeable = role == "array"
            (self.parameters if role == "parameter" else self.arrays)[name] = view
            if role == "array":
                self._lengths[name] = lengths
        self._say("penstock 1")

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        """The parameters of each simulation, until penstock wants no more."""
        while line := self._hear():
            word, _, number = line.partition(" ")
            if word != "simulate" or not number.isdecimal():
                self._fault(f"the program waited for a simulation and heard {line!r}")
            self._number = number
            yield self.parameters
            if self._number is not None:
                self._say(f"done {self._number}")
                self._number = None

    def send(self, *, step: int, time: float = 0.0, **arrays: np.ndarray) -> None:
        """Send a sample.

        Args:
            step: its number, from 0.
            time: its time, which is of use where `time` is an input.
            **arrays: by name; what is left out must be in `self.arrays` already, if nothing of it varies.

        Raises:
            SystemExit: no simulation is under way, or an array is unknown or has another shape than in the spec;
                penstock hears.
        """
        number = self._under_way("send")
        counts: dict[str, int] = {}
        for name, array in arrays.items():
            if name not in self.arrays:
                self._fault(f"there is no array {name!r}; known: {', '.join(self.arrays)}")
            array, lengths = np.asarray(array, np.float64), self._lengths[name]
            fits = array.ndim == len(lengths)
            for has, length in zip(array.shape, lengths, strict=False):
                counted, colon, most = length.rpartition(":")
                fits &= counts.setdefault(counted, has) == has <= int(most) if colon else has == int(most)
            if not fits:
                self._fault(f"{name!r} has shape {list(array.shape)}, and in the spec [{', '.join(lengths)}]")
            self.arrays[name].reshape(-1)[: array.size] = array.ravel()
        said = "".join(f" {name}={count}" for name, count in counts.items())
        self._say(f"sample {number} {step} {float(time)!r}{said}")
        if not (line := self._hear()):
            sys.exit("penstock wants no more")
        if line != "taken":
            self._fault(f"the program sent a sample and heard {line!r}")

    def beat(self) -> None:
        """Say that this process is alive, where a sample takes longer than `timeout_s`."""
        self._under_way("beat")
        self._say("beat")

    def fail(self, reason: str) -> None:
        """Give up this simulation; nothing more of it can be sent.

        Leave what solves it: the loop goes on with the next.
        """
        self._say(f"failed {self._under_way('fail')} {reason}")
        self._number = None

    def _under_way(self, call: str) -> str:
        """The number of the simulation, without which `call` is a fault."""
        if self._number is None:
            self._fault(
                f"no simulation is under way, as none has begun or it was given up, and the program called {call}"
            )
        return self._number

    def _fault(self, reason: str) -> NoReturn:
        self._say(f"fault {reason}")
        sys.exit(1)  # without a word: penstock says the reason

    def _hear(self) -> str:
        return self._reading.readline().decode().rstrip("\n")

    def _say(self, line: str) -> None:
        if os.getpid() != self._pid:
            line = f"fault process {os.getpid()} was forked from {self._pid}, which alone may speak to penstock"
        self._writing.write(f"{' '.join(line.splitlines())}\n".encode())
