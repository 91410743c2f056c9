"""Mean and deviation of each channel, gathered from the stream and then fixed.

Axes:  B batch, N samples of a chunk, T steps of a simulation, C channels (S for scalars), * the shape of a geometry.

Where values have quadrature weights, they count by these, and each sample counts as much as any other. So padding,
whose weight is 0, does not count, and a finer mesh gives the same statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from penstock.errors import PenstockError
from penstock.layout import Layout

# Relative to the mean: float32 has 17 values within it, and a channel that varies by less is taken as constant.
ROUNDING = 1e-6

Sources = Mapping[str, list[tuple[str, slice, slice]]]
"""For each array of a batch: the arrays of samples that its channels come from, and the channels and steps of each."""


@dataclass(frozen=True)
class _Moments:
    """The moments of one array's channels at each step, as in RunningMoments.

    They are n [T], the origin [C], m [T, C] and M [T, C].
    """

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
        """Compute the moments of a chunk's values, in two passes.

        Args:
            values_NC: the values, [N, C, *].
            steps: the step of each sample, int64 [N]; the single step 0, [1], if all samples count alike.
            num_steps: T.
            origin: the origin, float64 [C].
            weights: quadrature weights, [*] or [N, 1, *]; None where all values count alike.

        Returns:
            The moments.
        """
        num_rows = np.bincount(steps, minlength=num_steps)
        mean, squares = np.empty((2, num_steps, len(origin)))
        each = None  # weight of each value; those of a row add up to its number of samples
        if weights is not None:
            each = np.broadcast_to(weights, (len(values_NC), 1, *values_NC.shape[2:])).reshape(len(values_NC), -1)
            each = (each / each.sum(axis=1, keepdims=True, dtype=np.float64)).reshape(len(steps), -1)
        for channel in range(len(origin)):
            # a single row where steps are not distinguished, because sums over many short rows take longer
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

    def relative_to(self, origin: np.ndarray) -> _Moments:
        return replace(self, origin=origin, mean=self.mean + (self.origin - origin))

    def over(self, steps: slice) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over some of the steps, [C] each."""
        weights = self.count[steps] / max(1, self.count[steps].sum())
        mean = weights @ self.mean[steps]
        variance = self.squares[steps].sum(axis=0) / max(1, self.count[steps].sum())
        variance += weights @ (self.mean[steps] - mean) ** 2
        return self.origin + mean, np.sqrt(variance)


