"""A program in any language in place of a solver of ours."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from math import inf
from pathlib import Path
from typing import Any, Self

import numpy as np

from penstock.arrays.conversion import as_numbers
from penstock.errors import PenstockError
from penstock.geometry import Points
from penstock.layout import Sample
from penstock.solvers.external.process import Misfit, Program, ProgramFault
from penstock.solvers.external.protocol import Announced, Shape, SharedMemory, UpTo
from penstock.solvers.external.spec import read_spec, spec_of
from penstock.solvers.problem import RETRIED, Parameters, Problem, Solve

logger = logging.getLogger(__name__)

MOST_COMPARED = 1000  # values of an array that are kept to compare a retried sample with
SAME = 1e-6  # of the largest value: what may differ where ranks or threads sum in another order


class External(Problem):
    """A program in any language, from its parameters to its outputs.

    A worker starts the program once, and asks it for one simulation after another: the parameters go to it, and samples
    come back, through memory that both share. The spec says what is drawn, what the program gives, and on which
    geometries. An input by a parameter's name is that parameter, `time` is the time that the program gives with a
    sample, and the program writes all other inputs. Of a choice of names it is the place in the list, from 0.
    docs/external-solvers.md has the protocol, and clients in C, Fortran and Python. Nothing is solved by penstock, so
    the options of `solver.strategy` and `solver.accuracy` do nothing.

    A program that crashes, hangs, writes what is not of the protocol, has a fork speak for it, or gives numbers that
    are not finite is ended with all processes that it started, and started again. Its simulation is retried once, and
    then fails with the reason. Samples that were taken already are not taken again, and the simulation fails too where
    the new ones are not the same to rounding. Where names, sizes or steps are not those of the spec, or a fork speaks
    in a program's first simulation, the simulation fails at once. All processes of the program end with the worker.

    Args:
        command: the program and its arguments. In a run's YAML file a word that begins with ./ or ../ counts from the
            file's folder, elsewhere from the current one.
        spec: the YAML file of the spec, relative like the words of the command, or what such a file holds, which a run
            keeps in its config.yaml.
        timeout_s: seconds in which the program must send a sample or a heartbeat.
    """

    is_external = True

    def __init__(self, *, command: str, spec: str | Mapping[str, Any], timeout_s: float = 60.0):
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"command = {command!r} can't be split into words: {error}") from None
        if not words:
            raise ValueError(f"command = {command!r} is empty: give a program and its arguments")
        if not 0 < timeout_s < inf:
            raise ValueError(f"timeout_s = {timeout_s} must be above 0 and finite")
        try:
            found = spec_of(read_spec(Path(spec)) if isinstance(spec, str) else spec)
        except PenstockError as error:
            raise ValueError(str(error)) from error
        self.command = command
        self.timeout_s = timeout_s
        self._about = found.about
        self.space = found.space
        self.inputs, self.outputs, self.num_steps = found.inputs, found.outputs, found.num_steps
        self._choices = found.choices  # before any is narrowed: places are those in the spec
        self.on_retry: Callable[[str], None] = partial(logger.warning, "%s; %s", RETRIED)
        """Takes each fault after which a simulation is tried once more; it knows which."""

    @property
    def about(self) -> str:
        return self._about or f"A program that solves its own equation: {self.command}"

    @property
    def lacks(self) -> str | None:
        name = shlex.split(self.command)[0]
        if shutil.which(name):
            return None
        if not os.path.dirname(name):
            return f"command: {name} is not on the path"
        if os.path.isfile(name):
            return f"command: {name} is not executable: chmod +x it"
        return f"command: {name}: no such file: build it, or mend its path"

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        numbers = self._numbers(parameters)
        taken: dict[int, _Kept] = {}
        try:
            yield from self._samples(numbers, taken)
        except ProgramFault as fault:
            self.on_retry(str(fault))
            yield from self._samples(numbers, taken)

    @cached_property
    def program(self) -> Program:
        """The program, which is not started yet."""
        specimen = self._numbers(self.space.draw(np.random.default_rng(0)))
        shapes = {name: value.shape for name, value in specimen.items()}
        return Program(self.command, SharedMemory(shapes, self._shapes), timeout_s=self.timeout_s)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        """The shapes of the arrays that the program writes for a sample."""
        shapes = {}
        given = (*self.space.distributions, "time")
        for spec in (*(spec for spec in self.inputs if spec.name not in given), *self.outputs):
            is_ragged = spec.on is not None and spec.on.is_ragged
            shapes[spec.name] = (*spec.shape[:-1], _points(spec.on)) if is_ragged else spec.shape
        for geometry in self.layout.geometries:
            for name, shape in geometry.travelling.items():
                shapes[name] = _lengths(geometry, name, shape) if geometry.is_ragged else shape[1:]
        return shapes

    def _numbers(self, parameters: Parameters) -> dict[str, np.ndarray]:
        """The parameters as the program is given them."""
        places = {name: values.index(parameters[name]) for name, values in self._choices.items()}
        return {name: as_numbers(name, value) for name, value in {**parameters, **places}.items()}

    def _samples(self, parameters: Mapping[str, np.ndarray], taken: dict[int, _Kept]) -> Iterator[Sample]:
        """The samples whose steps are not taken yet.

        Raises:
            ProgramFault: the program is not fit to go on, or does not repeat the samples that were taken.
            Misfit: its names, sizes or steps are not those of the spec.
        """
        unseen, num_sent = set(taken), 0
        with closing(self.program.simulate(parameters)) as simulation:
            for announced in simulation:
                if announced.step > 0 and not num_sent:
                    raise Misfit(f"{self.command} sent step {announced.step} first: steps count from 0")
                num_sent += 1
                sample = self._sample(parameters, announced)
                kept = _Kept.of(sample)
                if announced.step in unseen:
                    unseen.remove(announced.step)
                    if name := kept.difference(taken[announced.step]):
                        raise ProgramFault(
                            f"{self.command}: tried again, step {announced.step} has another {name} than the sample "
                            "that was taken before the fault"
                        )
                else:
                    taken[announced.step] = kept
                    yield sample
        if unseen:
            self.program.stop()
            raise ProgramFault(
                f"{self.command}: tried again, it does not send step {min(unseen)}, which was taken before the fault"
            )
        if 1 < self.num_steps != num_sent:
            raise Misfit(
                f"{self.command} sent {num_sent} samples in the simulation, and num_steps in the spec is "
                f"{self.num_steps}: send as many, or mend the spec"
            )

    def _sample(self, parameters: Mapping[str, np.ndarray], announced: Announced) -> Sample:
        """The sample in the memory. Raises ProgramFault or Misfit where it can't be one."""
        if 1 < self.num_steps <= announced.step:
            raise Misfit(
                f"{self.command} sent step {announced.step}, and num_steps in the spec is {self.num_steps}: steps "
                "count from 0"
            )
        try:
            arrays = self.program.memory.read(announced.counts)
        except ValueError as error:
            raise ProgramFault(f"{self.command}: the sample of step {announced.step} {error}") from None
        known = parameters | arrays
        return Sample(
            inputs={spec.name: known[spec.name] for spec in self.inputs if spec.name != "time"},
            outputs={spec.name: arrays[spec.name] for spec in self.outputs},
            geometry={name: arrays[name] for geometry in self.layout.geometries for name in geometry.travelling},
            step=announced.step,
            time=announced.time,
        )


