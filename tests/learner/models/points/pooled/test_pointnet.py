"""PointNet: the theorem of its paper, that few points decide."""

import torch

from penstock.geometry import Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.points.pooled.pointnet import PointNet

CLOUD = Points(100, 2)
LAYOUT = Layout((FieldSpec(name="a", on=CLOUD),), (FieldSpec(name="u", on=CLOUD),))


def test_points_that_are_extreme_in_no_channel_change_nothing_elsewhere():
    """Theorem 2 of Qi et al. (2017): the points where a channel has its maximum give all of what is pooled."""
    torch.manual_seed(0)
    model = PointNet(LAYOUT, width=2)
    arrays = {"points": torch.rand(1, 100, 2), "weights": torch.rand(1, 100) + 0.1, "fields": torch.randn(1, 1, 100)}
    inputs = torch.cat([arrays["points"], arrays["fields"].transpose(1, 2)], dim=2)
    critical = model.overall(model.local(inputs))[0].argmax(dim=0).unique()
    assert 1 < len(critical) < 60
    fewer = {name: values[..., critical] for name, values in arrays.items() if name != "points"}
    expected = model(**arrays)[..., critical]
    torch.testing.assert_close(model(points=arrays["points"][:, critical], **fewer), expected)
    fewer["fields"] = fewer["fields"] + 1
    assert not torch.allclose(model(points=arrays["points"][:, critical], **fewer), expected)
