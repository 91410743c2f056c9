"""What is written is compared in units of what the outputs vary by, not of their means."""

import pytest
import torch
from torch import nn

from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.export.trials import require_agreement
from penstock.learner.normalization import Normalization
from penstock.learner.surrogate import Surrogate

GRID = Grid((8, 8))
LAYOUT = Layout(
    (FieldSpec(name="a", on=GRID),),
    (FieldSpec(name="pressure", on=GRID), FieldSpec(name="flow", on=GRID, components=2), FieldSpec(name="fixed")),
)
MEAN = {"fields": torch.zeros(1), "targets": torch.tensor([101325.0, 0, 3]), "target_scalars": torch.tensor([7.0])}
STD = {"fields": torch.ones(1), "targets": torch.tensor([4.0, 1e-3, 2]), "target_scalars": torch.zeros(1)}
INPUTS = {"a": torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))}
SHAPES = {"a": (None, None, None)}


class Scaled(nn.Module):
    """Gives the input in each channel times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.full((3, 1, 1), factor))

    def forward(self, fields):
        return {"targets": self.factor * fields, "target_scalars": fields.mean((2, 3))}


def compare(written, factor=1.0):
    surrogate = Surrogate(Scaled(factor), Normalization(MEAN, STD), LAYOUT)
    with torch.no_grad():
        require_agreement(surrogate, lambda trial: written(surrogate(**trial)), INPUTS, SHAPES, 1e-4)


@pytest.mark.parametrize(
    ("channel", "written"),
    [
        ("pressure", lambda y: y | {"pressure": 2 * MEAN["targets"][0] - y["pressure"]}),  # relative to 1e5: 8e-5
        ("pressure", lambda y: y | {"pressure": torch.full_like(y["pressure"], 101325)}),
        (r"flow\[0\]", lambda y: y | {"flow": y["flow"] * torch.tensor([-1.0, 1])[:, None, None]}),
        (r"flow\[1\]", lambda y: y | {"flow": y["flow"] + torch.tensor([0.0, 1e-3])[:, None, None]}),
        ("fixed", lambda y: y | {"fixed": y["fixed"] * (1 + 1e-5)}),
        ("fixed", lambda y: y | {"fixed": y["fixed"] * torch.nan}),
    ],
)
def test_a_wrong_channel_is_found_beside_larger_ones_and_means(channel, written):
    with pytest.raises(PenstockError, match=f"^the exported file disagrees with the model: {channel} ") as refusal:
        compare(written)
    assert "\n" not in str(refusal.value)


def test_rounding_about_a_mean_is_no_difference():
    """Neighbours in float32 of what was predicted; and an untrained model, all of whose predictions are the mean."""
    for factor in (1.0, 0.0):
        compare(lambda y: {name: torch.nextafter(values, values + 1) for name, values in y.items()}, factor)
