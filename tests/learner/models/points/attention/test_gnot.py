"""GNOT: its attention against the whole matrix, its mixture of nets, and input functions on several geometries."""

import pytest
import torch

from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.points.attention.gnot import GNOT, LinearAttention
from penstock.learner.normalization import Normalization
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.surrogate import Surrogate

CLOUD, WALL, SENSORS = Points(30, 2, name="cloud"), Points(12, 2, name="wall"), Grid((6,), name="sensors")


def test_linear_attention_is_attention_with_the_whole_matrix():
    torch.manual_seed(0)
    attention = LinearAttention(6, 2, 2).double()
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    sources = [
        (torch.randn(1, num, 6, dtype=torch.float64), torch.softmax(torch.randn(1, num, dtype=torch.float64), 1))
        for num in (7, 4)
    ]
    heads = []
    for own in (slice(0, 3), slice(3, 6)):
        q = torch.softmax(attention.queries(x)[0, :, own], dim=1)
        out = q
        for project, (z, shares) in zip(attention.keys_values, sources, strict=True):
            k, v = (each[0, :, own] for each in project(z).chunk(2, dim=2))
            matrix = q @ torch.softmax(k, dim=1).T * shares
            out = out + matrix / matrix.sum(dim=1, keepdim=True) @ v
        heads.append(out)
    torch.testing.assert_close(attention(x, sources)[0], attention.out(torch.cat(heads, dim=1)))


def test_equal_experts_are_one():
    layout = Layout((FieldSpec(name="a", on=CLOUD),), (FieldSpec(name="u", on=CLOUD),))
    torch.manual_seed(0)
    one, three = (GNOT(layout, width=8, heads=2, layers=2, experts=experts) for experts in (1, 3))
    state = three.state_dict()
    for name, values in one.state_dict().items():
        for expert in range(3):
            if "mixtures" in name:
                parts = name.split(".")  # blocks, number, mixtures, number, expert, ...
                state[".".join([*parts[:4], str(expert), *parts[5:]])] = values
            else:
                state[name] = values
    three.load_state_dict(state)
    arrays = {"points": torch.rand(2, 9, 2), "weights": torch.rand(2, 9), "fields": torch.randn(2, 1, 9)}
    assert one.gate is None
    torch.testing.assert_close(three(**arrays), one(**arrays))


def test_input_functions_may_sit_anywhere_and_all_of_them_count():
    torch.manual_seed(0)
    layout = Layout(
        (FieldSpec(name="g", on=WALL), FieldSpec(name="h", on=SENSORS), FieldSpec(name="k")),
        (FieldSpec(name="u", on=CLOUD, components=2),),
    )
    surrogate = Surrogate(GNOT(layout, width=8, heads=2, layers=2), Normalization.identity(layout), layout)
    arrays = free_samples(layout, 2, torch.device("cpu"))
    with torch.no_grad():
        expected = surrogate.predict(arrays)["targets"]
        for block in layout.input_blocks:
            other = arrays | {block.name: arrays[block.name] + 1}
            assert not torch.allclose(surrogate.predict(other)["targets"], expected), block.name
    assert expected.shape == (2, 2, 30)


def test_a_width_that_heads_do_not_divide_and_scalars_as_outputs_are_refused():
    layout = Layout((FieldSpec(name="a", on=CLOUD),), (FieldSpec(name="u", on=CLOUD), FieldSpec(name="drag")))
    with pytest.raises(ValueError, match="gnot: needs all outputs on one geometry, no scalars among them"):
        GNOT(layout)
    with pytest.raises(ValueError, match="gnot: width must be a multiple of heads, and 10 is none of 4"):
        GNOT(layout, width=10)
