"""Losses by name, which compare prediction and target sample by sample.

A loss takes prediction and target [B, C, *] to [B]. Both are given in multiples of the target channels' standard
deviation, not centred; constant channels are 0 in both. For one output channel a relative error is therefore the same
as in physical units; for several, none dominates by its unit alone.

A relative error makes no sense where the target is 0, and its gradient would outweigh all others: that of one all-zero
target in a batch of 16 was 1e12 times another's. So errors are divided by a norm of at least SMALLEST_SHARE of
`typical`, the root mean square of the targets' L2 norms, times the norm's `weight`, which it gives to the domain's
longest wave. The gradient of a relative error is multiplied by `typical`. AdamW's steps do not depend on such a factor
except by its epsilon: an offset of 1e5 standard deviations would bring gradients below that.

Every loss is a Sobolev norm of the error. An order of 0 counts all frequencies alike, a positive order counts the high
ones more (Czarnecki et al., NeurIPS 2017, arXiv 1706.04859; for neural operators Li et al., NeurIPS 2022, arXiv
2106.06898), a negative order the low ones (Yu, Yang and Townsend, ICLR 2023, arXiv 2205.14300).

Axes:  B batch, C channels, * the shape of a geometry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from penstock.geometry import Geometry
from penstock.layout import Layout
from penstock.learner.losses.norms import norm_of
from penstock.learner.normalization import Normalization, along
from penstock.learner.surrogate import Surrogate
from penstock.registry import nearest

SMALLEST_NORM = 1e-12  # of an error: gives a perfect prediction the gradient 0, where that of the root is infinite
SMALLEST_SHARE = 0.1  # of a typical target's norm: errors of smaller targets, zero included, are divided by this


class Sobolev:
    """The error in a Sobolev norm of any order.

    It is ||prediction - target||_s / ||target||_s, or if not `relative` the mean over the channels of
    ||prediction - target||_s², in the norm of the geometry (`norm_of`).

    Args:
        geometry: geometry of the fields; None for scalars.
        order: order s of the norm: any real number on a grid or on a mesh of at most 5000 points; 0, 1, 2, ... on a
            larger mesh; only 0 on points that vary or on a masked grid. Good values: 1 where gradients matter, such as
            for fluxes, 0 otherwise; -1 to learn the coarse shape first.
        relative: whether the error's norm is divided by the target's; if not, it is squared.

    Raises:
        ValueError: the geometry has no norm of this order.
    """

    def __init__(self, geometry: Geometry | None, *, order: float, relative: bool = True):
        self.relative = relative
        self.norm = norm_of(geometry, order)

    def __call__(
        self, prediction: Tensor, target: Tensor, typical: Tensor | float = 1.0, weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss of each sample.

        Args:
            prediction: [B, C, *], in multiples of the target channels' standard deviation.
            target: the same of the targets.
            typical: root mean square of the targets' L2 norms.
            weights: quadrature weights [B, 1, *], if they travel with the samples.

        Returns:
            [B], differentiable.
        """
        error = self.norm.squared(prediction - target, weights).mean(dim=1)
        if not self.relative:
            return error
        quotient = ratio(error, self.norm.squared(target, weights).mean(dim=1), typical * self.norm.weight)
        return quotient.detach() + typical * (quotient - quotient.detach())


class H1(Sobolev):
    """The Sobolev loss of order 1: the error of values and gradients together.

    Args:
        geometry: geometry of the fields; None for scalars.
        relative: whether the error's norm is divided by the target's; if not, it is squared.

    Raises:
        ValueError: the geometry has no gradients.
    """

    def __init__(self, geometry: Geometry | None, *, relative: bool = True):
        super().__init__(geometry, order=1, relative=relative)


class RelativeL2(Sobolev):
    """The L2 norm of the error, over all channels and points, divided by the target's.

    It is ||prediction - target||_2 / ||target||_2, by quadrature weights if there are any.

    Args:
        geometry: geometry of the fields; None for scalars.
    """

    def __init__(self, geometry: Geometry | None):
        super().__init__(geometry, order=0, relative=True)


class MSE(Sobolev):
    """The mean squared error over all channels and points.

    Points count by their quadrature weights if there are any.

    Args:
        geometry: geometry of the fields; None for scalars.
    """

    def __init__(self, geometry: Geometry | None):
        super().__init__(geometry, order=0, relative=False)


