"""The spectral convolution against torch.fft, its factored weights against NumPy, and the FNO's options."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.fourier.fno import FNO, FourierLayer
from penstock.learner.models.grids.fourier.spectral import SpectralConvolution, fourier_bases
from penstock.learner.models.grids.fourier.spectral_weights import CP, Tucker
from penstock.learner.normalization import Normalization
from penstock.learner.rehearsal.rehearsal import try_export
from penstock.learner.surrogate import Surrogate


def layout_of(*grid, scalars=()):
    inputs = (FieldSpec(name="a", on=Grid(grid)), *(FieldSpec(name=name) for name in scalars))
    return Layout(inputs=inputs, outputs=(FieldSpec(name="u", on=Grid(grid)),))


def convolution_by_fft(x, weight, modes):
    """The definition in SpectralConvolution's docstring, wave vector by wave vector. x [*grid, B, C]."""
    *grid, _, width = x.shape
    d = len(grid)
    matrices = torch.complex(weight[..., :width], weight[..., width:])
    matrices = matrices.reshape([2 ** (d - 1), *modes, width, width])
    spectrum = torch.fft.rfftn(x.double(), dim=list(range(d)))
    result = torch.zeros_like(spectrum)
    for pattern, signs in enumerate(itertools.product((1, -1), repeat=d - 1)):
        for magnitudes in itertools.product(*map(range, modes)):
            k = tuple(sign * magnitude for sign, magnitude in zip((*signs, 1), magnitudes, strict=True))
            share = 0.5 ** sum(magnitude == 0 for magnitude in magnitudes[:-1])
            result[k] += share * (spectrum[k] @ matrices[(pattern, *magnitudes)].to(spectrum.dtype))
    return torch.fft.irfftn(result, s=grid, dim=list(range(d))).float()


@pytest.mark.parametrize(
    ("grid", "modes"),
    [
        *(((32,), (8,)), ((31,), (15,)), ((16, 12), (5, 5)), ((13, 16), (6, 6)), ((8, 6, 10), (3, 3, 3))),
        *(((16, 12), (7, 2)), ((5, 20), (1, 10)), ((8, 6, 10), (4, 1, 3)), ((4, 14, 6), (2, 7, 1))),
    ],
)
def test_spectral_convolution_is_that_of_the_fft(grid, modes):
    torch.manual_seed(0)
    convolution = SpectralConvolution(4, modes)
    x = torch.randn(*grid, 3, 4, requires_grad=True)
    expected = convolution_by_fft(x, convolution.weight(), modes)
    result = convolution(x, [fourier_bases(*sizes, x) for sizes in zip(grid, modes, strict=True)])
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)

    direction = torch.randn_like(result)
    gradients = torch.autograd.grad((result * direction).sum(), [x, convolution.weight.values])
    expected_gradients = torch.autograd.grad((expected * direction).sum(), [x, convolution.weight.values])
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-4 * expected_gradient.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_the_spectral_convolution_is_the_one_in_float32(dtype):
    torch.manual_seed(0)
    convolution = SpectralConvolution(4, (5, 5))
    x = torch.randn(16, 12, 3, 4).to(dtype)
    bases = [fourier_bases(num_points, 5, convolution.weight()) for num_points in (16, 12)]
    with torch.autocast("cpu", torch.bfloat16):
        result = convolution(x, bases)
    expected = convolution_by_fft(x.float(), convolution.weight(), (5, 5))
    # bfloat16 in, bfloat16 out: rounded once, to 8 bits
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (2**-8, 1e-5)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, rtol=rtol, atol=atol)


