"""Per-channel mean and standard deviation: gathered from the stream as samples come in, then fixed for good.

Axes:  B batch, N samples of a chunk, C channels (S for scalars), * the grid's axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from penstock.sample import Layout


@dataclass(frozen=True)
class _Moments:
    """Of one array's channels: n, and [C] each the origin, m and M of RunningMoments."""

    count: int
    origin: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    def joined_to(self, before: _Moments) -> _Moments:
        count, shift = before.count + self.count, self.mean - before.mean
        return _Moments(
            count,
            self.origin,
            before.mean + shift * (self.count / count),
            before.squares + self.squares + shift**2 * (before.count * self.count / count),
        )


class RunningMoments:
    """Mean and spread of each array's channels over all values so far, in float64, without keeping the values.

    A chunk's own mean m_b and sum of squared deviations M_b, taken in two passes over its n_b values a channel, are
    joined to those of the n_a before it by

        n = n_a + n_b,   δ = m_b - m_a,   m = m_a + δ n_b / n,   M = M_a + M_b + δ² n_a n_b / n

    (Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, Stanford
    STAN-CS-79-773, 1979; The American Statistician 37 (3), 1983, eq. 2.1). Means are kept relative to an origin, the
    first sample's mean: about 0, two means of 10^8 that differ by 1 leave a δ of 8 digits only.

    A core takes in about 5 GB/s of float32, where it copies 20.
    """

    def __init__(self):
        # an entry is replaced as a whole, for another thread may read it meanwhile
        self._moments: dict[str, _Moments] = {}

    def update(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes the samples of a chunk in: arrays [N, C, *] by name, N of any size."""
        for name, values_NC in arrays.items():
            if not len(values_NC):
                continue
            before = self._moments.get(name)
            first_C = values_NC[0].reshape(values_NC.shape[1], -1).mean(axis=1, dtype=np.float64)
            origin = first_C if before is None else before.origin
            mean, squares = np.empty_like(origin), np.empty_like(origin)
            for channel in range(len(origin)):
                deviations = values_NC[:, channel].astype(np.float64).ravel()
                deviations -= origin[channel]
                mean[channel] = deviations.mean()
                deviations -= mean[channel]
                squares[channel] = deviations @ deviations
            chunk = _Moments(deviations.size, origin, mean, squares)
            self._moments[name] = chunk if before is None else chunk.joined_to(before)

    @property
    def mean(self) -> dict[str, np.ndarray]:
        """float64 [C] by array name."""
        return {name: moments.origin + moments.mean for name, moments in self._moments.items()}

    @property
    def std(self) -> dict[str, np.ndarray]:
        """float64 [C] by array name, of the population: M / n under the root."""
        return {name: np.sqrt(moments.squares / moments.count) for name, moments in self._moments.items()}

    def state(self) -> dict[str, dict]:
        """As JSON: a float64 comes back from it bit for bit."""
        return {
            name: {
                "count": moments.count,
                "origin": moments.origin.tolist(),
                "mean": moments.mean.tolist(),
                "squares": moments.squares.tolist(),
            }
            for name, moments in self._moments.items()
        }

    def load_state(self, state: Mapping[str, Mapping]) -> None:
        """Goes on from `state()`."""
        self._moments = {
            name: _Moments(
                moments["count"], *(np.array(moments[key], np.float64) for key in ("origin", "mean", "squares"))
            )
            for name, moments in state.items()
        }


class Normalization(nn.Module):
    """x -> (x - mean) / std and back, for each array of a Layout by name: "fields", "scalars", "targets".

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
        channels = {name: shape[0] for name, shape in layout.shapes.items()}
        return cls(
            {name: torch.zeros(count) for name, count in channels.items()},
            {name: torch.ones(count) for name, count in channels.items()},
        )

    @classmethod
    def from_moments(
        cls, moments: RunningMoments, per_channel: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] = dict
    ) -> Normalization:
        """The statistics so far, of a sample or more. A channel without spread gets std 1, so it is only centred.

        per_channel: from one value a channel of the samples, [C] by array, to one a channel of the batches, where their
        channels differ (`Draw.per_channel`).
        """
        mean, std = per_channel(moments.mean), per_channel(moments.std)
        for name in mean:
            negligible = std[name] <= 1e-6 * np.abs(mean[name])  # what float32 makes of a constant
            std[name] = np.where(negligible, 1.0, std[name])
        tensors = [{name: torch.tensor(a, dtype=torch.float32) for name, a in arrays.items()} for arrays in (mean, std)]
        return cls(*tensors)

    def encode(self, name: str, values: Tensor) -> Tensor:
        """Physical units [B, C, *] to normalised ones."""
        return (values - self._per_channel(f"{name}_mean", values)) / self._per_channel(f"{name}_std", values)

    def decode(self, name: str, values: Tensor) -> Tensor:
        """Normalised units [B, C, *] to physical ones."""
        return values * self._per_channel(f"{name}_std", values) + self._per_channel(f"{name}_mean", values)

    def decode_in_stds(self, name: str, values: Tensor) -> Tensor:
        """`in_stds` of `decode`, in one pass: normalised units [B, C, *] to multiples of their channel's std."""
        mean, std = (self._per_channel(f"{name}_{of}", values) for of in ("mean", "std"))
        return values + mean / std

    def in_stds(self, name: str, values: Tensor) -> Tensor:
        """Values [B, C, *] in multiples of their channel's std, not centred: channels of any unit count alike."""
        return values / self._per_channel(f"{name}_std", values)

    def _per_channel(self, buffer: str, values: Tensor) -> Tensor:
        return getattr(self, buffer).reshape([-1] + [1] * (values.dim() - 2))
