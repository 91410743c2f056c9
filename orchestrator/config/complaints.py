"""What is wrong with a configuration's values, in one line with the keys' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
        for item in error.errors():
            subject, message = _complaint(model, item)
            complaints.setdefault(subject, []).append(message)
        lines = [": ".join(filter(None, (subject, " or ".join(said)))) for subject, said in complaints.items()]
        raise PenstockError(f"{where}: " + "; ".join(lines)) from None


def _complaint(model: Any, error: Mapping[str, Any]) -> tuple[str, str]:
    """The key, with its value where that helps, and what is wrong with it."""
    # A key that is `int | Literal["auto"]` gets one error per member, with the member's name at the end of its place.
    location = [str(part) for part in error["loc"]]
    key = ".".join(
        part for part in location if not re.fullmatch(r"(constrained-)?(int|float)|bool|literal\[.*\]", part)
    )
    if error["type"] == "extra_forbidden":
        section = model
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        return key, f"unknown key; {nearest(location[-1], section.model_fields)}"
    if error["type"] == "missing":
        return key, "missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "model_type":
        is_choice = error["ctx"]["class_name"] in ("Named", "ProblemSection")
        message = "give a name or {name: ..., option: value}" if is_choice else "give a section of `key: value` pairs"
    if error["type"] == "value_error" or isinstance(error["input"], dict):
        return key, message
    return f"{key} = {error['input']!r}", f"{message[0].lower()}{message[1:]}"
