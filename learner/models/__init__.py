"""The neural operators by name. A model is `Model(layout, **options)`, called with the arrays its layout has."""

import torch

from penstock.geometry import Geometry
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.branch_trunk import BranchTrunk
from penstock.learner.models.fno import FNO
from penstock.learner.models.mlp import MLP

MODELS: dict[str, type] = {"branch_trunk": BranchTrunk, "fno": FNO, "mlp": MLP}


def refused_geometry(name: str, model: type, layout: Layout) -> str | None:
    """Why a model can't be given a layout's fields: one sentence, with those of ours that can; None where it can.

    What a model `accepts` are kinds of geometries, a class attribute; without, it is taken to know what it does.
    """
    spec = _misfit(model, layout)
    if spec is None:
        return None
    others = [other for other, cls in MODELS.items() if cls is not model and _takes(cls, layout)]
    instead = f"take {' or '.join(others)}" if others else "give one of your own"
    taken = " or ".join(kind.label for kind in model.accepts)
    return f"{name} takes fields on {taken}, and {spec.name!r} sits on {spec.on.label}: {instead}"


def _misfit(model: type, layout: Layout) -> FieldSpec | None:
    """A field on a geometry that the model does not accept."""
    accepts = getattr(model, "accepts", (Geometry,))
    specs = (*layout.outputs, *layout.inputs)
    return next((spec for spec in specs if spec.on is not None and not isinstance(spec.on, accepts)), None)


def _takes(model: type, layout: Layout) -> bool:
    if _misfit(model, layout) is not None:
        return False
    try:
        with torch.device("meta"):
            model(layout)
    except ValueError:
        return False
    return True
