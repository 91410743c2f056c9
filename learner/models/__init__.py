"""The neural operators by name.

A model is built as `Model(layout, **options)`, and called with the arrays that its layout has. Its class attribute
`accepts` names the kinds of geometry that it takes, `resolution_free` those on which a finer resolution is the same
function, up to the error of the coarser one, and `recipe` what it is trained with if the configuration does not say it.
"""

import torch

from penstock.geometry import Geometry
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.mixture import INNER, Mixture

MODELS: dict[str, type] = dict(sorted({**INNER, "moe": Mixture}.items()))
PREFERRED = ("fno", "transolver", "deeponet", "mlp")
"""What suits a grid, meshes and points, fields on unlike geometries, and numbers, by benchmarks/tables/zoo.md."""


def preferred(layout: Layout) -> str:
    """Return the model that a run takes if its configuration names none.

    Args:
        layout: layout of batches.

    Returns:
        The first of PREFERRED that takes the layout; the first of all, which is then refused, if there is none.
    """
    return next((name for name in PREFERRED if _takes(MODELS[name], layout)), PREFERRED[0])


def refused_geometry(name: str, model: type, layout: Layout) -> str | None:
    """Return why a model can't take the fields of a layout.

    A model names the kinds of geometry it takes in the class attribute `accepts`. Without it, a model is assumed to
    take all.

    Args:
        name: name of the model.
        model: class of the model.
        layout: layout of batches.

    Returns:
        One sentence that names the models of MODELS that can take the layout; None if this model can.
    """
    spec = _misfit(model, layout)
    if spec is None:
        return None
    others = [other for other, cls in MODELS.items() if cls is not model and _takes(cls, layout)]
    instead = f"take {_either(others)}" if others else "give a custom model"
    taken = _either([kind.label for kind in _accepted(model)])
    return f"{name} takes fields on {taken}, and {spec.name!r} sits on {spec.on.label}: {instead}"


def _misfit(model: type, layout: Layout) -> FieldSpec | None:
    """A field on a geometry that the model does not take; None if there is none."""
    accepted, specs = _accepted(model), (*layout.outputs, *layout.inputs)
    return next((spec for spec in specs if spec.on is not None and not isinstance(spec.on, accepted)), None)


def _accepted(model: type) -> tuple[type[Geometry], ...]:
    accepts = getattr(model, "accepts", Geometry)
    return accepts if isinstance(accepts, tuple) else (accepts,)


def _either(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _takes(model: type, layout: Layout) -> bool:
    if _misfit(model, layout) is not None:
        return False
    try:
        with torch.device("meta"):
            model(layout)
    except ValueError:
        return False
    return True
