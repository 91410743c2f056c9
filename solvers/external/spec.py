"""What an external program draws, takes and gives, as YAML says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.geometry import Geometry, Grid, Points
from penstock.layout import FieldSpec
from penstock.registry import build, nearest
from penstock.solvers.parameters.distribution import Distribution
from penstock.solvers.parameters.fields import BinaryField, DirichletField, GaussianField, LogNormalField, PeriodicField
from penstock.solvers.parameters.space import Discrete, LogUniform, Normal, ParameterSpace, TruncatedNormal, Uniform
from penstock.yaml_file import read_mapping

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
}
GEOMETRIES: dict[str, type] = {"grid": Grid, "points": Points}
KEYS = ("parameters", "geometries", "inputs", "outputs", "num_steps")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The attributes of a problem that its program does not say itself."""

    space: ParameterSpace
    inputs: tuple[FieldSpec, ...]
    outputs: tuple[FieldSpec, ...]
    num_steps: int


def spec_of(values: Mapping[str, Any]) -> Spec:
    """The spec that YAML's values stand for.

    Args:
        values: `parameters`, `geometries`, `inputs`, `outputs`, and `num_steps`, which is 1 where absent. Each of the
            first four maps names to options: those of a law (one of `LAWS`), a geometry (of a kind in `GEOMETRIES`),
            or a `FieldSpec`, which names its geometry.

    Returns:
        The spec.

    Raises:
        PenstockError: a key is unknown or its value refused; the message names it.
    """
    for key in values:
        if key not in KEYS:
            raise PenstockError(f"spec.{key}: unknown key; {nearest(key, KEYS)}")
    geometries: dict[str, Geometry] = {
        name: _chosen("kind", GEOMETRIES, options, f"spec.geometries.{name}")
        for name, options in _section(values, "geometries").items()
    }
    laws = {name: _law(options, f"spec.parameters.{name}") for name, options in _section(values, "parameters").items()}
    if "time" in laws:
        raise PenstockError("spec.parameters.time: the time of a sample has this name: take another")
    return Spec(
        space=ParameterSpace(**laws),
        inputs=_fields(values, "inputs", geometries),
        outputs=_fields(values, "outputs", geometries),
        num_steps=values.get("num_steps", 1),
    )


def read_spec(path: Path) -> dict[str, Any]:
    """What the YAML file of a spec holds.

    Args:
        path: the file.

    Returns:
        The argument of `spec_of`.

    Raises:
        PenstockError: the file can't be read or holds no mapping.
    """
    return read_mapping(path, what="the YAML file of a spec", needs="at least `outputs`")


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


def _law(options: Mapping[str, Any], where: str) -> Distribution:
    """The distribution, with the one of which it is a function inside."""
    if isinstance(options.get("field"), Mapping):
        options = {**options, "field": _law(options["field"], f"{where}.field")}
    return _chosen("law", LAWS, options, where)


def _chosen(key: str, classes: Mapping[str, type], options: Mapping[str, Any], where: str) -> Any:
    """An object of the class that the option `key` names, from the other options."""
    name = options.get(key)
    if name not in classes:
        raise PenstockError(f"{where}.{key} = {name!r}: {nearest(name, classes)}")
    return build(classes[name], {other: value for other, value in options.items() if other != key}, where)


def _fields(values: Mapping[str, Any], key: str, geometries: Mapping[str, Geometry]) -> tuple[FieldSpec, ...]:
    specs = []
    for name, options in _section(values, key).items():
        where = f"spec.{key}.{name}"
        if "geometry" in options:  # `on` would be "true" in YAML
            geometry = options.pop("geometry")
            if geometry not in geometries:
                raise PenstockError(f"{where}.geometry = {geometry!r}: {nearest(geometry, geometries)}")
            options["on"] = geometries[geometry]
        specs.append(build(FieldSpec, options | {"name": name}, where))
    return tuple(specs)
