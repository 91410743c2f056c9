"""What is wrong with a configuration's values, in one line with the keys' names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from penstock.errors import PenstockError
from penstock.registry import nearest


def validated[Model: BaseModel](model: type[Model], values: dict[str, Any], where: str) -> Model:
    """Values as an object of their model.

    Args:
        model: class of the configuration.
        values: nested dictionaries, as read from YAML.
        where: the file's name, for the message.

    Returns:
        The object.

    Raises:
        PenstockError: values are refused; one line names every key concerned and says what is wrong with it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        complaints: dict[str, list[str]] = {}
        for item in _meant(error.errors()):
            subject, message = _complaint(model, item)
            complaints.setdefault(subject, []).append(message)
        lines = [": ".join(filter(None, (subject, " or ".join(said)))) for subject, said in complaints.items()]
        raise PenstockError(f"{where}: " + "; ".join(lines)) from None


# A key that is `int | Literal["auto"] | Section` gets one error per member, with its name at the end of its place.
MEMBER = re.compile(r"(constrained-)?(int|float)|bool|literal\[.*\]|[A-Z]\w*")


def _key(error: Mapping[str, Any]) -> str:
    return ".".join(part for part in map(str, error["loc"]) if not MEMBER.fullmatch(part))


def _meant(errors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Errors without those of sections where a key was given a value, and vice versa."""

    def is_of_section(error: Mapping[str, Any]) -> bool:
        return any(MEMBER.fullmatch(part) and part[0].isupper() for part in map(str, error["loc"]))

    def is_meant(error: Mapping[str, Any]) -> bool:
        if not error["loc"] or not MEMBER.fullmatch(str(error["loc"][-1])):
            return True
        others = [other for other in errors if _key(other).startswith(_key(error))]
        has_both = any(is_of_section(other) != is_of_section(error) for other in others)
        return not has_both or isinstance(error["input"], dict) == is_of_section(error)

    return [error for error in errors if is_meant(error)]


def _complaint(model: Any, error: Mapping[str, Any]) -> tuple[str, str]:
    """The key, with its value where that helps, and what is wrong with it."""
    key = _key(error)
    if error["type"] == "extra_forbidden":
        section = model
        *path, last = map(str, error["loc"])
        for part in path:
            members = {getattr(member, "__name__", None): member for member in get_args(section)}
            section = members[part] if part in members else section.model_fields[part].annotation
        return key, f"unknown key; {nearest(last, section.model_fields)}"
    if error["type"] == "missing":
        return key, "missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "model_type":
        is_choice = error["ctx"]["class_name"] in ("Named", "ProblemSection")
        message = "give a name or {name: ..., option: value}" if is_choice else "give a section of `key: value` pairs"
    if error["type"] == "value_error" or isinstance(error["input"], dict):
        return key, message
    return f"{key} = {error['input']!r}", f"{message[0].lower()}{message[1:]}"
