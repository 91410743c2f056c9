"""The error on simulations that are never trained on, measured between steps.

VRMSE is the variance-scaled root mean squared error of The Well (Ohana et al., NeurIPS 2024, arXiv 2412.00568), but
with the variance over the whole set, samples and points alike. A relative error of 1e-4 says little about a temperature
of 300 K that varies by 0.03 K; a VRMSE of 1 says that none of the variation was learnt.

Axes:  N samples, B samples of a slice, C channels of all outputs, Q output quantities, * the shape of a geometry,
M measured errors of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from penstock.layout import Layout
from penstock.learner.buffers.storage import to_device
from penstock.learner.copies import copied, follow
from penstock.learner.losses.losses import ratio
from penstock.learner.losses.norms import has_gradients, norm_of
from penstock.learner.normalization import RunningMoments, along, inverse, is_constant
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.rollouts import RolloutErrors, Rollouts
from penstock.status import WorstCase

BATCH_SIZE = 16  # rows of a slice, which delays the next step
MOST_WORST_BYTES = 8 << 20  # of a row that is reported, which travels to the driver


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics of one error over all samples.

    An error counts as infinite if the prediction was not finite.
    """

    mean: float
    median: float
    p99: float
    max: float

    @classmethod
    def of(cls, errors_N: np.ndarray) -> Statistics:
        """Return the statistics of errors [N]."""
        ordered = np.sort(errors_N)
        return cls(
            mean=float(ordered.mean()),
            median=_quantile(ordered, 0.5),
            p99=_quantile(ordered, 0.99),
            max=float(ordered[-1]),
        )


@dataclass(frozen=True, kw_only=True)
class FieldErrors:
    """The errors of one output quantity over all samples, its components together."""

    relative_l2: Statistics
    """Statistics of ||prediction - target|| / ||target|| in the L2 norm."""
    h1: Statistics | None
    """The same in the H1 norm; None if an output's geometry has no gradients."""
    vrmse: float
    """Root of the mean squared error over the variance.

    It is 1 for a prediction of the mean alone; 1 - vrmse² is the share of the variance that is explained.
    """


@dataclass(frozen=True, kw_only=True)
class Errors:
    """The errors of a surrogate on a validation set.

    Errors of the whole output count every channel in multiples of its standard deviation, as the losses do. Errors of a
    plain field are the same in any unit. If a target is smaller than SMALLEST_SHARE of the root mean square of the
    targets at its step, its error is divided by that share instead. Constant outputs count nowhere.
    """

    relative_l2: Statistics
    """Statistics of ||prediction - target|| / ||target|| in the L2 norm."""
    h1: Statistics | None
    """The same in the H1 norm; None if an output's geometry has no gradients: points that vary, a masked grid."""
    vrmse: float
    """Root mean square of the channels' VRMSE."""
    fields: dict[str, FieldErrors]
    """Errors of each output by its name."""
    constants: dict[str, float]
    """Predicted value of each output that never varies, or of each such component of a vector, by name."""
    persistence: float | None = None
    """The mean of `relative_l2` for the forecast that nothing changes.

    None unless each output is an input of the next step (`Layout.feeds`) and there are several steps.
    """
    rollout: RolloutErrors | None = None
    """Errors over time, where rows lead to several frames or can be repeated; else None."""

    def as_dict(self) -> dict:
        """Return the errors as JSON.

        It is {"relative_l2": {"mean", "median", "p99", "max"}, "h1": likewise, "vrmse", "fields": {name: all three},
        "constants": {name: value}, "persistence", "rollout": RolloutErrors or null}.
        """
        return asdict(self)


