"""Parameter spaces and seeded draws, with the distributions of scalars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np

from penstock.registry import nearest
from penstock.solvers.parameters.distribution import AtQuantiles, Distribution, Narrowable, WithQuantiles, can
from penstock.solvers.parameters.scalars import Discrete, LogUniform, Normal, TruncatedNormal, Uniform

__all__ = [
    "Discrete",
    "LogUniform",
    "Normal",
    "ParameterSpace",
    "TruncatedNormal",
    "Uniform",
    "generator_of",
    "seeds_of",
]


def generator_of(seed: int, design: str, simulation: int) -> np.random.Generator:
    """The random generator of one simulation.

    It depends on nothing else, so any worker can redo the simulation.

    Args:
        seed: seed of the run.
        design: name of the design, such as "training" or "validation".
        simulation: number of the simulation.

    Returns:
        A fresh generator.
    """
    return np.random.default_rng(_sequence(seed, design, simulation))


class Seed(np.random.bit_generator.ISpawnableSeedSequence):
    """What the generators of one simulation begin with, computed beforehand.

    It stands for the `np.random.SeedSequence` of `generator_of`, whose first four words take ten times as long to
    compute one at a time as for the simulations of a lease together.

    Args:
        source: seed of the run, name of the design, number of the simulation.
        words: the first words of its sequence, uint64 [4].
    """

    def __init__(self, source: tuple[int, str, int], words: np.ndarray):
        self._source = source
        self._words = words
        self._spawning: np.random.SeedSequence | None = None  # counts its children

    def generator(self) -> np.random.Generator:
        """A fresh generator, with the numbers of that of `generator_of`."""
        return np.random.Generator(np.random.PCG64(Seed(self._source, self._words)))  # which spawns by itself

    def generate_state(self, n_words: int, dtype: type = np.uint32) -> np.ndarray:
        """The first words of the sequence."""
        if n_words == len(self._words) and dtype == np.uint64:
            return self._words
        return _sequence(*self._source).generate_state(n_words, dtype)

    def spawn(self, n_children: int) -> list[np.random.SeedSequence]:
        """The sequences of further generators."""
        self._spawning = self._spawning or _sequence(*self._source)
        return self._spawning.spawn(n_children)


def seeds_of(seed: int, design: str, simulations: Sequence[int]) -> list[Seed]:
    """The seeds of simulations.

    Args:
        seed: seed of the run.
        design: name of the design.
        simulations: numbers of the simulations.

    Returns:
        A seed for each, whose generators give the numbers of `generator_of`.
    """
    sources = [(seed, design, simulation) for simulation in simulations]
    if max(simulations, default=0) > MASK:
        words = np.stack([_sequence(*source).generate_state(4, np.uint64) for source in sources])
    else:
        first = [word for number in (seed, crc32(design.encode())) for word in _words_of(number)]
        entropy = [np.full(len(simulations), word, np.uint32) for word in first]
        words = _first_words([*entropy, np.array(simulations, np.uint32)])
    return [Seed(source, each) for source, each in zip(sources, words, strict=True)]


def _sequence(seed: int, design: str, simulation: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed, crc32(design.encode()), simulation))


# What `np.random.SeedSequence` does, for many entropies at once: O'Neill's seed_seq_fe (pcg-random.org), which NumPy
# promises to keep. A test compares them.
MASK = 0xFFFFFFFF
POOL = 4


class _Hash:
    """Mixes words with a constant, another one each time."""

    def __init__(self, constant: int, factor: int):
        self._constant, self._factor = constant, factor

    def __call__(self, words: np.ndarray) -> np.ndarray:
        words = words ^ np.uint32(self._constant)
        self._constant = self._constant * self._factor & MASK
        words *= np.uint32(self._constant)
        words ^= words >> np.uint32(16)
        return words


def _mixed(words: np.ndarray, others: np.ndarray) -> np.ndarray:
    words = np.uint32(0xCA01F9DD) * words - np.uint32(0x4973F715) * others
    words ^= words >> np.uint32(16)
    return words


def _first_words(entropy: Sequence[np.ndarray]) -> np.ndarray:
    """The first words of sequences, uint64 [N, 4], from words of entropy, [N] each."""
    hashed = _Hash(0x43B0D7E5, 0x931E8875)
    pool = [hashed(words) for words in [*entropy, *[np.zeros_like(entropy[0])] * POOL][:POOL]]
    for source in range(POOL):
        for target in range(POOL):
            if source != target:
                pool[target] = _mixed(pool[target], hashed(pool[source]))
    for words in entropy[POOL:]:
        pool = [_mixed(target, hashed(words)) for target in pool]
    hashed = _Hash(0x8B51F9DD, 0x58F38DED)
    return np.stack([hashed(words) for words in pool * 2], axis=1).view(np.uint64)


def _words_of(number: int) -> list[int]:
    """The 32-bit words of a number, the lowest first."""
    return [number >> shift & MASK for shift in range(0, max(1, number.bit_length()), 32)]


class ParameterSpace:
    """Named distributions, drawn in the order given.

    For instance ParameterSpace(wavenumber=Uniform(1, 5), ...).

    Args:
        **distributions: the distribution of each parameter, by its name.
    """

    def __init__(self, **distributions: Distribution):
        self.distributions = distributions

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """One value of every parameter, by name."""
        return {name: distribution.draw(generator) for name, distribution in self.distributions.items()}

    def features(self, parameters: dict[str, Any]) -> np.ndarray:
        """The features [F] of all parameters, in their order."""
        return np.concatenate(
            [distribution.features(parameters[name]) for name, distribution in self.distributions.items()]
        )

    @property
    def takes_quantiles(self) -> bool:
        """Whether `at_quantiles` works, because each distribution is `AtQuantiles`."""
        return all(can(distribution, AtQuantiles) for distribution in self.distributions.values())

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> dict[str, Any]:
        """The parameters with these quantiles, by name.

        Args:
            quantiles: numbers inside of (0, 1), in the order of `quantile_names`.
            generator: for what the quantiles leave open, such as the fine modes of a field.
        """
        values, first = {}, 0
        for name, distribution in self.distributions.items():
            end = first + len(distribution.quantile_names(name))
            values[name] = distribution.at_quantiles(quantiles[first:end], generator)
            first = end
        return values

    def narrowed(self, given: Mapping[str, Any]) -> ParameterSpace:
        """The space with some distributions narrowed or fixed.

        Args:
            given: what `narrowed` of a distribution takes, by the parameter's name.

        Raises:
            ValueError: a parameter is unknown, can't be narrowed, or not so; the message begins with its name.
        """
        distributions = dict(self.distributions)
        for name, part in given.items():
            if name not in distributions:
                raise ValueError(f"{name}: unknown parameter; {nearest(name, distributions)}")
            if not isinstance(distributions[name], Narrowable):
                raise ValueError(
                    f"{name} = {part!r}: its distribution can't be narrowed: {distributions[name].describe()}"
                )
            try:
                distributions[name] = distributions[name].narrowed(part)
            except ValueError as error:
                raise ValueError(f"{name} = {part!r}: {error}") from error
        return ParameterSpace(**distributions)

    @cached_property
    def quantile_names(self) -> tuple[str, ...]:
        """The names of `quantiles`; none if a distribution is not `WithQuantiles`."""
        distributions = self.distributions
        if not all(can(distribution, WithQuantiles) for distribution in distributions.values()):
            return ()
        return tuple(quantile for name in distributions for quantile in distributions[name].quantile_names(name))

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles [F] of the draw that this generator gives.

        They are in the order of `quantile_names`, independent and uniform on [0, 1].
        """
        if not self.quantile_names:
            return np.empty(0)
        return np.concatenate([distribution.quantiles(generator) for distribution in self.distributions.values()])

    def describe(self) -> dict[str, str]:
        """One line of prose per parameter, as an exported model's card prints it."""
        return {name: distribution.describe() for name, distribution in self.distributions.items()}
