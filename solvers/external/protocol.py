"""What penstock and a program say to each other, and the memory they share.

Two pipes carry lines of ASCII. The program finds their descriptors and that of the memory in the variable
`PENSTOCK_DESCRIPTORS`: where it reads, where it writes, the memory. Penstock begins with

    penstock 1                      the version of the protocol
    parameter <name> <offset> <shape>
    array <name> <offset> <shape>
    begin

a line per array of float64 in C order, at an offset in bytes into the memory. A shape is none, one or several lengths;
where points vary, a length reads `points:800`, which is at most 800. Then penstock sends `simulate <number>` for
every simulation, with the parameters in the memory, and `taken` for every sample. The end of the pipe is the end of the
program. The program answers

    penstock 1                      once, before anything else
    beat                            it is alive
    sample <number> <step> <time> [<name>=<count>]...
    done <number>                   the simulation has ended
    failed <number> <reason>        the simulation could not be solved
    fault <reason>                  the program is not fit to go on

and leaves the arrays alone from `sample` to `taken`. The counts are the lengths that vary, `points=712`; the arrays
then lie without gaps, as if the shape had been so. `<number>` is that of `simulate`: a line that bears another is of
another simulation, and a fault. Every simulation has its own number, and so has one that is tried again.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod

import numpy as np

from penstock.errors import Refused

VERSION = "penstock 1"
DESCRIPTORS = "PENSTOCK_DESCRIPTORS"
ALIGNMENT = 64  # bytes, for vector instructions
UNWRITTEN = 0x7FF8_7065_6E73_746B  # a quiet NaN that ends in "penstk", where those of arithmetic end in zeros


@dataclass(frozen=True)
class UpTo:
    """A length that every sample says."""

    name: str
    most: int

    def __str__(self) -> str:
        return f"{self.name}:{self.most}"

    def of(self, counts: Mapping[str, int]) -> int:
        """The length, from what a sample says. Raises ValueError where it is none."""
        if self.name not in counts:
            raise ValueError(f"does not say how many {self.name} there are")
        if counts[self.name] > self.most:
            raise ValueError(f"has {counts[self.name]} {self.name}, and the spec allows {self.most}")
        return counts[self.name]


Shape = tuple[int | UpTo, ...]


class SharedMemory:
    """The parameters of a simulation and the arrays of one sample, float64.

    No file names it, so nothing is left when its processes are gone; its descriptor is closed when it is garbage.

    Args:
        parameters: shapes of the parameters.
        arrays: shapes of the sample's arrays.
    """

    def __init__(self, parameters: Mapping[str, Shape], arrays: Mapping[str, Shape]):
        placed, header, size = [], [VERSION], 0
        for role, shapes in (("parameter", parameters), ("array", arrays)):
            for name, shape in shapes.items():
                header.append(" ".join([role, name, str(size), *map(str, shape)]))
                length = prod(each.most if isinstance(each, UpTo) else each for each in shape)
                placed.append((role, name, size, length))
                size += -(-8 * length // ALIGNMENT) * ALIGNMENT
        self.header = (*header, "begin")
        """What the program hears of it."""
        self.descriptor = os.memfd_create("penstock")
        weakref.finalize(self, os.close, self.descriptor)
        os.truncate(self.descriptor, max(size, mmap.PAGESIZE))
        memory = mmap.mmap(self.descriptor, max(size, mmap.PAGESIZE))
        views = {(role, name): np.frombuffer(memory, np.float64, length, at) for role, name, at, length in placed}
        self._parameters = {name: views["parameter", name].reshape(shape) for name, shape in parameters.items()}
        self._arrays = {name: (views["array", name], shape) for name, shape in arrays.items()}

    def write(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Write the parameters of a simulation."""
        for name, value in parameters.items():
            self._parameters[name][...] = value

    def clear(self) -> None:
        """Make all arrays `UNWRITTEN`, so that one that the program forgets is found."""
        for values, _ in self._arrays.values():
            values.view(np.uint64).fill(UNWRITTEN)

    def read(self, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Copies of the sample's arrays.

        Args:
            counts: the lengths that vary.

        Returns:
            The arrays by name; scalars are [].

        Raises:
            ValueError: a length is absent, too large or unknown, or a value is not finite or not written.
        """
        copies, known = {}, set()
        for name, (values, shape) in self._arrays.items():
            known |= {each.name for each in shape if isinstance(each, UpTo)}
            shape = tuple(each.of(counts) if isinstance(each, UpTo) else each for each in shape)
            copies[name] = values[: prod(shape)].reshape(shape).copy()
            _check(name, copies[name])
        if unknown := counts.keys() - known:
            raise ValueError(f"counts {', '.join(sorted(unknown))}, and no length in the spec is so named")
        return copies


def _check(name: str, values: np.ndarray) -> None:
    """Raise ValueError where a value is not finite, or was not written."""
    if np.isfinite(values).all():
        return
    unwritten = np.argwhere(values.view(np.uint64) == UNWRITTEN)
    if len(unwritten) == values.size:
        raise ValueError(f"lacks {name!r}, which was not written")
    if len(unwritten):
        first = unwritten[0].tolist()
        raise ValueError(f"has {name!r} not written at {len(unwritten)} places, first at {first}, counted from 0")
    wrong = np.argwhere(~np.isfinite(values))
    first = values[tuple(wrong[0])]
    where = f" at {len(wrong)} places, first {first} at {wrong[0].tolist()}, counted from 0"
    where = where if values.ndim else f": {first}"
    raise ValueError(f"has {name!r} not finite{where}")


@dataclass(frozen=True)
class Announced:
    """A sample that lies in the memory."""

    step: int
    time: float
    counts: Mapping[str, int]
    """The lengths that vary, by name."""


def announced(said: str) -> Announced:
    """What a line `sample <number> ...` says behind the number.

    Raises:
        ValueError: it is no such line.
        Refused: the time is not finite.
    """
    step, time, *counts = said.split()
    pairs = [pair.partition("=") for pair in counts]
    sample = Announced(int(step), float(time), {name: int(count) for name, _, count in pairs})
    if sample.step < 0 or min(sample.counts.values(), default=0) < 0:
        raise ValueError(said)
    if not isfinite(sample.time):
        raise Refused(f"the time of step {sample.step} is not finite: {sample.time}")
    return sample
