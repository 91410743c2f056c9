"""The neural operators by name. A model is `Model(layout, **options)`, called with the arrays its layout has."""

from penstock.learner.models.fno import FNO
from penstock.learner.models.mlp import MLP

MODELS: dict[str, type] = {"fno": FNO, "mlp": MLP}