class Validation:
    """Held-out samples, on which a surrogate is evaluated slice by slice.

        validation.begin(surrogate)
        while (errors := validation.advance()) is None:
            ...  # train a step

    `begin` copies the surrogate, so that all slices measure the same weights while training changes them. A slice is
    one batch's forward pass in float32; nothing waits for the device before the last slice. Only the slice that is due
    goes to a GPU, because the set of a transient problem may be larger than what training leaves of the GPU's memory.

    Errors are measured in the norms of orders 0 and 1 that the outputs' geometries have (`norm_of`); those of scalars
    by their values.

    Args:
        arrays: arrays of the samples, [N, C, *]. They are not copied, and must not change.
        layout: layout of the arrays, which is that of batches.
        steps: step of each row's inputs in its simulation, int64 [N]; None if all rows are alike.
        rollouts: the rollouts along the rows, which are evaluated after them; None for none.
        batch_size: number of rows in a slice, at least 1.
        device: where the rows are evaluated.

    Raises:
        ValueError: `batch_size` is below 1.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        layout: Layout,
        *,
        steps: np.ndarray | None = None,
        rollouts: Rollouts | None = None,
        batch_size: int = BATCH_SIZE,
        device: torch.device | str = "cpu",
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.device = torch.device(device)
        self.arrays = dict(arrays)
        self.layout = layout
        self.batch_size = batch_size
        self._columns = _Columns(layout)
        # [N, M]: for each norm the relative errors of the whole output and of every quantity; then each channel's mean
        # squared error
        self._errors = torch.empty(len(self), self._columns.num, device=self.device)
        numbers, steps = np.unique(np.zeros(len(self)) if steps is None else steps, return_inverse=True)
        moments = RunningMoments(len(numbers))
        for start in range(0, len(self), batch_size):
            rows = {name: array[start : start + batch_size] for name, array in self.arrays.items()}
            targets = {block.name: rows[block.name] for block in layout.output_blocks}
            weights = {block.name: layout.weights_of(block, rows) for block in layout.output_blocks}
            moments.update(targets, steps[start : start + batch_size], weights)
        stds, sizes = [], []
        for block in layout.output_blocks:
            mean, std = moments.over(block.name)
            stds.append(np.where(is_constant(mean, std), 0.0, std))
            of_steps = [np.hypot(*moments.over(block.name, slice(step, step + 1))) for step in range(len(numbers))]
            sizes.append(np.stack(of_steps)[steps])
        self._std = self._on_device(np.concatenate(stds))  # [C]
        self._sizes = self._on_device(np.concatenate(sizes, axis=1))  # [N, C] targets' root mean square at a row's step
        self._unchanged = torch.empty(len(self), device=self.device)  # [N] relative errors if nothing changed
        self._compares = False  # whether they are to be measured, once for all weights
        self._num_done = len(self)
        self._rollouts = rollouts
        self._surrogate: Surrogate | None = None
        self._snapshot: Surrogate | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def is_running(self) -> bool:
        """Whether slices are left to evaluate."""
        return self._num_done < len(self) or (self._rollouts is not None and self._rollouts.is_running)

    def begin(self, surrogate: Surrogate) -> None:
        """Copy a surrogate to the device and begin to evaluate it.

        An evaluation that was running is given up.

        Args:
            surrogate: the surrogate.
        """
        if surrogate is self._surrogate:
            follow(self._snapshot, surrogate)
        else:
            self._surrogate = surrogate
            self._snapshot = copied(surrogate).to(self.device).requires_grad_(False).eval()
            self._compares = self._rollouts is not None and self._rollouts.has_persistence
        self._num_done = 0
        # A channel that is constant in training but varies in this set is measured in its deviation in this set.
        stds = [getattr(self._snapshot.normalization, f"{block.name}_std") for block in self.layout.output_blocks]
        std = torch.cat(stds)
        self._inverse_std = inverse(torch.where(std > 0, std, self._std))
        if self._rollouts is not None:
            self._rollouts.begin(
                self._snapshot,
                self._batch,
                inverse_std_C=self._inverse_std,
                sizes_NC=self._sizes,
                batch_size=self.batch_size,
            )

    def advance(self) -> Errors | None:
        """Evaluate the next slice. The host waits for the device only after the last one.

        Returns:
            The errors if it was the last slice, else None.
        """
        if self._num_done < len(self):
            self._evaluate(slice(self._num_done, min(self._num_done + self.batch_size, len(self))))
        else:
            self._rollouts.advance()
        return None if self.is_running else self._summary()

    def _batch(self, rows: slice | np.ndarray) -> dict[str, Tensor]:
        return {name: to_device(array[rows], self.device) for name, array in self.arrays.items()}

    def _evaluate(self, rows: slice) -> None:
        batch = self._batch(rows)
        with torch.no_grad():
            prediction = self._snapshot.predict(batch)
            typical_BC = self._sizes[rows] * self._inverse_std
            errors = self._columns.errors(prediction, batch, self._inverse_std, typical_BC)
            if self._compares:
                unchanged = self._rollouts.persistence(batch)
                self._unchanged[rows] = self._columns.errors(unchanged, batch, self._inverse_std, typical_BC)[:, 0]
            torch.nan_to_num(errors, nan=torch.inf, posinf=torch.inf, out=self._errors[rows])
        self._num_done = rows.stop

    def finish(self) -> Errors:
        """Evaluate all slices that are left, and return the errors."""
        while (errors := self.advance()) is None:
            pass
        return errors

    def errors(self, surrogate: Surrogate) -> Errors:
        """Evaluate a surrogate on the whole set at once, and return the errors."""
        self.begin(surrogate)
        return self.finish()

    def sample_errors(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The errors of the surrogate that was evaluated last, sample by sample.

        Returns:
            The relative L2 error of each sample's whole output, float64 [N], and that of each output by name, constant
            ones included.
        """
        errors = self._errors.cpu().double().numpy()
        return errors[:, 0], {name: errors[:, 1 + number] for number, name in enumerate(self._columns.quantities)}

    def worst_case(self, step: int) -> WorstCase | None:
        """The row with the largest error of the surrogate that was evaluated last.

        Args:
            step: number of training steps that the surrogate has had.

        Returns:
            The row, predicted again alone; None if its arrays are larger than MOST_WORST_BYTES.
        """
        of_rows, of_outputs = self.sample_errors()
        row = int(of_rows.argmax())
        arrays = {name: array[row : row + 1] for name, array in self.arrays.items()}
        if sum(array.nbytes for array in arrays.values()) > MOST_WORST_BYTES:
            return None
        with torch.no_grad():
            predicted = self._snapshot.predict(self._batch(slice(row, row + 1)))
        return WorstCase(
            step=step,
            row=row,
            arrays={name: array.copy() for name, array in arrays.items()},  # not a view, which keeps the whole set
            predictions={name: values.cpu().numpy() for name, values in predicted.items()},
            errors={name: float(errors[row]) for name, errors in of_outputs.items()},
        )

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def _summary(self) -> Errors:
        columns, std_C, inverse_C = (
            tensor.cpu().double().numpy() for tensor in (self._errors, self._std, self._inverse_std)
        )
        *by_norm, squares_NC = self._columns.split(columns)
        statistics = [[Statistics.of(errors) for errors in errors_NQ.T] for errors_NQ in by_norm]  # whole output first
        if len(statistics) == 1:
            statistics.append([None] * len(statistics[0]))
        # An output that varies in training but not in this set has its error in units of its deviation in training.
        std_C = np.where(std_C > 0, std_C * inverse_C, 1.0)
        vrmse = np.sqrt(squares_NC.mean(axis=0)) / std_C
        varies = inverse_C > 0
        means = np.concatenate(
            [
                getattr(self._snapshot.normalization, f"{block.name}_mean").cpu().double().numpy()
                for block in self.layout.output_blocks
            ]
        )
        names = [name for block in self.layout.output_blocks for name in block.channel_names]
        constants = {names[channel]: float(means[channel]) for channel in np.flatnonzero(~varies)}
        fields = {}
        for number, (name, channels) in enumerate(self._columns.quantities.items(), start=1):
            if varies[channels].any():
                own = vrmse[channels][varies[channels]]
                relative_l2, h1 = (of_norm[number] for of_norm in statistics)
                fields[name] = FieldErrors(relative_l2=relative_l2, h1=h1, vrmse=float(np.sqrt(np.mean(own**2))))
        has_persistence = self._rollouts is not None and self._rollouts.has_persistence
        self._compares = False
        return Errors(
            relative_l2=statistics[0][0],
            h1=statistics[1][0],
            vrmse=float(np.sqrt(np.mean(vrmse[varies] ** 2))),
            fields=fields,
            constants=constants,
            persistence=float(self._unchanged.mean()) if has_persistence else None,
            rollout=None if self._rollouts is None else self._rollouts.errors(),
        )


