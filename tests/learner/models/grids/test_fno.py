"""The spectral convolution against torch.fft, and what the FNO promises about shapes."""

import itertools

import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.fno import FNO
from penstock.learner.models.grids.spectral import SpectralConvolution, fourier_bases


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


@pytest.mark.parametrize("grid", [(24,), (16, 20), (8, 10, 12)])
def test_gradients_reach_every_parameter(grid):
    model = FNO(layout_of(*grid, scalars=("t",)), width=6, modes=4, layers=2)
    output = model(torch.randn(3, 1, *grid), torch.randn(3, 1))
    assert output.shape == (3, 1, *grid)
    output.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_another_resolution_gives_the_same_function():
    """A band-limited field sampled at cell centres of a finer grid: outputs agree to the model's own aliasing."""
    torch.manual_seed(0)
    model = FNO(layout_of(32, 32), width=8, modes=4, layers=2)

    def field(n):
        centres = (torch.arange(n) + 0.5) / n
        return (torch.sin(2 * torch.pi * centres)[:, None] * torch.cos(4 * torch.pi * centres))[None, None]

    with torch.no_grad():
        coarse, fine = model(field(32)), model(field(96))
    shared = fine[:, :, 1::3, 1::3]  # the fine cells whose centres are those of the coarse ones
    # The coordinates' sawtooth is not band-limited, so its sampled spectrum differs by O(1 / n).
    assert torch.linalg.vector_norm(shared - coarse) / torch.linalg.vector_norm(coarse) < 0.05


def test_scalars_change_the_output_and_samples_do_not_mix():
    torch.manual_seed(0)
    model = FNO(layout_of(16, 16, scalars=("t",)), width=6, modes=4, layers=2)
    fields, scalars = torch.randn(2, 1, 16, 16), torch.randn(2, 1)
    with torch.no_grad():
        output = model(fields, scalars)
        changed = model(fields, scalars + torch.tensor([[0.0], [1.0]]))
        alone = model(fields[:1], scalars[:1])
    torch.testing.assert_close(changed[0], output[0])
    assert not torch.allclose(changed[1], output[1])
    torch.testing.assert_close(alone[0], output[0], rtol=1e-4, atol=1e-5)


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
        (layout_of(16, 16), {"width": 0}, "width must be at least 1"),
        (layout_of(16, 16), {"layers": 0}, "layers must be at least 1"),
        (layout_of(4, 4, 4, 4), {"modes": 2}, "1 to 3 axes, not 4: take the model mlp"),
        (
            Layout((FieldSpec(name="t"),), (FieldSpec(name="u", on=Grid((16,))),)),
            {},
            "needs an input field .*: take the model mlp",
        ),
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


def test_fields_on_two_grids_are_refused_by_name():
    cells, vertices = Grid((8,), name="cells"), Grid((9,), centring="vertices", name="vertices")
    layout = Layout((FieldSpec(name="a", on=cells),), (FieldSpec(name="u", on=vertices),))
    with pytest.raises(ValueError, match="fno: needs all fields on one grid, and these sit on 'vertices' and 'cells'"):
        FNO(layout)
