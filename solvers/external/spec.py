"""What an external program draws, takes and gives, as YAML says it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from penstock.errors import PenstockError, text_of
from penstock.files.yaml_file import read_mapping
from penstock.geometry import Geometry, Grid, Mesh, Points
from penstock.layout import FieldSpec
from penstock.registry import build, nearest
from penstock.solvers.parameters.distribution import Distribution, FunctionOfField
from penstock.solvers.parameters.fields import (
    BinaryField,
    DirichletField,
    GaussianField,
    LogNormalField,
    PeriodicField,
    SpectralField,
)
from penstock.solvers.parameters.mesh_field import MaternField
from penstock.solvers.parameters.space import Discrete, LogUniform, Normal, ParameterSpace, TruncatedNormal, Uniform

LAWS: dict[str, type] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "normal": Normal,
    "truncated_normal": TruncatedNormal,
    "discrete": Discrete,
    "gaussian_field": GaussianField,
    "dirichlet_field": DirichletField,
    "periodic_field": PeriodicField,
    "binary_field": BinaryField,
    "log_normal_field": LogNormalField,
    "matern_field": MaternField,
}
KEYS = ("about", "parameters", "geometries", "inputs", "outputs", "num_steps")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The attributes of a problem that its program does not say itself."""

    about: str
    """The equation, for people; "" where nobody said it."""
    space: ParameterSpace
    inputs: tuple[FieldSpec, ...]
    outputs: tuple[FieldSpec, ...]
    num_steps: int

    @cached_property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The values of the parameters that are chosen by name.

        A program is given their places, from 0.
        """
        return {
            name: law.values
            for name, law in self.space.distributions.items()
            if isinstance(law, Discrete) and any(isinstance(value, str) for value in law.values)
        }


@dataclass(frozen=True)
class MeshFile:
    """The `build` of a mesh that lies in a file, with the arrays `points` and `cells`."""

    path: str
    """The .npz file."""

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        with np.load(self.path) as arrays:
            return arrays["points"], arrays["cells"]


def _mesh(*, file: str, name: str = "") -> Mesh:
    """The mesh in a .npz file. Raises ValueError where there is none."""
    try:
        points, _ = MeshFile(file)()
    except FileNotFoundError:
        raise ValueError(f"file = {file!r}: no such file") from None
    except (OSError, ValueError, TypeError, KeyError) as error:  # of other formats; an array alone; an array absent
        raise ValueError(f"file = {file!r} must be a .npz file with `points` and `cells`: {text_of(error)}") from None
    if points.ndim != 2:
        raise ValueError(f"file = {file!r} has points of shape {points.shape}: give coordinates [P, d]")
    return Mesh(*points.shape, MeshFile(file), name=name)


GEOMETRIES: dict[str, Callable[..., Geometry]] = {"grid": Grid, "mesh": _mesh, "points": Points}
"""Values of `kind`, with what takes the other options."""


def spec_of(values: Mapping[str, Any]) -> Spec:
    """The spec that YAML's values stand for.

    Args:
        values: `about`, which is text; `parameters`, `geometries`, `inputs`, `outputs`, which map names to options:
            those of a law (one of `LAWS`), a geometry (of a kind in `GEOMETRIES`), or a `FieldSpec`, which names its
            geometry; and `num_steps`, which is 1 where absent.

    Returns:
        The spec.

    Raises:
        PenstockError: a key is unknown or its value refused, or an input contradicts the parameter of its name; the
            message names it.
    """
    for key in values:
        if key not in KEYS:
            raise PenstockError(f"spec.{key}: unknown key; {nearest(key, KEYS)}")
    if not isinstance(about := values.get("about", ""), str):
        raise PenstockError(f"spec.about = {about!r} must be text: say what the program solves")
    geometries = _geometries(values)
    given = _section(values, "parameters")
    laws = {name: _law(options, geometries, f"spec.parameters.{name}") for name, options in given.items()}
    if "time" in laws:
        raise PenstockError("spec.parameters.time: the time of a sample has this name: take another")
    units = {name: options["unit"] for name, options in given.items() if "unit" in options}
    inputs = _fields(values, "inputs", geometries, units)
    for each in inputs:
        _require_agreement(each, laws.get(each.name))
    return Spec(
        about=about,
        space=ParameterSpace(**laws),
        inputs=inputs,
        outputs=_fields(values, "outputs", geometries),
        num_steps=values.get("num_steps", 1),
    )


def read_spec(path: Path) -> dict[str, Any]:
    """What the YAML file of a spec holds, as it means the same everywhere.

    Args:
        path: the file.

    Returns:
        The argument of `spec_of`, with absolute paths of the files that it names.

    Raises:
        PenstockError: the file can't be read or holds no mapping.
    """
    values = read_mapping(path, what="the YAML file of a spec", needs="at least `outputs`")
    if geometries := _section(values, "geometries"):
        for options in geometries.values():
            if isinstance(options.get("file"), str):
                options["file"] = os.path.abspath(path.parent / options["file"])
        values["geometries"] = geometries
    return values


def _section(values: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """The options by name under a key."""
    section = values.get(key) or {}
    if not isinstance(section, Mapping):
        raise PenstockError(f"spec.{key} must map names to options")
    for name, options in section.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise PenstockError(f"spec.{key}: {name!r} must be an identifier, for programs name it")
        if not isinstance(options or {}, Mapping):
            raise PenstockError(f"spec.{key}.{name} must be a mapping of options, not {options!r}")
    return {name: dict(options or {}) for name, options in section.items()}


def _geometries(values: Mapping[str, Any]) -> dict[str, Geometry]:
    """The geometries by their keys.

    Where fields sit on several that have no name, the keys are their names.
    """
    section = _section(values, "geometries")
    fields = [*_section(values, "inputs").values(), *_section(values, "outputs").values()]
    nameless = {key for key, options in section.items() if "name" not in options}
    nameless &= {key for options in fields if isinstance(key := options.get("geometry"), str)}
    names = {key: {"name": key} for key in nameless} if len(nameless) > 1 else {}
    return {
        key: _chosen("kind", GEOMETRIES, names.get(key, {}) | options, f"spec.geometries.{key}")
        for key, options in section.items()
    }


def _law(options: Mapping[str, Any], geometries: Mapping[str, Geometry], where: str) -> Distribution:
    """The distribution, with the one of which it is a function, on the mesh it names."""
    if isinstance(options.get("field"), Mapping):
        options = {**options, "field": _law(options["field"], geometries, f"{where}.field")}
    if "mesh" in options:
        meshes = {name: geometry for name, geometry in geometries.items() if isinstance(geometry, Mesh)}
        options = {**options, "mesh": _named(options["mesh"], meshes, f"{where}.mesh")}
    return _chosen("law", LAWS, options, where)


def _chosen(key: str, classes: Mapping[str, Callable[..., Any]], options: Mapping[str, Any], where: str) -> Any:
    """An object of the class that the option `key` names, from the other options."""
    chosen = _named(options.get(key), classes, f"{where}.{key}")
    return build(chosen, {other: value for other, value in options.items() if other != key}, where)


def _named(name: Any, known: Mapping[str, Any], where: str) -> Any:
    """What has this name."""
    if not isinstance(name, str) or name not in known:
        raise PenstockError(f"{where} = {name!r}: {nearest(name, known)}")
    return known[name]


def _fields(
    values: Mapping[str, Any],
    key: str,
    geometries: Mapping[str, Geometry],
    units: Mapping[str, str] = MappingProxyType({}),
) -> tuple[FieldSpec, ...]:
    """The quantities under a key, in the units of the parameters of their names."""
    specs = []
    for name, options in _section(values, key).items():
        where = f"spec.{key}.{name}"
        if "geometry" in options:  # `on` would be "true" in YAML
            options["on"] = _named(options.pop("geometry"), geometries, f"{where}.geometry")
        if name in units and options.setdefault("unit", units[name]) != units[name]:
            raise PenstockError(
                f"{where}.unit = {options['unit']!r}, and the parameter {name} is in {units[name]!r}: leave out one"
            )
        specs.append(build(FieldSpec, options | {"name": name}, where))
    return tuple(specs)


def _require_agreement(spec: FieldSpec, law: Distribution | None) -> None:
    """Raise PenstockError where an input is not the parameter or time of its name."""
    where = f"spec.inputs.{spec.name}"
    if spec.name == "time" and spec.shape:
        raise PenstockError(f"{where}: the time of a sample is a number: leave out geometry and components")
    if law is None:
        return
    shape = _shape(law)
    if shape and spec.on is None:
        raise PenstockError(f"{where}: the parameter is a field of {_by(shape)} values: give the geometry they sit on")
    if not shape and spec.shape:
        raise PenstockError(f"{where}: the parameter is a number: leave out geometry and components")
    if spec.on is not None and (spec.on.is_ragged or spec.shape != shape):
        at_most = "at most " if spec.on.is_ragged else ""
        raise PenstockError(
            f"{where}: has {at_most}{_by(spec.shape)} values, and the parameter is a field of {_by(shape)}: give the "
            "geometry that the parameter sits on, or let the program write an input of another name"
        )


def _shape(law: Distribution) -> tuple[int, ...]:
    """The shape of a law's draws, none of a number."""
    if isinstance(law, FunctionOfField):
        return _shape(law.field)
    if isinstance(law, MaternField):
        return law.mesh.shape
    return (law.resolution,) * law.dimension if isinstance(law, SpectralField) else ()


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
