"""The MgNO beside its published count, and its V-cycle as a linear map that is a known one."""

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


def test_a_v_cycle_is_linear():
    torch.manual_seed(0)
    cycle = VCycle(2, 3, (True, False), [(2, 2), (2, 1)])
    f, g = torch.randn(2, 1, 2, 15, 8).unbind(0)
    torch.testing.assert_close(cycle(2 * f - 3 * g), 2 * cycle(f) - 3 * cycle(g), rtol=1e-3, atol=1e-5)


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