def test_synthesis_after_analysis_keeps_the_low_modes_and_removes_the_others():
    analysis, synthesis = fourier_bases(48, 7, torch.empty(0, dtype=torch.float64))
    points = torch.arange(48, dtype=torch.float64) * (2 * torch.pi / 48)
    low, high = torch.cos(6 * points) + 3 + torch.sin(2 * points), torch.sin(7 * points)
    torch.testing.assert_close(synthesis @ (analysis @ (low + high)), low)


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (
            layout_of(16, 16),
            {"modes": 9},
            "9 modes along axis 0 of the grid 16x16: choose from 1 to half its points, 8",
        ),
        (layout_of(16, 40), {"modes": [8, 21]}, "21 modes along axis 1 of the grid 16x40: .*, 20"),
        (layout_of(16, 16), {"modes": [4]}, r"modes \[4\] are for 1 axes, and the grid 16x16 has 2"),
        (layout_of(16, 16), {"modes": 4.0}, "modes must be a whole number, or one for each axis of the grid, not 4.0"),
        (layout_of(16, 16), {"modes": [4, True]}, "modes must be a whole number"),
        (layout_of(16, 16), {"modes": "12"}, "modes must be a whole number"),
        (layout_of(16, 16), {"modes": 0}, "0 modes along axis 0"),
        (layout_of(1, 16), {}, "axis 0 of the grid 1x16 has one point: leave it out"),
        (layout_of(16, 16), {"layers": 0}, "layers must be at least 1"),
        (layout_of(16, 16), {"rank": 0.0}, "rank must be above 0 and at most 1, not 0.0"),
        (layout_of(16, 16), {"rank": 0.5, "factors": "svd"}, "factors must be tucker or cp, not 'svd'"),
        (layout_of(16, 16), {"padding": -0.1}, "padding must be from 0 to 1, not -0.1"),
    ],
)
def test_bad_options_are_refused(layout, options, message):
    with pytest.raises(ValueError, match=message):
        FNO(layout, **options)


def test_a_grid_too_coarse_for_the_modes_is_refused():
    model = FNO(layout_of(16, 16), width=4, modes=8, layers=1)
    with pytest.raises(ValueError, match="at least 16 points"):
        model(torch.randn(1, 1, 16, 15))


@pytest.mark.parametrize(
    ("grid", "modes"), [((64, 64), (12, 12)), ((16, 64), (8, 12)), ((5,), (2,)), ((23, 24, 3), (11, 12, 1))]
)
def test_without_modes_there_are_12_or_what_the_axis_allows(grid, modes):
    model = FNO(layout_of(*grid), width=2, layers=1)
    assert model.modes == modes and model(torch.randn(1, 1, *grid)).shape == (1, 1, *grid)


def test_one_number_of_modes_is_that_number_for_every_axis():
    models = []
    for modes in (4, [4, 4]):
        torch.manual_seed(0)
        models.append(FNO(layout_of(16, 16), width=4, modes=modes, layers=2))
    fields = torch.randn(2, 1, 16, 16)
    assert torch.equal(*(model(fields) for model in models))


def test_the_number_of_parameters_is_that_of_li_et_al():
    """2,368,001 at width 32 with 12 modes, of which 4,353 in a projection that has 128 hidden channels there."""
    model = FNO(layout_of(64, 64), width=32)
    outside = sum(parameter.numel() for parameter in model.project.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) - outside == 2_368_001 - 4_353


SHAPE = (2, 5, 4, 6, 2, 7)  # sign patterns, two axes of modes, channels in, real and imaginary, channels out


@pytest.mark.parametrize("rank", [0.02, 0.3, 1.0])
def test_factored_weights_are_the_tensor_of_their_factors(rank):
    torch.manual_seed(0)
    for form, formula in ((Tucker, "sabicd,ka,lb,mi,nd->sklmcn"), (CP, "sr,ar,br,ir,cr,dr->sabicd")):
        weight = form(SHAPE, 0.3, rank)
        factors = [factor.detach().numpy() for factor in weight.factors]
        core = [weight.core.detach().numpy()] if form is Tucker else []
        expected = np.einsum(formula, *core, *factors).reshape(40, 6, 14)
        np.testing.assert_allclose(weight().detach().numpy(), expected, rtol=1e-4, atol=1e-6)
        assert sum(parameter.numel() for parameter in weight.parameters()) <= rank * math.prod(SHAPE)
        assert 0.15 < weight().std() < 0.6 or rank < 0.1


