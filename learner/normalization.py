"""Per-channel mean and standard deviation: gathered from the stream as samples come in, then fixed for good.

Axes:  B batch, N samples of a chunk, T steps of a simulation, C channels (S for scalars), * the shape of a geometry.

Where values have quadrature weights, they count by these, and each sample as much as any other: so padding, of weight
0, counts nothing, and statistics are the same on a finer mesh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from penstock.errors import PenstockError
from penstock.layout import Layout

ROUNDING = (
    1e-6  # of the mean: float32 knows 17 values apart within as much, and what varies by less is taken as constant
)

Sources = Mapping[str, list[tuple[str, slice]]]
"""Of each array of a batch the arrays of samples that its channels are taken from, and at which steps."""


@dataclass(frozen=True)
class _Moments:
    """Of one array's channels at each step: n [T], and the origin [C], m [T, C] and M [T, C] of RunningMoments."""

    count: np.ndarray
    origin: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(
        cls,
        values_NC: np.ndarray,
        steps: np.ndarray,
        num_steps: int,
        origin: np.ndarray,
        weights: np.ndarray | None = None,
    ) -> _Moments:
        """Of a chunk's values, in two passes. weights: [*] or [N, 1, *], where they don't count alike."""
        num_rows = np.bincount(steps, minlength=num_steps)
        mean, squares = np.empty((2, num_steps, len(origin)))
        each = None  # weight of each value: of a row's values together the number of its samples
        if weights is not None:
            each = np.broadcast_to(weights, (len(values_NC), 1, *values_NC.shape[2:])).reshape(len(values_NC), -1)
            each = (each / each.sum(axis=1, keepdims=True, dtype=np.float64)).reshape(len(steps), -1)
        for channel in range(len(origin)):
            # one row where steps are not told apart: sums over short rows take longer
            deviations = values_NC[:, channel].astype(np.float64).reshape(len(steps), -1)
            deviations -= origin[channel]
            count = deviations.shape[1] if each is None else len(values_NC) // len(steps)
            means = deviations.mean(axis=1) if each is None else np.einsum("np,np->n", each, deviations) / count
            mean[:, channel] = np.bincount(steps, means, num_steps) / np.maximum(1, num_rows)
            deviations -= mean[steps, channel, None]
            operands = (deviations, deviations) if each is None else (each, deviations, deviations)
            sums = np.einsum(f"{','.join(['np'] * len(operands))}->n", *operands)
            squares[:, channel] = np.bincount(steps, sums, num_steps)
        return cls(num_rows * count, origin, mean, squares)

    def joined_to(self, before: _Moments) -> _Moments:
        count, shift = before.count + self.count, self.mean - before.mean
        share = (self.count / np.maximum(1, count))[:, None]
        return _Moments(
            count,
            self.origin,
            before.mean + shift * share,
            before.squares + self.squares + shift**2 * before.count[:, None] * share,
        )

    def over(self, steps: slice) -> tuple[np.ndarray, np.ndarray]:
        """[C] mean and standard deviation over some of the steps."""
        weights = self.count[steps] / max(1, self.count[steps].sum())
        mean = weights @ self.mean[steps]
        variance = self.squares[steps].sum(axis=0) / max(1, self.count[steps].sum())
        variance += weights @ (self.mean[steps] - mean) ** 2
        return self.origin + mean, np.sqrt(variance)


