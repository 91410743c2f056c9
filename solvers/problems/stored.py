"""Samples that were solved before, read from a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from penstock.errors import PenstockError, Refused
from penstock.layout import FieldSpec, Sample
from penstock.solvers.parameters.space import ParameterSpace, generator_of
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.stored.samples import SampleStore


class Stored(Problem):
    """Simulations from a store, in place of a solver: from its inputs to outputs.

    `penstock generate CONFIG --num N --output STORE` solves N simulations and writes the store. Nothing is solved here,
    so the options of `solver.strategy` and `solver.accuracy` do nothing.

    A run reads every simulation once per epoch: an epoch is as many training simulations as the store holds besides
    those held out, in an order that is random for each epoch. The shards of the store come in random order, and so do
    the simulations of a shard while it is open; the buffer mixes them further. `training.stop_after.simulations` counts
    simulations read, so three epochs are three times as many as there are. A sample that is read again counts as unique
    again: a sample was trained on as often as the run's "reuse" says, times the epochs.

    The held-out simulations are those with the lowest numbers. The designs "validation" and "prediction" read them, and
    training never does.

    Arrays, geometries, units and `num_steps` are those of the problem that was solved. The stream's bias is not
    measured: a store does not hold quantiles of the draws.

    Args:
        path: the store; relative to the current folder.
        held_out: simulations for validation and prediction, at least `validation.simulations`.
        num_shards: how many of its first shards are read. A run notes those that are there when it begins, so a store
            may grow meanwhile.
    """

    def __init__(self, *, path: str, held_out: int = 100, num_shards: int | None = None):
        try:
            self.store = SampleStore(Path(path), num_shards)
        except PenstockError as error:
            raise ValueError(f"path: {error}") from error
        finished = sorted(self.store.finished)
        if held_out < 1:
            raise ValueError(f"held_out = {held_out} is too small: validation needs at least 1 simulation")
        if held_out >= len(finished):
            raise ValueError(
                f"held_out = {held_out} of the {len(finished)} simulations in {path} leaves none to train on"
            )
        self.held_out = finished[:held_out]
        self.num_steps = self.store.num_steps
        self.space = ParameterSpace()
        layout = self.store.layout
        self.inputs, self.outputs = layout.inputs, layout.outputs
        self.feeds, self.tangents = layout.feeds, layout.tangents
        self._order = lru_cache(2)(self._new_order)  # a lease may span two epochs
        self._read = lru_cache(1)(self.store.read)  # an epoch goes through the shards one after another

    def draw_numbered(self, seed: int, design: str, simulation: int) -> Parameters:
        if design != "training":
            if simulation >= len(self.held_out):
                raise Refused(
                    f"simulation {simulation} of design {design!r} was asked for, and held_out = {len(self.held_out)}: "
                    "hold out more, or give fewer validation.simulations"
                )
            return {"simulation": self.held_out[simulation]}
        epoch, position = divmod(simulation, len(self.store.finished) - len(self.held_out))
        return {"simulation": self._order(seed, epoch)[position]}

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        arrays = self._read(self._shard_of[parameters["simulation"]])
        rows = np.flatnonzero(arrays["simulation"] == parameters["simulation"])
        for row in rows[np.argsort(arrays["step"][rows])]:
            yield self._sample({name: values[row] for name, values in arrays.items()})

    def features(self, parameters: Parameters) -> np.ndarray:
        """The number of the simulation: there is nothing to gain from an order."""
        return np.array([float(parameters["simulation"])])

    def _sample(self, arrays: Mapping[str, np.ndarray]) -> Sample:
        """The sample of one row, without the padding that it has beside longer ones."""
        ragged = [geometry for geometry in self.layout.geometries if geometry.is_ragged]
        is_point = {geometry: arrays[geometry.named("weights")] > 0 for geometry in ragged}

        def values(specs: Iterable[FieldSpec]) -> dict[str, np.ndarray]:
            padded = {spec: arrays[spec.name] for spec in specs}
            return {
                spec.name: each[..., is_point[spec.on]] if spec.on in is_point else each
                for spec, each in padded.items()
            }

        brought = {name: arrays[name] for geometry in self.layout.geometries for name in geometry.travelling}
        for geometry in ragged:
            for name in geometry.travelling:
                is_edges = name == geometry.named("edges")  # padded with (0, 0), and i < j in an edge (i, j)
                kept = brought[name][:, 0] < brought[name][:, 1] if is_edges else is_point[geometry]
                brought[name] = brought[name][kept]
        return Sample(
            inputs=values((*self.inputs, *self.tangents)),
            outputs=values(self.outputs),
            geometry=brought,
            step=int(arrays["step"]),
        )

    @cached_property
    def _shard_of(self) -> dict[int, str]:
        shards = self.store.shards.items()
        return {simulation: name for name, shard in shards for simulation in shard["finished"]}

    def _new_order(self, seed: int, epoch: int) -> list[int]:
        """The training simulations in the order of an epoch."""
        generator = generator_of(seed, "epoch", epoch)
        held_out, order = set(self.held_out), []
        for name in generator.permutation(list(self.store.shards)):
            order += generator.permutation(self.store.shards[name]["finished"]).tolist()
        return [simulation for simulation in order if simulation not in held_out]
