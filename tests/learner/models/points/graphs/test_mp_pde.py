"""MP-PDE: its size against the authors' net, one round by hand, its forecast before any change, and its bundles."""

import pytest
import torch

from penstock.geometry import Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.windows import Windows
from penstock.learner.models.points.graphs.mp_pde import MPPDE

CLOUD = Points(40, 2, max_edges=60)


def layout_of(cloud=CLOUD, *, given=1, predicted=1, scalars=("t",)):
    """The layout of windows of a problem that predicts u and p from u."""
    inputs = FieldSpec(name="before", on=cloud), *(FieldSpec(name=name) for name in scalars)
    outputs = FieldSpec(name="u", on=cloud), FieldSpec(name="p", on=cloud)
    samples = Layout(inputs, outputs, {"before": "u"})
    return Windows(200, inputs=given, outputs=predicted).fitted(samples).layout(samples)


def chain(num, given=1, size=1):
    torch.manual_seed(0)
    edges = torch.stack([torch.arange(num - 1), torch.arange(1, num)], dim=1).expand(size, -1, 2)
    return {
        "points": torch.rand(size, num, 2),
        "weights": torch.rand(size, num) + 0.5,
        "fields": torch.randn(size, given, num),
        "scalars": torch.randn(size, 1),
        "edges": edges,
    }


def test_it_has_as_many_parameters_as_the_authors_net_and_those_of_its_forecast():
    """With 25 frames of one quantity in, 25 out and the time, as for their first experiment, on points of one axis."""
    line = Points(40, 1, max_edges=60)
    given, time = FieldSpec(name="before", on=line), FieldSpec(name="t")
    samples = Layout((given, time), (FieldSpec(name="u", on=line),), {"before": "u"})
    with torch.device("meta"):
        model = MPPDE(Windows(200, inputs=25, outputs=25).fitted(samples).layout(samples), width=128, layers=6)
    embedding = (25 + 1 + 1) * 128 + 128 + 128 * 128 + 128
    message = (2 * 128 + 25 + 1 + 1) * 128 + 128 + 128 * 128 + 128
    update = (2 * 128 + 1) * 128 + 128 + 128 * 128 + 128
    decoder = 8 * 16 + 8 + 8 * 14 + 1  # kernels of 16, with stride 3, and of 14
    assert embedding + 6 * (message + update) + decoder == 634_745
    assert sum(parameter.numel() for parameter in model.parameters()) == 634_745 + 2 * 25
    assert model.decode[0].stride == (3,)


def test_a_round_is_a_mean_over_the_neighbours_then_a_norm_over_the_domain():
    arrays, model = chain(5), MPPDE(layout_of(), width=6, layers=1)
    x, u, t = arrays["points"][0], arrays["fields"][0, 0, :, None], arrays["scalars"][0]
    h = model.embed(torch.cat([x, u, t.expand(5, 1)], dim=1))
    rows = []
    for i in range(5):
        neighbours = sorted({i - 1, i + 1} & set(range(5)))
        apart = {j: (x[i] - x[j]) * 40**0.5 for j in neighbours}
        messages = [model.messages[0](torch.cat([h[i], h[j], u[i] - u[j], apart[j], t])) for j in neighbours]
        rows.append(h[i] + model.updates[0](torch.cat([h[i], sum(messages) / len(messages), t])))
    h, shares = torch.stack(rows), (arrays["weights"][0] / arrays["weights"].sum())[:, None]
    mean = (shares * h).sum(0)
    h = (h - mean) / ((shares * (h - mean).square()).sum(0) + 1e-5).sqrt()
    slopes = model.decode(h[:, None])[..., 0]
    torch.testing.assert_close(model(**arrays)[0], torch.stack([u[:, 0] + slopes[:, 0], slopes[:, 1]]))


def test_before_any_change_the_last_frame_stays_and_slopes_grow_with_time():
    arrays, model = chain(7, given=3, size=2), MPPDE(layout_of(given=3, predicted=4), width=16, layers=1)
    frames = arrays["fields"][:, 2]  # channels go by frame
    for parameter in model.decode.parameters():
        parameter.data.zero_()
    model.decode[2].bias.data.fill_(1.0)
    outputs = model(**arrays).unflatten(1, (4, 2))  # u and p of each frame
    for number in range(4):
        torch.testing.assert_close(outputs[:, number, 0], frames + (number + 1) / 4)
        torch.testing.assert_close(outputs[:, number, 1], torch.ones(2, 7))  # it is not given, so there is no forecast


@pytest.mark.parametrize(("given", "predicted", "width"), [(1, 1, 2), (2, 5, 8), (1, 30, 64), (4, 2, 33)])
def test_bundles_of_any_size_come_out_of_the_decoder(given, predicted, width):
    model = MPPDE(layout_of(given=given, predicted=predicted), width=width, layers=1)
    assert model(**chain(6, given)).shape == (1, 2 * predicted, 6)


def test_a_width_that_can_not_hold_the_frames_is_refused_and_the_one_that_is_named_does():
    with pytest.raises(ValueError, match=r"mp_pde: a width of 20 is too small for 30 frames: take at least 46$"):
        MPPDE(layout_of(predicted=30), width=20)
    for predicted in (2, 7, 30):
        least = predicted + min(16, predicted)
        assert MPPDE(layout_of(predicted=predicted), width=least, layers=1)(**chain(5)).shape[1] == 2 * predicted
    with pytest.raises(ValueError, match=r"mp_pde: needs edges, .* give Points\(..., max_edges=...\)"):
        MPPDE(layout_of(Points(40, 2)))
