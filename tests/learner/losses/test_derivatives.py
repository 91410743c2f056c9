"""Derivatives of a surrogate as outputs: linear operators, finite differences, every model, what a file holds."""

import numpy as np
import pytest
import torch
from torch import nn

from penstock.geometry import Grid, Mesh
from penstock.layout import FieldSpec, Layout
from penstock.learner.losses.losses import MSE, OwnLoss, TotalLoss
from penstock.learner.models import MODELS
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.rehearsal.rehearsal import try_out
from penstock.learner.surrogate import DifferentiatedSurrogate
from tests.support.models import SMALL

WITH_KINKS = {"lsm", "mlp", "pointnet"}  # maxima, near which a difference quotient is off by its step
SQUARE = Mesh(4, 2, lambda: (np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 2], [0, 2, 3]])))


def layout_on(geometry, *, others=()):
    """Fields a to u [2, *] with a scalar k: derivatives by p, which changes both, and by q, which changes k alone."""
    a, k, u = FieldSpec(name="a", on=geometry), FieldSpec(name="k"), FieldSpec(name="u", on=geometry, components=2)
    outputs = (u.derivative("p"), u, *others, u.derivative("q"))  # in any order
    return Layout((a, k), outputs, tangents=(a.derivative("p"), k.derivative("p"), k.derivative("q")))


def normalization_of(layout):
    """Means and deviations that no channel shares."""
    torch.manual_seed(1)
    sizes = {block.name: block.shape[0] for block in (*layout.input_blocks, *layout.output_blocks)}
    mean = {name: torch.randn(size) for name, size in sizes.items()}
    return Normalization(mean, {name: 0.5 + torch.rand(size) for name, size in sizes.items()})


class Linear(nn.Module):
    """u = W a + w k + b of normalised values on four points."""

    def __init__(self):
        super().__init__()
        self.of_fields, self.of_scalars = nn.Linear(4, 8), nn.Linear(1, 8, bias=False)

    def forward(self, fields, scalars):
        return (self.of_fields(fields[:, 0]) + self.of_scalars(scalars)).unflatten(1, (2, 4))


def surrogate_on(layout, model):
    return DifferentiatedSurrogate(model, normalization_of(layout), layout)


def test_the_loss_is_0_for_a_linear_operator_whose_derivatives_are_known():
    """u(a, k) - u(0, 0) of the physical directions is their derivative, whatever the normalisation."""
    layout = layout_on(Grid((4,)))
    torch.manual_seed(0)
    surrogate = surrogate_on(layout, Linear())
    arrays = free_samples(layout, 5, torch.device("cpu"))
    values = surrogate.of_model
    directions = {
        "p": {"fields": arrays["tangents"], "scalars": arrays["scalar_tangents"][:, :1]},
        "q": {"fields": torch.zeros(5, 1, 4), "scalars": arrays["scalar_tangents"][:, 1:]},
    }
    nothing = {"fields": torch.zeros(5, 1, 4), "scalars": torch.zeros(5, 1)}
    at_zero = values.predict(nothing)["targets"]
    by = {name: values.predict(given)["targets"] - at_zero for name, given in directions.items()}
    arrays["targets"] = torch.cat([by["p"], values.predict(arrays)["targets"], by["q"]], dim=1).detach()
    loss = TotalLoss(layout, MSE)
    assert loss.of(surrogate, arrays).max() < 1e-10
    for channel in range(6):
        other = arrays["targets"].clone()
        other[:, channel] += surrogate.normalization.targets_std[channel]
        assert loss.of(surrogate, arrays | {"targets": other}).detach().numpy() == pytest.approx(
            np.full(5, 1 / 6), rel=1e-3
        )


def along(surrogate, arrays, step, by):
    """The values at a + step ∂a/∂p and k + step ∂k/∂p, or q, in physical units."""
    moved = {**arrays, "scalars": arrays["scalars"] + step * arrays["scalar_tangents"][:, [int(by == "q")]]}
    if by == "p":
        moved["fields"] = arrays["fields"] + step * arrays["tangents"]
    return surrogate.of_model.predict(moved)["targets"]


def test_derivatives_are_those_of_finite_differences_to_second_order():
    layout = layout_on(Grid((8, 8)))
    torch.manual_seed(0)
    surrogate = surrogate_on(layout, MODELS["fno"](layout.of_model, **SMALL["fno"]))
    arrays = free_samples(layout, 3, torch.device("cpu"))
    with torch.no_grad():
        found = surrogate.predict(arrays)["targets"]
        torch.testing.assert_close(found[:, 2:4], surrogate.of_model.predict(arrays)["targets"])
        for by, channels in (("p", slice(0, 2)), ("q", slice(4, 6))):
            errors = []
            for step in (0.8, 0.4):
                above, below = (along(surrogate, arrays, sign * step, by) for sign in (1, -1))
                errors.append(((above - below) / (2 * step) - found[:, channels]).abs().max().item())
            assert errors[0] / errors[1] == pytest.approx(4, rel=0.2) and errors[1] < 0.05


