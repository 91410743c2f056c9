"""The F-FNO beside the published count, and its convolutions beside those of whole grids."""

import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.fourier.ffno import FFNO, FactorisedLayer
from penstock.learner.models.grids.fourier.spectral import fourier_bases


def layout_on(grid, *scalars):
    inputs = (FieldSpec(name="a", on=grid), *(FieldSpec(name=name) for name in scalars))
    return Layout(inputs, (FieldSpec(name="u", on=grid),))


def size_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_number_of_parameters_is_that_of_tran_et_al():
    """7,102,146 with 24 layers; 320 gains per layer and 193 outside belong to a weight normalisation."""
    model = FFNO(layout_on(Grid((64, 64))), width=64, modes=16, layers=24)
    assert size_of(model) == 7_102_146 - 24 * 320 - 193


def test_of_a_field_that_changes_along_x_alone_y_s_convolution_sees_the_mean():
    torch.manual_seed(0)
    layer = FactorisedLayer(2, (3, 4))
    layer.net = torch.nn.Identity()
    along_x, along_y = layer.spectral
    line = torch.randn(9, 3, 2)
    bases = [fourier_bases(9, 3, line), fourier_bases(10, 4, line)]
    expected = along_x(line, bases[:1]) + line @ along_y.weight()[0, :, :2]  # R_y(0), which is real on means
    result = layer(line[:, None].expand(9, 10, 3, 2), bases)
    torch.testing.assert_close(result, expected[:, None].expand_as(result), rtol=1e-4, atol=1e-6)