class _Columns:
    """The order in which the errors of a sample are measured and stored.

    For each norm come those of the whole output and of each quantity, then the mean squared error of each channel.
    """

    def __init__(self, layout: Layout):
        self._layout = layout
        orders = (0, 1) if all(has_gradients(block.on) or block.on is None for block in layout.output_blocks) else (0,)
        self._norms = [[norm_of(block.on, order) for block in layout.output_blocks] for order in orders]
        self.quantities: dict[str, slice] = {}
        """Channels of each output among those of all outputs."""
        start = 0
        for spec in (spec for block in layout.output_blocks for spec in block.specs):
            self.quantities[spec.name] = slice(start, start + spec.components)
            start += spec.components
        self.num = len(self._norms) * (1 + len(self.quantities)) + start

    def split(self, columns: np.ndarray) -> list[np.ndarray]:
        """Split columns [N, M] into one array [N, 1 + Q] per norm, and [N, C] at the end."""
        width = 1 + len(self.quantities)
        return np.split(columns, [width * (number + 1) for number in range(len(self._norms))], axis=1)

    def errors(
        self, prediction: Mapping[str, Tensor], batch: Mapping[str, Tensor], inverse_std_C: Tensor, typical_BC: Tensor
    ) -> Tensor:
        """Return the errors of a slice, [B, M].

        Args:
            prediction: predicted arrays by name, [B, C, *] in physical units.
            batch: arrays of the slice by name.
            inverse_std_C: reciprocal of each channel's standard deviation; 0 for a constant one.
            typical_BC: root mean square of the targets at each row's step, in multiples of the standard deviations.
        """
        blocks = self._layout.output_blocks
        targets, errors, weights = [], [], []
        for block, own in zip(blocks, inverse_std_C.split([block.shape[0] for block in blocks]), strict=True):
            target = batch[block.name]
            targets.append(along(own, target) * target)
            errors.append(along(own, target) * (prediction[block.name] - target))
            travels = block.on is not None and block.on.travelling
            weights.append(self._layout.weights_of(block, batch) if travels else None)
        columns = []
        for norms in self._norms:
            by_block = typical_BC.split([block.shape[0] for block in blocks], dim=1)
            typical = torch.cat([part * norm.weight for part, norm in zip(by_block, norms, strict=True)], dim=1)
            squares = [
                torch.cat(
                    [norm.squared(field, weight) for norm, field, weight in zip(norms, fields, weights, strict=True)],
                    dim=1,
                )
                for fields in (errors, targets)
            ]
            columns += self._ratios(*squares, typical)
            if norms is self._norms[0]:
                error_BC = squares[0]
        return torch.cat([*columns, error_BC], dim=1)

    def _ratios(self, error_BC: Tensor, target_BC: Tensor, typical_BC: Tensor) -> list[Tensor]:
        """Relative errors [B, 1], of the whole output and of each quantity.

        Errors and targets are given as squared norms, typical ones as norms.
        """
        ratios = []
        for channels in (slice(None), *self.quantities.values()):
            squares = (values[:, channels] for values in (error_BC, target_BC, typical_BC.square()))
            error, target, typical = (values.mean(dim=1, keepdim=True) for values in squares)
            ratios.append(ratio(error, target, typical.sqrt()))
        return ratios


def _quantile(ordered: np.ndarray, fraction: float) -> float:
    """Interpolate linearly like np.quantile, but give no NaN between infinite errors."""
    position = fraction * (len(ordered) - 1)
    below, above = ordered[int(np.floor(position))], ordered[int(np.ceil(position))]
    return float(below if below == above else below + (position % 1) * (above - below))
