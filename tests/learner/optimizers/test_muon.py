"""Muon against torch's own, the singular value decomposition, and AdamW where there is no matrix."""

import pytest
import torch

from penstock.learner.optimizers import OPTIMIZERS
from penstock.learner.optimizers.muon import Muon, orthogonal

RATE = 1e-2


def gradients(shape, count=4):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def trained(make, start, steps, rate=RATE):
    """The parameter after steps of an optimizer with given gradients."""
    parameter = start.clone().requires_grad_()
    optimizer = make([parameter])
    for gradient in steps:
        for group in optimizer.param_groups:
            group["lr"] = rate
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (7, 7)])
def test_a_matrix_is_trained_as_by_torch(shape):
    """torch iterates in bfloat16, whose rounding is 1/256."""
    start, steps = torch.ones(shape), gradients(shape)
    expected = trained(
        lambda p: torch.optim.Muon(p, RATE, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"), start, steps
    )
    result = trained(lambda p: Muon(p, weight_decay=0.5), start, steps)
    assert (result - expected).norm() < 0.03 * (expected - start).norm()


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_the_iteration_brings_singular_values_near_to_one_and_keeps_the_vectors(shape):
    (matrix,) = gradients(shape, 1)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonal(matrix) @ vt.T
    assert (found.diagonal() - 1).abs().max() < 0.35  # the iteration's fixed band, for its speed
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-4


def test_a_stack_is_trained_matrix_by_matrix():
    stack = gradients((5, 6, 8))
    together = trained(Muon, torch.zeros(5, 6, 8), stack)
    alone = [trained(Muon, torch.zeros(6, 8), [step[k] for step in stack]) for k in range(5)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-7)


def test_a_kernel_is_trained_as_a_matrix_with_a_row_for_each_channel_that_comes_out():
    steps = gradients((6, 4, 3, 3))
    kernel = trained(lambda p: Muon([{"params": p, "kernels": True}]), torch.zeros(6, 4, 3, 3), steps)
    matrix = trained(Muon, torch.zeros(6, 36), [step.flatten(1) for step in steps])
    torch.testing.assert_close(kernel.flatten(1), matrix)


@pytest.mark.parametrize("shape", [(5,), (1, 9), (9, 2), ()])
def test_what_is_no_matrix_is_trained_by_adamw_at_a_fifth_of_the_rate(shape):
    start, steps = torch.ones(shape), gradients(shape)
    expected = trained(lambda p: torch.optim.AdamW(p, weight_decay=1e-4), start, steps, rate=RATE / 5)
    torch.testing.assert_close(trained(Muon, start, steps), expected)


def test_a_parameter_without_a_gradient_stays():
    parameters = [torch.ones(4, 4, requires_grad=True), torch.ones(4, requires_grad=True)]
    optimizer = Muon(parameters)
    optimizer.step()
    assert all(bool((parameter == 1).all()) for parameter in parameters) and not optimizer.state


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamw", {"weight_decay": -1.0}, "Invalid weight_decay value"),
        ("muon", {"weight_decay": -1.0}, "weight_decay must be at least 0, not -1"),
        ("muon", {"momentum": 1.0}, "momentum must be at least 0 and below 1"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        OPTIMIZERS[name]([torch.ones(3, 3, requires_grad=True)], **options)