class TotalLoss:
    """The loss over all outputs, each measured in the norm of its geometry.

    Outputs on the same geometry are measured together. The total is the mean over the geometries, each weighted by the
    sum of the weights of its channels.

    The losses see each channel times the root of its weight, by which they count its squared norm w times, in the error
    as in the target; the weights of a geometry's channels are scaled to a mean of 1.

    Args:
        layout: layout of batches.
        make: returns the loss of fields on a geometry, or of scalars if that is None, as the classes of LOSSES do. The
            loss is called with prediction, target and `typical`, and with weights= if they travel with the samples.
        weights: weight of outputs by name, above 0; that of others is 1.

    Raises:
        ValueError: a weight is not above 0, or belongs to no output.
    """

    def __init__(
        self,
        layout: Layout,
        make: Callable[[Geometry | None], Callable[..., Tensor]],
        weights: Mapping[str, float] | None = None,
    ):
        self.layout = layout
        self.losses = {block.name: make(block.on) for block in layout.output_blocks}
        weights = weights or {}
        outputs = [spec.name for block in layout.output_blocks for spec in block.specs]
        for name, weight in weights.items():
            if name not in outputs:
                raise ValueError(f"no output is called {name!r}; {nearest(name, outputs)}")
            if not 0 < weight < math.inf:
                raise ValueError(f"the weight of {name} must be above 0, not {weight}")
        of_channels = {
            block.name: [weights.get(spec.name, 1.0) for spec in block.specs for _ in range(spec.components)]
            for block in layout.output_blocks
        }
        total = sum(map(sum, of_channels.values()))
        self._shares = {name: sum(each) / total for name, each in of_channels.items()}
        self._roots = {
            name: torch.tensor([math.sqrt(weight * len(each) / sum(each)) for weight in each])
            for name, each in of_channels.items()
            if len(set(each)) > 1
        }

    def of(self, surrogate: Surrogate, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of each sample in a surrogate's prediction, [B], differentiable.

        Args:
            surrogate: the surrogate.
            arrays: arrays of the batch by name, in physical units.
        """
        prediction = surrogate.predict_in_stds(arrays)
        with torch.autocast(surrogate.device.type, enabled=False):  # a user's loss may have products of matrices
            return self(prediction, arrays, surrogate.normalization)

    def __call__(
        self, prediction: Mapping[str, Tensor], arrays: Mapping[str, Tensor], normalization: Normalization
    ) -> Tensor:
        """Return the loss of each sample.

        Args:
            prediction: predicted arrays by name, in multiples of standard deviations.
            arrays: arrays of the batch by name, in physical units.
            normalization: normalisation of the surrogate.

        Returns:
            [B], differentiable.
        """
        total = None
        for block in self.layout.output_blocks:
            name = block.name
            predicted, target = prediction[name], normalization.in_stds(name, arrays[name])
            of_channels = normalization.typical(name)
            if name in self._roots:
                roots = self._roots[name] = self._roots[name].to(target.device)
                predicted, target = predicted * along(roots, target), target * along(roots, target)
                of_channels = of_channels * roots
            typical = of_channels.square().mean().sqrt()
            weights = self.layout.weights_of(block, arrays) if block.on is not None and block.on.travelling else None
            options = {} if weights is None else {"weights": weights}
            loss = self.losses[name](predicted, target, typical, **options)
            if len(self.losses) == 1:
                return loss
            total = loss * self._shares[name] if total is None else total + loss * self._shares[name]
        return total


class OwnLoss:
    """The loss that the model supplies.

    It is for models that are not trained on the error of a prediction. The model's `loss` is called with what its
    `forward` is called with, and with the outputs' arrays by name (`targets`, `target_scalars`), all normalised. It
    returns the loss of each sample, [B].
    """

    def of(self, surrogate: Surrogate, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of each sample, [B], differentiable.

        Args:
            surrogate: the surrogate, whose model has a method `loss`.
            arrays: arrays of the batch by name, in physical units.

        Raises:
            ValueError: the model gives something else than a loss per sample.
        """
        losses = surrogate.own_loss(arrays)
        size = next(iter(arrays.values())).shape[0]
        if losses.shape != (size,):
            raise ValueError(
                f"loss() of the model gives {list(losses.shape)} and must give a loss per sample, [{size}]"
            )
        return losses.float()


LOSSES: dict[str, type] = {
    "relative_l2": RelativeL2,
    "mse": MSE,
    "h1": H1,
    "sobolev": Sobolev,
    "of_model": OwnLoss,
}


def ratio(error: Tensor, target: Tensor, typical: Tensor | float) -> Tensor:
    """Return the quotient of two norms.

    Args:
        error: square of the upper norm.
        target: square of the lower norm.
        typical: norm of a typical target; the lower norm is taken as at least SMALLEST_SHARE of it.

    Returns:
        The quotient of the norms themselves.
    """
    return (error.clamp_min(SMALLEST_NORM**2) / target.clamp_min((SMALLEST_SHARE * typical) ** 2)).sqrt()
