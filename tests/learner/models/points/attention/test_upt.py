"""UPT: supernodes against sums over all points, and queries that see no other query."""

import pytest
import torch

from penstock.geometry import Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.points.attention.upt import UPT
from penstock.learner.models.points.sites import Sites

CLOUD = Points(60, 2, extent=(2.0, 1.0))
LAYOUT = Layout((FieldSpec(name="a", on=CLOUD),), (FieldSpec(name="u", on=CLOUD),))
SIZES = {"width": 12, "resolution": 6, "tokens": 5, "heads": 2, "layers": 1}


def cloud(num=30):
    torch.manual_seed(0)
    points = torch.rand(1, num, 2) * torch.tensor([0.7, 0.5])
    return {"points": points, "weights": torch.rand(1, num) + 0.1, "fields": torch.randn(1, 1, num)}


def test_a_supernode_is_the_mean_of_the_messages_within_its_radius():
    arrays, model = cloud(), UPT(LAYOUT, **SIZES)
    inputs = torch.cat([arrays["points"], arrays["fields"].transpose(1, 2)], dim=2)
    found, measures = model.supernodes(inputs, Sites.of(CLOUD, LAYOUT, arrays))
    shares, f = arrays["weights"][0] / arrays["weights"].sum(), model.lift(inputs[0])
    for n, place in enumerate(model.grid.centres):
        offsets = (place - arrays["points"][0]) * 6 / 1.5
        weights = shares * (1 - offsets.square().sum(1)).clamp_min(0).square()
        messages = model.message(torch.cat([f, arrays["points"][0], offsets.clamp(-1, 1)], dim=1))
        torch.testing.assert_close(measures[0, n], weights.sum())
        torch.testing.assert_close(found[0, n], weights @ messages / (weights.sum() + 1e-8))
    assert (measures == 0).any()  # beyond the domain


def test_a_query_changes_no_other_and_may_lie_anywhere():
    """Points of weight 0 ask only: a function of place is evaluated, at old points and new ones alike."""
    arrays, model = cloud(), UPT(LAYOUT, **SIZES)
    asked = {name: torch.cat([values] * 2, dim=1 if name == "points" else -1) for name, values in arrays.items()}
    asked["weights"][:, 30:] = 0
    found, expected = model(**asked), model(**arrays)
    torch.testing.assert_close(found[..., :30], expected)
    torch.testing.assert_close(found[..., 30:], expected)


def test_an_option_out_of_its_range_is_refused():
    for options, expected in (
        ({"width": 10}, "upt: width must be a multiple of heads, and 10 is none of 4"),
        ({"resolution": 2}, "upt: resolution must be at least 4, not 2"),
        ({"tokens": 0}, "upt: tokens must be at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=expected):
            UPT(LAYOUT, **options)