@pytest.mark.parametrize("name", SMALL)
def test_every_model_can_be_differentiated_forwards_and_then_trained(name):
    """By central differences; gradients of the derivatives reach the weights."""
    geometry = Grid((8, 8)) if Grid in MODELS[name].accepts else SQUARE
    layout = layout_on(geometry)
    torch.manual_seed(0)
    surrogate = surrogate_on(layout, MODELS[name](layout.of_model, **SMALL[name]))
    try_out(surrogate, name)
    arrays = free_samples(layout, 2, torch.device("cpu"))
    found = surrogate.predict(arrays)["targets"][:, :2]
    with torch.no_grad():
        size = 3e-3 if name in WITH_KINKS else 1e-2
        difference = (along(surrogate, arrays, size, "p") - along(surrogate, arrays, -size, "p")) / (2 * size)
    assert (found - difference).norm() < (0.1 if name in WITH_KINKS else 0.01) * difference.norm()
    step = Optimization(surrogate, loss=TotalLoss(layout, MSE), learning_rate=1e-3)
    assert step(arrays, 1e-3).isfinite() and step.is_finite()
    found = surrogate.predict(arrays)["targets"][:, :2]
    found.square().sum().backward()
    assert sum(p.grad.norm() for p in surrogate.parameters() if p.grad is not None) > 0


def test_what_lies_outside_of_a_mask_changes_no_derivative_inside():
    layout = layout_on(Grid((8, 8), is_masked=True))
    torch.manual_seed(0)
    surrogate = surrogate_on(layout, MODELS["fno"](layout.of_model, **SMALL["fno"]))
    arrays = free_samples(layout, 2, torch.device("cpu"))
    inside = arrays["weights"] > 0
    inside[:, :, 2:5, 3:6] = False
    arrays["weights"] = arrays["weights"] * inside
    zeroed = {name: arrays[name] * inside for name in ("fields", "tangents")}
    other = {name: torch.where(inside, arrays[name], -1e6) for name in zeroed}
    with torch.no_grad():
        found, expected = (surrogate.predict(arrays | each)["targets"] for each in (other, zeroed))
    assert torch.equal(found, expected)


def test_bfloat16_keeps_the_derivatives_roughly():
    layout = layout_on(Grid((8, 8)))
    torch.manual_seed(0)
    surrogate = surrogate_on(layout, MODELS["mlp"](layout.of_model, hidden=(16,)))
    arrays = free_samples(layout, 2, torch.device("cpu"))
    expected = surrogate.predict(arrays)["targets"]
    with torch.autocast("cpu", torch.bfloat16):
        found = surrogate.predict(arrays)["targets"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_scalars_and_fields_on_a_mesh_among_the_outputs_have_derivatives():
    """An mlp that predicts u on a mesh and a scalar c: of c the derivative is an output too, and of u is not asked."""
    a, c = FieldSpec(name="a", on=SQUARE), FieldSpec(name="c")
    layout = Layout((a,), (FieldSpec(name="u", on=SQUARE), c, c.derivative("p")), tangents=(a.derivative("p"),))
    torch.manual_seed(0)
    surrogate = surrogate_on(layout, MODELS["mlp"](layout.of_model, hidden=()))
    arrays = free_samples(layout, 3, torch.device("cpu"))
    found = surrogate.predict(arrays)
    moved = surrogate.of_model.predict(arrays | {"fields": arrays["fields"] + arrays["tangents"]})
    assert found["targets"].shape == (3, 1, 4)
    torch.testing.assert_close(
        found["target_scalars"][:, 1:],
        moved["target_scalars"] - surrogate.of_model.predict(arrays)["target_scalars"],
        rtol=1e-4,
        atol=1e-5,
    )


def test_what_a_constant_output_changes_by_is_its_mean():
    layout = layout_on(Grid((4,)))
    surrogate = surrogate_on(layout, Linear())
    surrogate.normalization.targets_std[0] = 0.0  # of ∂u_0/∂p
    found = surrogate.predict(free_samples(layout, 2, torch.device("cpu")))["targets"]
    torch.testing.assert_close(found[:, 0], surrogate.normalization.targets_mean[0].expand(2, 4))
    assert found.isfinite().all()


def test_a_basis_and_a_model_s_own_loss_see_the_values_alone():
    layout = layout_on(Grid((4,)))
    torch.manual_seed(0)
    options = {"width": 4, "latent": 2, "layers": 1}
    surrogate = surrogate_on(layout, MODELS["pod_deeponet"](layout.of_model, **options))
    arrays = free_samples(layout, 8, torch.device("cpu"))
    surrogate.fit(arrays)
    expected = surrogate.normalization.encode("targets", arrays["targets"])[:, 2:4]
    torch.testing.assert_close(surrogate.model.mean.reshape(2, 4), expected.mean(dim=0))
    surrogate.model.loss = lambda targets, **inputs: (targets - expected).abs().sum(dim=(1, 2))
    assert OwnLoss().of(surrogate, arrays).abs().max() < 1e-6


def test_a_file_has_the_values_alone():
    layout = layout_on(Grid((4,)))
    own = surrogate_on(layout, Linear()).of_model
    assert [spec.name for spec in own.layout.outputs] == ["u"] and not own.layout.tangents
    assert own.of_model is own
    outputs = own(a=torch.randn(3, 4), k=torch.randn(3))
    assert {name: values.shape for name, values in outputs.items()} == {"u": (3, 2, 4)}