@dataclass(frozen=True)
class _Kept:
    """What is kept of a sample that was taken, to compare a retried one with."""

    time: float
    arrays: dict[str, tuple[tuple[int, ...], np.ndarray]]
    """Shapes, and values at `MOST_COMPARED` places at most, by name."""

    @classmethod
    def of(cls, sample: Sample) -> Self:
        arrays = {name: np.asarray(each) for name, each in (sample.inputs | sample.outputs | sample.geometry).items()}
        return cls(sample.time, {name: (array.shape, _some(array)) for name, array in arrays.items()})

    def difference(self, other: _Kept) -> str | None:
        """What differs by more than rounding, if anything."""
        if abs(self.time - other.time) > SAME * max(abs(self.time), abs(other.time)):
            return "time"
        for name, (shape, values) in self.arrays.items():
            others_shape, others = other.arrays[name]
            largest = max(np.abs(values).max(initial=0), np.abs(others).max(initial=0))
            if shape != others_shape or (np.abs(values - others) > SAME * largest).any():
                return repr(name)
        return None


def _some(array: np.ndarray) -> np.ndarray:
    """Values of an array, of a large one at places that depend on its size alone."""
    if array.size <= MOST_COMPARED:
        return array.flatten()
    return array.ravel()[np.random.default_rng(array.size).integers(array.size, size=MOST_COMPARED)]


def _points(geometry: Points) -> UpTo:
    return UpTo(geometry.named("points"), geometry.max_points)


def _lengths(geometry: Points, name: str, shape: tuple[int, ...]) -> Shape:
    """The shape of an array that a sample brings along: a row per point or edge."""
    if name == geometry.named("edges"):
        return (UpTo(name, geometry.max_edges), 2)
    return (_points(geometry), *([shape[0]] if name == geometry.named("points") else []))