def test_a_factored_fno_is_the_fno_of_the_rebuilt_tensor():
    torch.manual_seed(0)
    factored = FNO(layout_of(16, 16), width=4, modes=3, layers=2, rank=0.5)
    whole = FNO(layout_of(16, 16), width=4, modes=3, layers=2)
    state = {key: value for key, value in factored.state_dict().items() if ".spectral." not in key}
    for number, layer in enumerate(factored.layers):
        state[f"layers.{number}.spectral.weight.values"] = layer.spectral.weight().detach()
    whole.load_state_dict(state)
    fields = torch.randn(2, 1, 16, 16)
    assert torch.equal(factored(fields), whole(fields))


def test_padding_is_a_convolution_over_zeros_behind_the_values():
    """20 values before 5 zeros, by FFT over 25."""
    torch.manual_seed(0)
    convolution = SpectralConvolution(4, (7,))
    x = torch.randn(20, 3, 4)
    expected = convolution_by_fft(torch.cat([x, torch.zeros(5, 3, 4)]), convolution.weight(), (7,))[:20]
    result = convolution(x, [fourier_bases(20, 7, x, 0.25)])
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_padding_is_for_axes_that_are_not_periodic():
    on = Grid((16, 16), periodic=(True, False))
    layout = Layout((FieldSpec(name="a", on=on),), (FieldSpec(name="u", on=on),))
    assert FNO(layout, width=4, padding=0.2).padding == (0, 0.2)


def test_a_coarse_analysis_and_a_fine_synthesis_are_the_same_function():
    """Of a band-limited function, to float64's rounding: values sit at the centres of cells."""

    def values(n):
        x = 2 * torch.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n
        return 1 + torch.cos(x) - 2 * torch.sin(3 * x)

    (analysis, _), (_, synthesis) = (fourier_bases(n, 4, values(1)) for n in (12, 31))
    torch.testing.assert_close(synthesis @ (analysis @ values(12)), values(31), rtol=0, atol=1e-13)


def test_norm_and_mixing_are_their_formula():
    torch.manual_seed(0)
    layer = FourierLayer(SpectralConvolution(4, (3,)), 4, norm=True, mixing=True, is_last=False)
    for parameter in (layer.norm.weight, layer.mixing.norm.bias, layer.mixing.gate):
        parameter.data.normal_()
    x = torch.randn(10, 2, 4)
    bases = [fourier_bases(10, 3, x)]

    def normalised(y, norm):  # torch's, on [B, C, n]
        return F.group_norm(y.permute(1, 2, 0), 1, norm.weight, norm.bias).permute(2, 0, 1)

    y = F.gelu(normalised(layer.spectral(x, bases), layer.norm) + layer.pointwise(x))
    expected = F.gelu(normalised(layer.mixing.net(y) + layer.mixing.gate * x, layer.mixing.norm))
    torch.testing.assert_close(layer(x, bases), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"rank": 0.2, "norm": True, "mixing": True}, {"rank": 0.2, "factors": "cp"}, {"mixing": True}]
)
def test_with_options_every_parameter_is_trained(options):
    model = FNO(layout_of(13, 16), width=6, modes=3, layers=2, **options)
    model(torch.randn(2, 1, 13, 16)).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.any(), key


def test_with_all_options_a_model_is_exported_for_all_sizes():
    layout = layout_of(13, 16)  # tried on 19 x 25
    model = FNO(layout, width=6, modes=3, layers=1, padding=0.2, rank=0.2, norm=True, mixing=True)
    assert try_export(Surrogate(model, Normalization.identity(layout), layout)) is None
