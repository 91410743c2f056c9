"""Manifests against the schema that a CustomResourceDefinition publishes, with unknown keys refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
SHARED = [parent / "shared" / "kuberay" for parent in ROOT.parents]
KUBERAY = next((folder for folder in SHARED if folder.is_dir()), None)
"""KubeRay's definitions, where they lie beside the checkout."""

QUANTITY = {"type": ["integer", "number", "string"]}


class Schema:
    """What a CustomResourceDefinition says of its kind, without its rules in CEL.

    path: the definition.
    version: of the kind.
    """

    def __init__(self, path: Path, version: str):
        definition = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        (schema,) = [each["schema"] for each in definition["versions"] if each["name"] == version]
        strict = _strict(schema["openAPIV3Schema"])
        names = {"apiVersion": f"{definition['group']}/{version}", "kind": definition["names"]["kind"]}
        strict["properties"] |= {key: {"const": name} for key, name in names.items()} | {"metadata": {"type": "object"}}
        strict["required"] = [*names, "metadata", "spec"]
        self._validator = Draft202012Validator(strict)

    def faults(self, manifest: Any) -> Iterator[str]:
        """Each with its place."""
        for error in self._validator.iter_errors(manifest):
            yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Kubernetes' OpenAPI as JSON Schema: what a server fills in may be absent, what it would drop is refused."""
    if schema.get("x-kubernetes-int-or-string"):
        return QUANTITY | {key: schema[key] for key in ("pattern",) if key in schema}
    strict = {key: schema[key] for key in ("type", "enum", "pattern", "minimum", "maximum") if key in schema}
    if properties := schema.get("properties"):
        strict["properties"] = {name: _strict(inner) for name, inner in properties.items()}
        filled_in = {name for name, inner in properties.items() if "default" in inner}
        strict["required"] = [name for name in schema.get("required", ()) if name not in filled_in]
        is_open = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-embedded-resource")
        strict["additionalProperties"] = bool(is_open)
    if isinstance(values := schema.get("additionalProperties"), dict):
        strict["additionalProperties"] = _strict(values)
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    if schema.get("nullable") and "type" in strict:
        strict["type"] = [strict["type"], "null"]
    return strict