class RunningMoments:
    """Mean and spread of each array's channels over all values so far.

    They are computed in float64, and the values are not kept. A chunk's mean m_b and sum of squared deviations M_b,
    taken in two passes over its n_b values per channel, are joined to those of the n_a values before it by

        n = n_a + n_b,   δ = m_b - m_a,   m = m_a + δ n_b / n,   M = M_a + M_b + δ² n_a n_b / n

    (Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, Stanford
    STAN-CS-79-773, 1979; The American Statistician 37 (3), 1983, eq. 2.1). Means are kept relative to an origin, the
    first sample's mean: relative to 0, two means of 10^8 that differ by 1 would leave a δ of only 8 digits.

    A core takes in about 5 GB/s of float32, where it copies 20.

    Args:
        num_steps: T, the number of steps whose statistics are kept apart; with 1, samples of all steps count alike.
    """

    def __init__(self, num_steps: int = 1):
        self.num_steps = num_steps
        # an entry is replaced as a whole, because another thread may read it meanwhile
        self._moments: dict[str, _Moments] = {}

    def update(
        self,
        arrays: Mapping[str, np.ndarray],
        steps: np.ndarray | None = None,
        weights: Mapping[str, np.ndarray | None] | None = None,
    ) -> None:
        """Take in the samples of a chunk.

        Args:
            arrays: the samples, [N, C, *] by array name, for any N.
            steps: the step of each sample, int64 [N]; needed only if steps are kept apart.
            weights: quadrature weights by array name, [*] or [N, 1, *], of arrays whose values don't count alike.
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
        """Compute mean and standard deviation of an array's channels.

        Args:
            name: name of the array.
            steps: the steps to take them over, by default all.

        Returns:
            The mean and the standard deviation of the population, float64 [C] each.
        """
        return self._moments[name].over(steps)

    @property
    def mean(self) -> dict[str, np.ndarray]:
        """Mean over all steps, float64 [C] by array name."""
        return {name: self.over(name)[0] for name in self._moments}

    @property
    def std(self) -> dict[str, np.ndarray]:
        """Standard deviation over all steps, float64 [C] by array name.

        That of the population: the root of M / n.
        """
        return {name: self.over(name)[1] for name in self._moments}

    def state(self) -> dict[str, dict]:
        """Return the moments as JSON, from which a float64 comes back bit for bit."""
        return {
            name: {key: values.tolist() for key, values in vars(moments).items()}
            for name, moments in self._moments.items()
        }

    def join(self, state: Mapping[str, Mapping]) -> None:
        """Take in the samples that other moments have taken in.

        Args:
            state: their `state()`, with the same number of steps.
        """
        other = RunningMoments(self.num_steps)
        other.load_state(state)
        for name, moments in other._moments.items():
            before = self._moments.get(name)
            self._moments[name] = moments if before is None else moments.relative_to(before.origin).joined_to(before)

    def load_state(self, state: Mapping[str, Mapping]) -> None:
        """Continue from a `state()`.

        Args:
            state: the state. If it does not distinguish steps, all steps are taken to have had the same moments.
        """
        self._moments = {}
        for name, moments in state.items():
            count, origin, mean, squares = (np.array(moments[key]) for key in ("count", "origin", "mean", "squares"))
            if not count.shape:
                count, squares = np.full(self.num_steps, count // self.num_steps), squares / self.num_steps
                mean, squares = (np.tile(values, (self.num_steps, 1)) for values in (mean, squares))
            self._moments[name] = _Moments(count, origin, mean, squares)


class Normalization(nn.Module):
    """Maps values to normalised units and back: x -> (x - mean) / std per channel.

    It does so for each array of inputs or outputs of a layout, by its name. Means and deviations are torch buffers, so
    they travel with the weights.

    Args:
        mean: mean of the channels, float32 [C] by array name.
        std: standard deviation of the channels, float32 [C] by array name; 0 for a constant output.
    """

    def __init__(self, mean: Mapping[str, Tensor], std: Mapping[str, Tensor]):
        super().__init__()
        for name in mean:
            self.register_buffer(f"{name}_mean", mean[name])
            self.register_buffer(f"{name}_std", std[name])

    @classmethod
    def identity(cls, layout: Layout) -> Normalization:
        """Return mean 0 and std 1, until samples are known or a checkpoint is loaded.

        Args:
            layout: layout of batches.

        Returns:
            The placeholder.
        """
        channels = {block.name: block.shape[0] for block in (*layout.input_blocks, *layout.output_blocks)}
        return cls(
            {name: torch.zeros(count) for name, count in channels.items()},
            {name: torch.ones(count) for name, count in channels.items()},
        )

    @classmethod
    def from_moments(cls, moments: RunningMoments, layout: Layout, sources: Sources | None = None) -> Normalization:
        """Return the normalisation by the statistics so far, of at least one sample.

        A channel whose deviation is no more than float32's rounding of its mean is a constant. A constant output gets
        std 0, so that it is predicted as its mean. A constant input gets the absolute value of its mean as std, so that
        it becomes about 0 after centring.

        Args:
            moments: statistics of the samples.
            layout: layout of batches.
            sources: where the channels' statistics come from (`Unit.sources`); None where a row is a sample.

        Returns:
            The normalisation.
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
        """Convert values from physical to normalised units.

        Args:
            name: name of the array.
            values: its values, [B, C, *].

        Returns:
            The converted values.
        """
        return (values - self._per_channel(f"{name}_mean", values)) / self._per_channel(f"{name}_std", values)

    def decode(self, name: str, values: Tensor) -> Tensor:
        """Convert values from normalised to physical units.

        Args:
            name: name of the array.
            values: its values, [B, C, *].

        Returns:
            The converted values.
        """
        return values * self._per_channel(f"{name}_std", values) + self._per_channel(f"{name}_mean", values)

    def decode_in_stds(self, name: str, values: Tensor) -> Tensor:
        """Convert normalised values to multiples of their channel's std.

        This is `in_stds` of `decode`: the result is not centred.

        Args:
            name: name of the array.
            values: its values, [B, C, *].

        Returns:
            The converted values.
        """
        varies, offset = (along(channels, values) for channels in (self.varies(name), self._offset(name)))
        return values * varies + offset

    def in_stds(self, name: str, values: Tensor) -> Tensor:
        """Convert physical values to multiples of their channel's std, not centred.

        So channels of any unit count alike, and constant ones, which become 0, not at all.

        Args:
            name: name of the array.
            values: its values, [B, C, *].

        Returns:
            The converted values.
        """
        return values * along(self._inverse_std(name), values)

    def varies(self, name: str) -> Tensor:
        """Whether each channel of an array varies, bool [C]: it is not a constant."""
        return getattr(self, f"{name}_std") > 0

    def typical(self, name: str) -> Tensor:
        """Root mean square of each channel's values in stds, [C].

        It is 1 for a channel without an offset, and 0 for a constant.
        """
        return (self.varies(name) + self._offset(name).square()).sqrt()

    def _offset(self, name: str) -> Tensor:
        """The mean of each channel in stds, [C]."""
        return getattr(self, f"{name}_mean") * self._inverse_std(name)

    def _inverse_std(self, name: str) -> Tensor:
        """1 / std of each channel, [C]; 0 for a constant."""
        return inverse(getattr(self, f"{name}_std"))

    def _per_channel(self, buffer: str, values: Tensor) -> Tensor:
        return along(getattr(self, buffer), values)


