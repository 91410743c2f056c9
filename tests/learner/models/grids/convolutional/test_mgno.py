"""The MgNO beside its published count, and its V-cycle beside multigrid for Poisson's equation."""

import itertools

import numpy as np
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.convolutional.convolution import TransposedConvolution
from penstock.learner.models.grids.convolutional.mgno import MgNO, VCycle


def layout_on(grid, *scalars):
    inputs = (FieldSpec(name="a", on=grid), *(FieldSpec(name=name) for name in scalars))
    return Layout(inputs, (FieldSpec(name="u", on=grid),))


def size_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_number_of_parameters_is_that_of_he_et_al():
    """0.57 million on 256 x 256: one field in and out, 24 channels, 4 layers, 6 levels."""
    assert size_of(MgNO(layout_on(Grid((256, 256))))) == 572_661


def test_kernels_set_by_hand_make_a_multigrid_cycle_for_poissons_equation():
    """It divides residuals by 5/3 at least, as smoothing by ω-Jacobi does with ω = 4/5, up to the solution of an FFT.

    u has a second channel, which holds the residual: Π weighs it fully, A takes it, and R, which sees f alone, is 0.
    The rate is that of Trottenberg, Oosterlee and Schüller, Multigrid, 2001, section 2.1.
    """
    n, omega = 32, 0.8
    identity = torch.zeros(3, 3)
    identity[1, 1] = 1
    laplacian = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    cycle = VCycle(1, 2, (True, True), [(2, 2)] * 3).double().requires_grad_(False)
    for parameter in cycle.parameters():
        parameter.zero_()
    cycle.first.convolution.weight[:, 0] = torch.stack([omega / 4 * identity, identity - omega / 4 * laplacian])
    for level, smooth, apply_a in zip((1, 2, 3, 3), cycle.smooth, cycle.apply_a, strict=True):
        apply_a.convolution.weight[0, 1] = -identity
        smooth.convolution.weight[:, 0] = omega / 4 * torch.stack([4**level * identity, -laplacian])
    for restrict_u in cycle.restrict_u:
        restrict_u.convolution.weight[1, 1] = torch.outer(*[torch.tensor([1.0, 2, 1]) / 4] * 2)
    for prolong in cycle.prolong:
        prolong.convolution.weight[0, 0] = torch.outer(*[torch.tensor([0.5, 1, 0.5, 0])] * 2)

    f = np.random.default_rng(0).standard_normal((n, n))
    f -= f.mean()
    u, norms = np.zeros((n, n)), []
    for _ in range(30):
        residual = f - (4 * u - sum(np.roll(u, step, axis) for step in (-1, 1) for axis in (0, 1)))
        norms.append(np.linalg.norm(residual))
        u += cycle(torch.tensor(residual)[None, None])[0, 0].numpy()
    assert max(after / before for before, after in itertools.pairwise(norms)) < 0.61
    waves = 2 - 2 * np.cos(2 * np.pi * np.fft.fftfreq(n))
    symbols = waves[:, None] + waves
    symbols[0, 0] = 1  # of the mean, which f lacks
    expected = np.fft.ifft2(np.fft.fft2(f) / symbols).real
    np.testing.assert_allclose(u - u.mean(), expected, atol=1e-5 * np.abs(expected).max())


def test_a_transposed_convolution_is_the_adjoint_of_a_strided_one():
    """On an even grid; the grid of an odd one is its beginning."""
    torch.manual_seed(0)
    transposed = TransposedConvolution(1, (True, False), (2, 1))
    kernel = transposed.convolution.weight
    u, v = torch.randn(1, 1, 4, 5), torch.randn(1, 1, 8, 5)
    wrapped = torch.nn.functional.pad(v, (0, 0, 1, 1), mode="circular")
    strided = torch.nn.functional.conv2d(wrapped, kernel, stride=(2, 1), padding=(0, 1))
    torch.testing.assert_close((transposed(u, (8, 5)) * v).sum(), (u * strided).sum(), rtol=1e-4, atol=1e-5)
    assert torch.equal(transposed(u, (7, 5)), transposed(u, (8, 5))[:, :, :7])
