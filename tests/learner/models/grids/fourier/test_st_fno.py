"""ST-FNO: the whole of it by torch.fft on a padded time axis, its size, its forecast before any change, and frames."""

import math

import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.units import Trajectories
from penstock.learner.buffers.windows import Windows
from penstock.learner.models.grids.fourier.st_fno import STFNO

TINY = {"width": 6, "modes": 3, "layers": 2}


def layout_of(*grid, given=1, predicted=1):
    """The layout of windows of a problem that predicts u and p from u, a force and a scalar."""
    on = Grid(grid, periodic=True)
    inputs = FieldSpec(name="force", on=on), FieldSpec(name="before", on=on), FieldSpec(name="s")
    samples = Layout(inputs, (FieldSpec(name="u", on=on), FieldSpec(name="p", on=on)), {"before": "u"})
    return Windows(99, inputs=given, outputs=predicted).fitted(samples).layout(samples)


def model_of(*grid, given=1, predicted=1, **options):
    torch.manual_seed(0)
    return STFNO(layout_of(*grid, given=given, predicted=predicted), **TINY | options)


def convolved(x_XTC, spectral, modes, time_modes):
    """K by torch.fft of the values with as many zeros behind them in time, which has the last axis of the transform."""
    width = x_XTC.shape[-1]
    weight = spectral.weight()
    matrices = torch.complex(weight[..., :width], weight[..., width:]).reshape(2, modes, time_modes, width, width)
    num_steps = x_XTC.shape[1]
    spectrum = torch.fft.rfft2(torch.cat([x_XTC, torch.zeros_like(x_XTC)], dim=1), dim=(0, 1))
    result = torch.zeros_like(spectrum)
    for pattern, sign in enumerate((1, -1)):
        for k in range(modes):
            for j in range(time_modes):
                share = 0.5 if k == 0 else 1.0  # both signs are one wave there
                result[sign * k, j] += share * (spectrum[sign * k, j] @ matrices[pattern, k, j])
    return torch.fft.irfft2(result, s=(x_XTC.shape[0], 2 * num_steps), dim=(0, 1))[:, :num_steps]


def test_it_is_its_equations_by_torch_fft():
    """Three frames in and two out, of one sample, on one axis of space."""
    model = model_of(10, given=3, predicted=2).double()
    fields, s = torch.randn(1, 4, 10, dtype=torch.float64), torch.tensor([[0.7]], dtype=torch.float64)
    force, frames = fields[0, 0], fields[0, 1:]
    places = (torch.arange(10) + 0.5) / 10
    lifted = []
    for number in range(5):
        t = (number - 2) / 2  # 0 at the last given frame, 1 at the last of all
        waves = [wave(math.pi * (j + 1) * t) for j in range(4) for wave in (math.cos, math.sin)]
        time = torch.tensor([t, float(number < 3), *waves], dtype=torch.float64)
        rest = torch.stack([force, s.expand(10, 1)[:, 0], places.double()], dim=1)
        state = frames[min(number, 2)][:, None]
        lifted.append(model.lift(state) + model.lift_rest(rest) + model.lift_time(time))
    v_XTC = torch.stack(lifted, dim=1)
    for number, layer in enumerate(model.layers):
        y = layer.net(convolved(v_XTC, layer.spectral, 3, 5)) + layer.pointwise(v_XTC)
        v_XTC = y if number == 1 else torch.nn.functional.gelu(y)
    change = model.project(v_XTC[:, 3:])
    expected = [change[:, 0, 0] + frames[2], change[:, 0, 1], change[:, 1, 0] + frames[2], change[:, 1, 1]]
    torch.testing.assert_close(model(fields, s)[0], torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_spectral_weights_and_what_the_paper_has_beside_them_are_its_9_245_131_parameters():
    """There 64 x 64 points, 10 frames in and 40 out, 12 modes in space and 5 in time, width 20, 4 layers.

    The first of the paper's K is in its lift, so that three layers have a net with 128 neurons and a W. Its last K has
    one channel, and a bias for each mode.
    """
    with torch.device("meta"):
        model = STFNO(layout_of(64, 64, given=10, predicted=40), width=20)
    spectral = sum(p.numel() for layer in model.layers for p in layer.spectral.parameters())
    lift = 2 * 23 + (23 + 1) * 20  # a norm and a linear map of 20 channels and three coordinates
    layers = 3 * ((20 + 1) * 128 + (128 + 1) * 20 + (20 + 1) * 20)
    head = (20 + 1) + 2 * (2 * 4 * 12 * 12 * 5)  # real and imaginary parts, in four quadrants of the wave vectors
    assert spectral + lift + layers + head == 9_245_131


def test_before_any_change_the_last_frame_stays():
    model, fields, s = model_of(8, 9, given=2, predicted=3), torch.randn(2, 3, 8, 9), torch.randn(2, 1)
    for parameter in model.project.parameters():
        parameter.data.zero_()
    outputs = model(fields, s).unflatten(1, (3, 2))  # u and p of each frame
    assert torch.equal(outputs[:, :, 0], fields[:, 2:].expand(2, 3, 8, 9)) and not outputs[:, :, 1].any()


def test_frames_are_an_axis_and_no_channels():
    """So their number changes no parameter but those of the forecast, and their order matters."""
    sizes = [
        {key: p.shape for key, p in model_of(8, given=k, predicted=m, time_modes=2).named_parameters()}
        for k, m in ((1, 1), (3, 5))
    ]
    assert {key for key in sizes[0] if sizes[0][key] != sizes[1][key]} == {"persistence.weight", "persistence.bias"}
    model, fields, s = model_of(8, given=3), torch.randn(1, 4, 8), torch.zeros(1, 1)
    assert not torch.allclose(model(fields, s), model(fields[:, [0, 2, 1, 3]], s), rtol=1e-3)


def test_trajectories_are_frames_to_predict_and_without_frames_there_is_one():
    on = Grid((9, 8))
    samples = Layout((FieldSpec(name="a", on=on),), (FieldSpec(name="u", on=on),))
    for layout, num in ((Trajectories(6).layout(samples), 6), (samples, 1)):
        model = STFNO(layout, **TINY)
        assert model.persistence is None and model(torch.randn(2, 1, 9, 8)).shape == (2, num, 9, 8)


@pytest.mark.parametrize("time_modes", [0, 6])
def test_more_modes_than_frames_are_refused(time_modes):
    with pytest.raises(ValueError, match=rf"st_fno: time_modes must be from 1 to .*, which is 5, not {time_modes}$"):
        model_of(8, given=3, predicted=2, time_modes=time_modes)