def constants(moments: RunningMoments, sources: Sources, layout: Layout) -> list[str]:
    """Describe the channels of batches that are taken as constants.

    Args:
        moments: statistics of the samples.
        sources: where the channels' statistics come from (`Unit.sources`).
        layout: layout of batches.

    Returns:
        A line for people about each such channel.

    Raises:
        PenstockError: no output varies, so there is nothing to learn.
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
    """Whether float32 can't distinguish a channel's values.

    Args:
        mean: mean of each channel.
        std: standard deviation of each channel.

    Returns:
        bool, in the shape of `std`.
    """
    return std <= ROUNDING * np.abs(mean)


def _describe(name: str, mean: float, std: float, *, is_output: bool) -> str:
    what, then = (
        ("output", "predicted as that, and left out of loss and errors")
        if is_output
        else ("input", "its effect can't be learned")
    )
    if std == 0:
        return f"{what} {name!r} is {mean:.7g} in all samples so far: {then}"
    return (
        f"{what} {name!r} varies by {std:.2g} about {mean:.7g}, which float32 can't resolve: {then}; if that variation "
        "is more than noise, subtract the offset from it"
    )


def _statistics(moments: RunningMoments, sources: Sources | None, layout: Layout) -> tuple[dict[str, np.ndarray], ...]:
    """Means and standard deviations of batches' inputs and outputs, [C] by array."""
    names = [block.name for block in (*layout.input_blocks, *layout.output_blocks)]
    everything = slice(None)
    sources = sources or {name: [(name, everything, everything)] for name in names}
    parts = {
        name: [[values[channels] for values in moments.over(array, steps)] for array, channels, steps in sources[name]]
        for name in names
    }
    return tuple({name: np.concatenate([part[i] for part in parts[name]]) for name in parts} for i in range(2))


def inverse(std: Tensor) -> Tensor:
    """Return 1 / std, and 0 where std is 0."""
    return torch.where(std > 0, 1 / std, 0.0)


def along(channels: Tensor, values: Tensor) -> Tensor:
    """Reshape values per channel, [C], so that they broadcast over values [B, C, *]."""
    return channels.reshape([-1] + [1] * (values.dim() - 2))