class RunningMoments:
    """Mean and spread of each array's channels over all values so far, in float64, without keeping the values.

    A chunk's own mean m_b and sum of squared deviations M_b, taken in two passes over its n_b values a channel, are
    joined to those of the n_a before it by

        n = n_a + n_b,   δ = m_b - m_a,   m = m_a + δ n_b / n,   M = M_a + M_b + δ² n_a n_b / n

    (Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, Stanford
    STAN-CS-79-773, 1979; The American Statistician 37 (3), 1983, eq. 2.1). Means are kept relative to an origin, the
    first sample's mean: about 0, two means of 10^8 that differ by 1 leave a δ of 8 digits only.

    num_steps: T, the steps that are kept apart; at 1 samples of any step count alike.

    A core takes in about 5 GB/s of float32, where it copies 20.
    """

    def __init__(self, num_steps: int = 1):
        self.num_steps = num_steps
        # an entry is replaced as a whole, for another thread may read it meanwhile
        self._moments: dict[str, _Moments] = {}

    def update(
        self,
        arrays: Mapping[str, np.ndarray],
        steps: np.ndarray | None = None,
        weights: Mapping[str, np.ndarray | None] | None = None,
    ) -> None:
        """Takes the samples of a chunk in: arrays [N, C, *] by name, N of any size, and their steps int64 [N].

        weights: by array, [*] or [N, 1, *], of those whose values don't count alike.
        """
        for name, values_NC in arrays.items():
            if not len(values_NC):
                continue
            before = self._moments.get(name)
            first_C = values_NC[0].reshape(values_NC.shape[1], -1).mean(axis=1, dtype=np.float64)
            rows = np.zeros(1, np.int64) if self.num_steps == 1 else steps
            origin = first_C if before is None else before.origin
            chunk = _Moments.of(values_NC, rows, self.num_steps, origin, (weights or {}).get(name))
            self._moments[name] = chunk if before is None else chunk.joined_to(before)

    def over(self, name: str, steps: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """float64 [C] mean, and standard deviation of the population, of an array's values at some of the steps."""
        return self._moments[name].over(steps)

    @property
    def mean(self) -> dict[str, np.ndarray]:
        """float64 [C] by array name, over all steps."""
        return {name: self.over(name)[0] for name in self._moments}

    @property
    def std(self) -> dict[str, np.ndarray]:
        """float64 [C] by array name, over all steps, of the population: M / n under the root."""
        return {name: self.over(name)[1] for name in self._moments}

    def state(self) -> dict[str, dict]:
        """As JSON: a float64 comes back from it bit for bit."""
        return {
            name: {key: values.tolist() for key, values in vars(moments).items()}
            for name, moments in self._moments.items()
        }

    def load_state(self, state: Mapping[str, Mapping]) -> None:
        """Goes on from `state()`; from one that does not know steps apart as if all of them had been alike."""
        self._moments = {}
        for name, moments in state.items():
            count, origin, mean, squares = (np.array(moments[key]) for key in ("count", "origin", "mean", "squares"))
            if not count.shape:
                count, squares = np.full(self.num_steps, count // self.num_steps), squares / self.num_steps
                mean, squares = (np.tile(values, (self.num_steps, 1)) for values in (mean, squares))
            self._moments[name] = _Moments(count, origin, mean, squares)


class Normalization(nn.Module):
    """x -> (x - mean) / std and back, for each array of inputs or outputs of a Layout, by its name.

    mean, std: [C] tensors by array name. They are buffers, so they travel with the weights.
    """

    def __init__(self, mean: Mapping[str, Tensor], std: Mapping[str, Tensor]):
        super().__init__()
        for name in mean:
            self.register_buffer(f"{name}_mean", mean[name])
            self.register_buffer(f"{name}_std", std[name])

    @classmethod
    def identity(cls, layout: Layout) -> Normalization:
        """Mean 0 and std 1: the placeholder until samples are known or a checkpoint is loaded."""
        channels = {block.name: block.shape[0] for block in (*layout.input_blocks, *layout.output_blocks)}
        return cls(
            {name: torch.zeros(count) for name, count in channels.items()},
            {name: torch.ones(count) for name, count in channels.items()},
        )

    @classmethod
    def from_moments(cls, moments: RunningMoments, layout: Layout, sources: Sources | None = None) -> Normalization:
        """The statistics so far, of a sample or more.

        A channel whose deviation is no more than float32's rounding of its mean is a constant. Of the outputs it gets
        std 0, so that it is predicted as its mean; of the inputs its mean's size, so that it is about 0.

        layout: of batches. sources: where the channels' statistics come from, where batches are not the samples
            themselves (`Draw.sources`).
        """
        mean, std = _statistics(moments, sources, layout)
        for name in mean:
            size = np.abs(mean[name])
            is_output = layout.blocks[name].role == "output"
            unit = np.zeros_like(size) if is_output else np.where(size == 0, 1.0, size)
            std[name] = np.where(is_constant(mean[name], std[name]), unit, std[name])
        tensors = [{name: torch.tensor(a, dtype=torch.float32) for name, a in arrays.items()} for arrays in (mean, std)]
        return cls(*tensors)

    def encode(self, name: str, values: Tensor) -> Tensor:
        """Physical units [B, C, *] to normalised ones."""
        return (values - self._per_channel(f"{name}_mean", values)) / self._per_channel(f"{name}_std", values)

    def decode(self, name: str, values: Tensor) -> Tensor:
        """Normalised units [B, C, *] to physical ones."""
        return values * self._per_channel(f"{name}_std", values) + self._per_channel(f"{name}_mean", values)

    def decode_in_stds(self, name: str, values: Tensor) -> Tensor:
        """`in_stds` of `decode`: normalised units [B, C, *] to multiples of their channel's std."""
        varies, offset = (along(channels, values) for channels in (self.varies(name), self._offset(name)))
        return values * varies + offset

    def in_stds(self, name: str, values: Tensor) -> Tensor:
        """Values [B, C, *] in multiples of their channel's std, not centred: channels of any unit count alike, and
        constant ones, which are 0, not at all."""
        return values * along(self._inverse_std(name), values)

    def varies(self, name: str) -> Tensor:
        """bool [C]: whether the channel is no constant."""
        return getattr(self, f"{name}_std") > 0

    def typical(self, name: str) -> Tensor:
        """[C] the root mean square of each channel's values in stds: 1 without an offset, 0 for a constant."""
        return (self.varies(name) + self._offset(name).square()).sqrt()

    def _offset(self, name: str) -> Tensor:
        """[C] the mean in stds."""
        return getattr(self, f"{name}_mean") * self._inverse_std(name)

    def _inverse_std(self, name: str) -> Tensor:
        """[C] 0 for a constant."""
        return inverse(getattr(self, f"{name}_std"))

    def _per_channel(self, buffer: str, values: Tensor) -> Tensor:
        return along(getattr(self, buffer), values)


def constants(moments: RunningMoments, sources: Sources, layout: Layout) -> list[str]:
    """A line for people about each channel of batches, of this layout, that is taken as a constant.

    Raises PenstockError when no output varies: there is nothing to learn.
    """
    lines = []
    mean, std = _statistics(moments, sources, layout)
    for name in mean:
        block = layout.blocks[name]
        for quantity, value, deviation in zip(block.channel_names, mean[name], std[name], strict=True):
            if is_constant(value, deviation):
                lines.append(_describe(quantity, value, deviation, is_output=block.role == "output"))
    if all(is_constant(mean[block.name], std[block.name]).all() for block in layout.output_blocks):
        raise PenstockError(f"no output varies, so there is nothing to learn: {lines[-1]}", exit_code=1)
    return lines


def is_constant(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Where float32 does not know the values apart."""
    return std <= ROUNDING * np.abs(mean)


def _describe(name: str, mean: float, std: float, *, is_output: bool) -> str:
    what, then = (
        ("output", "predicted as that, and left out of loss and errors")
        if is_output
        else ("input", "what it does can't be learned")
    )
    if std == 0:
        return f"{what} {name!r} is {mean:.7g} in all samples so far: {then}"
    return (
        f"{what} {name!r} varies by {std:.2g} about {mean:.7g}, which float32 does not hold: {then}; if that variation "
        "is more than noise, give it less its offset"
    )


def _statistics(moments: RunningMoments, sources: Sources | None, layout: Layout) -> tuple[dict[str, np.ndarray], ...]:
    """Means and standard deviations of the channels of batches, [C] by array of inputs and outputs."""
    names = [block.name for block in (*layout.input_blocks, *layout.output_blocks)]
    sources = sources or {name: [(name, slice(None))] for name in names}
    parts = {name: [moments.over(*source) for source in sources[name]] for name in names}
    return tuple({name: np.concatenate([part[i] for part in parts[name]]) for name in parts} for i in range(2))


def inverse(std: Tensor) -> Tensor:
    """1 / std, and 0 where that is 0."""
    return torch.where(std > 0, 1 / std, 0.0)


def along(channels: Tensor, values: Tensor) -> Tensor:
    """[C] in the shape that multiplies values [B, C, *]."""
    return channels.reshape([-1] + [1] * (values.dim() - 2))
