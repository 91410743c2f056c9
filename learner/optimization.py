"""One optimisation step, from a batch to changed weights.

It consists of forward, loss, backward, clipping, the optimizer, and the running average of the weights.

Axes:  B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penstock.errors import PenstockError
from penstock.learner.checkpoints.weights import weights_of
from penstock.learner.copies import copied, follow
from penstock.learner.losses.losses import OwnLoss, TotalLoss
from penstock.learner.losses.norms import mark_constants
from penstock.learner.optimizers.adamw import AdamW
from penstock.learner.ranks.gradients import SharedGradients
from penstock.learner.ranks.group import ALONE, Group
from penstock.learner.rollout.unrolling import Unrolling
from penstock.learner.surrogate import Surrogate

PRECISIONS = ("float32", "bfloat16")
KERNELS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Optimization:
    """A step of an optimizer on the mean loss of a batch.

    Nothing in a step waits for the device, if nothing in the optimizer does.

    With `ema_decay` d, an exponential moving average of the weights is kept: after step n = 0, 1, ...,

        averaged <- d_n averaged + (1 - d_n) weights,   d_n = min(d, (1 + n) / (10 + n)),

    where d_n rises so that the first weights, which are random, are soon forgotten (the `num_updates` rule of
    TensorFlow's ExponentialMovingAverage). The average remembers about 1 / (1 - d) steps. It reads and writes 12 bytes
    per parameter, beside about 40 of the step. Buffers and frozen parameters are not averaged: the average has the
    model's current ones.

    Args:
        surrogate: the surrogate, on its device already; its parameters are changed in place. A complex parameter is
            trained as its real and imaginary parts, as torch's AdamW does where it isn't fused.
        loss: the loss of all outputs, or that of the model. Where a batch's rows have weights w_i, its mean loss is
            Σ w_i loss_i / B: they should have mean 1, or they scale the gradient too.
        learning_rate: the highest learning rate, which schedules scale; each step is given the one that it takes.
        optimizer: makes the optimizer of groups of parameters, as the classes of OPTIMIZERS do.
        precision: "bfloat16" is autocast: linear layers compute in bfloat16, while weights, moments, normalisation and
            loss stay in float32, and so do layers that ask for it (the FNO's spectral ones). With "float32" TF32 is
            left as torch has it, which is off for matrix products. On a CPU core with AVX512-BF16, bfloat16 makes a
            step of an FNO take 0.8 times as long, and one of a wide MLP at batch size 10 1.3 times as long, because
            casting the weights costs more than it saves.
        compile: whether to use torch.compile on forward, loss and backward, for the shapes of the first batch. Batches
            of other shapes (the last one of a drained buffer, more or fewer points) run uncompiled, because compiling
            takes longer than the step that would use it: a minute or so for an FNO on a CPU, whose step then takes 0.8
            times as long.
        micro_batch_size: number of samples in each forward and backward pass; the gradients add up to the whole
            batch's. None takes the batch in one pass.
        clip_norm: largest L2 norm of the gradient over all parameters; a longer gradient is scaled down. None leaves
            it as it is.
        ema_decay: d of the average. Good values: 0.99 to 0.9999. None keeps no average.
        unrolling: makes the inputs those of a rollout. None trains on batches as they are.
        group: the ranks that do each step together, on the mean loss of the rows of all. They begin with the weights of
            rank 0, and have equal ones after every step.

    Raises:
        ValueError: an option is out of bounds.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        *,
        loss: TotalLoss | OwnLoss,
        learning_rate: float,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = AdamW,
        precision: str = "float32",
        compile: bool = False,
        micro_batch_size: int | None = None,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
        unrolling: Unrolling | None = None,
        group: Group = ALONE,
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        if micro_batch_size is not None and micro_batch_size < 1:
            raise ValueError(f"micro_batch_size must be at least 1, not {micro_batch_size}")
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, not {clip_norm}")
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, not {ema_decay}")
        self.surrogate = surrogate
        self.learning_rate = learning_rate
        self.micro_batch_size = micro_batch_size
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.unrolling = unrolling
        self.num_steps = 0
        self._total_loss = _BatchLoss(surrogate, loss, autocasts=precision == "bfloat16", compiles=compile)
        self._row_losses: list[Tensor] = []  # one tensor per part of the last batch
        self._parameters = {
            name: p for name, p in surrogate.named_parameters() if torch.is_floating_point(p) or p.is_complex()
        }
        self._reals = {name: _as_real(parameter) for name, parameter in self._parameters.items()}
        self._gradients = SharedGradients(group, self._reals, surrogate)
        self._optimizer = optimizer(self._groups())
        self._averaged = surrogate if ema_decay is None else copied(surrogate).requires_grad_(False)
        averaged = dict(self._averaged.named_parameters())
        self._averaged_reals = {name: _as_real(averaged[name]) for name in self._parameters}

    def __call__(self, arrays: Mapping[str, Tensor], learning_rate: float, weights: Tensor | None = None) -> Tensor:
        """Do one step on a batch, together with the other ranks.

        Args:
            arrays: the batch's arrays as `Layout.pack` makes them, on the device; empty if this rank has no rows. With
                unrolling they have `num_unrolled` B rows, as they are drawn.
            learning_rate: learning rate of this step.
            weights: weights of the rows, float32 [B], on the device; without them all rows count alike.

        Returns:
            The mean loss of all ranks' rows before the step, a scalar on the device.

        Raises:
            RankLost: another rank is gone.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self.surrogate.zero_grad()
        self._gradients.begin()
        batch_size = _size(arrays) // self.num_unrolled
        mean_loss = torch.zeros((), device=self.surrogate.device)
        self._row_losses = []
        for part, part_weights in self._parts(arrays, weights):
            total, row_losses = self._total_loss(part, part_weights)
            loss = total / batch_size
            loss.backward()
            mean_loss += loss.detach()
            self._row_losses.append(row_losses)
        self._hand_over_gradients()
        self._gradients.unite(batch_size, mean_loss)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._reals.values(), self.clip_norm)
        self._optimizer.step()
        if self.ema_decay is not None:
            self._average()
        self.num_steps += 1
        return mean_loss

    @property
    def group(self) -> Group:
        """The ranks that do each step together."""
        return self._gradients.group

    def _groups(self) -> list[dict[str, Any]]:
        """The parameters in groups: weights of convolutions, and the others."""
        kernels = {id(each.weight) for each in self.surrogate.modules() if isinstance(each, KERNELS)}
        groups: dict[bool, list[Tensor]] = {False: [], True: []}
        for name, parameter in self._parameters.items():
            groups[id(parameter) in kernels].append(self._reals[name])
        return [{"params": group, "kernels": is_kernel} for is_kernel, group in groups.items() if group]

    def _hand_over_gradients(self) -> None:
        """Make the gradients real and dense, as optimizers need them.

        Those of an nn.Embedding may be sparse.
        """
        for name, parameter in self._parameters.items():
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
            if parameter.is_complex():
                gradient = parameter.grad
                self._reals[name].grad = None if gradient is None else torch.view_as_real(gradient.resolve_conj())

    def _average(self) -> None:
        if not self._optimizer.state:  # a resumed run could not tell trained parameters from frozen ones
            name = type(self._optimizer).__name__
            raise PenstockError(
                f"training.ema_decay: {name} keeps no state, as it has no momentum: leave one of them out"
            )
        decay = min(self.ema_decay, (1 + self.num_steps) / (10 + self.num_steps))
        pairs = [(self._averaged_reals[name], self._reals[name]) for name in self._trained_names()]
        with torch.no_grad():
            torch._foreach_lerp_(*map(list, zip(*pairs, strict=True)), weight=1 - decay)

    def _trained_names(self) -> list[str]:
        """Names of the parameters that the optimizer has changed.

        Some optimizers keep nothing for a parameter; then those of the last step.
        """
        state = self._optimizer.state
        return [name for name, parameter in self._reals.items() if parameter in state or parameter.grad is not None]

    @property
    def num_unrolled(self) -> int:
        """Number of rows that belong together in a batch, of which one is trained."""
        return 1 if self.unrolling is None else self.unrolling.num_unrolled

    @property
    def compiles_next(self) -> bool:
        """Whether the next step will be compiled first, which takes time."""
        return self._total_loss.compiles_next

    @property
    def row_losses(self) -> Tensor:
        """Loss of each row of the last batch, before its step, [B] on the device.

        They are this rank's rows. The rows' weights are not in it.
        """
        return torch.cat(self._row_losses)

    @property
    def averaged(self) -> Surrogate:
        """The surrogate with averaged weights; without ema_decay, the surrogate itself.

        Its normalisation, buffers and frozen parameters are the current ones.
        """
        if self._averaged is not self.surrogate:
            self._averaged.normalization = self.surrogate.normalization  # it may have been fixed since
            follow(self._averaged, self.surrogate, but=self._trained_names())
        return self._averaged

    def is_finite(self) -> bool:
        """Whether all trained weights and their moments are finite; waits for the device.

        Frozen parameters and buffers may hold anything: a mask is made of infinities.
        """
        trained = [self._reals[name] for name in self._trained_names()]
        tensors = [*trained, *(tensor for _, _, tensor in self._kept())]
        return not tensors or bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def _kept(self) -> Iterator[tuple[str, str, Tensor]]:
        """Parameter's name, kind and value of all that the optimizer keeps.

        Raises:
            PenstockError: it keeps something else than tensors.
        """
        for name, parameter in self._reals.items():
            for kind, value in self._optimizer.state.get(parameter, {}).items():
                if not isinstance(value, Tensor):
                    raise PenstockError(
                        f"training.optimizer: {type(self._optimizer).__name__} keeps {kind} as a "
                        f"{type(value).__name__}, and a checkpoint holds tensors: take another optimizer"
                    )
                yield name, kind, value

    def _parts(
        self, arrays: Mapping[str, Tensor], weights: Tensor | None
    ) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
        arrays = {name: array.unflatten(0, (self.num_unrolled, -1)) for name, array in arrays.items()}
        batch_size = next(iter(arrays.values())).shape[1] if arrays else 0
        size = self.micro_batch_size or max(1, batch_size)
        for start in range(0, batch_size, size):
            part = slice(start, start + size)
            rows = {name: array[:, part] for name, array in arrays.items()}
            if self.unrolling is None:
                rows = {name: array[0] for name, array in rows.items()}
            else:
                rows = self.unrolling(self._total_loss.predict, self.surrogate.normalization, rows)
            yield rows, None if weights is None else weights[part]

    # Checkpoints

    def saved_weights(self) -> dict[str, Any]:
        """Return the state of `averaged` for a checkpoint, see `weights_of`."""
        return weights_of(self.averaged)

    def state(self) -> dict[str, Tensor]:
        """Return all that the next steps depend on besides `saved_weights`.

        Returns:
            Moments and counts by name, and the weights if averaged ones are kept beside them. The tensors are those in
            use: the next step changes them.
        """
        state = {"num_steps": torch.tensor(self.num_steps)}
        if self.ema_decay is not None:
            state |= {f"weights.{name}": parameter.detach() for name, parameter in self._reals.items()}
        return state | {f"{kind}.{name}": value for name, kind, value in self._kept()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state()`.

        Args:
            state: the state. The weights that belong to it must have been loaded into `averaged` before.

        Raises:
            PenstockError: weights were averaged before and are not now, or the other way round.
        """
        was_averaged = any(name.startswith("weights.") for name in state)
        if was_averaged != (self.ema_decay is not None):
            raise PenstockError(
                f"the checkpoint was trained with{'' if was_averaged else 'out'} training.ema_decay: "
                "use the configuration it was trained with"
            )
        self.num_steps = int(state["num_steps"])
        if was_averaged:
            follow(self.surrogate, self._averaged)
        for key, value in state.items():
            kind, _, name = key.partition(".")
            if name not in self._reals:
                continue
            parameter = self._reals[name]
            if kind == "weights":
                with torch.no_grad():
                    parameter.copy_(value)
            else:
                self._optimizer.state[parameter][kind] = _laid_out_as(parameter, value)


def _size(arrays: Mapping[str, Tensor]) -> int:
    return len(next(iter(arrays.values()), ()))


class _BatchLoss:
    """Computes the weighted sum of a batch's losses, and the loss of each row.

    If it compiles, it does so for the shapes of the first batch.
    """

    def __init__(self, surrogate: Surrogate, loss: TotalLoss | OwnLoss, *, autocasts: bool, compiles: bool):
        self._surrogate = surrogate
        self._loss = loss
        self._autocasts = autocasts
        self._compiled = None
        self._compiled_shapes: dict[str, torch.Size] | None = None
        if compiles:
            mark_constants()
            self._compiled = torch.compile(self._compute, dynamic=False)

    @property
    def compiles_next(self) -> bool:
        return self._compiled is not None and self._compiled_shapes is None

    def __call__(self, arrays: dict[str, Tensor], weights: Tensor | None) -> tuple[Tensor, Tensor]:
        if self._compiled is None:
            return self._compute(arrays, weights)
        shapes = {name: array.shape for name, array in arrays.items()}
        if self._compiled_shapes is None:
            self._compiled_shapes = shapes
        return (self._compiled if shapes == self._compiled_shapes else self._compute)(arrays, weights)

    def predict(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict in physical units, in the losses' precision, without a gradient."""
        with torch.no_grad(), torch.autocast(self._surrogate.device.type, torch.bfloat16, enabled=self._autocasts):
            return self._surrogate.predict(arrays)

    def _compute(self, arrays: dict[str, Tensor], weights: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.autocast(self._surrogate.device.type, torch.bfloat16, enabled=self._autocasts):
            losses = self._loss.of(self._surrogate, arrays)
        total = losses.sum() if weights is None else (weights * losses).sum()
        return total, losses.detach()


def _as_real(parameter: Tensor) -> Tensor:
    """Return a real parameter itself, and a complex one as a real view [..., 2].

    Fused AdamW can't take complex parameters. The view has the same memory.
    """
    return torch.view_as_real(parameter.detach()) if parameter.is_complex() else parameter


def _laid_out_as(parameter: Tensor, moment: Tensor) -> Tensor:
    """Return a copy of the moment with the parameter's strides.

    Fused AdamW goes through the memory of both in step, whatever the axes.
    """
    if not moment.dim():
        return moment.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=moment.dtype, requires_grad=False).copy_(moment)
