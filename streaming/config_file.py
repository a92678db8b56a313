"""The settings' YAML file, and what is wrong with settings in words for people; secrets are never repeated."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError

from lhm_runtime.errors import InvalidInputError

_SECRETS: Final = ("secret", "password", "credential", "token", "admin_key", "url")
"""Values that are not repeated; addresses to send a stream to have keys in them."""
_SAID_BETTER: Final = {
    "tuple_type": "should be a list, as [a, b]",
    "too_short": "needs at least one",
    "string_type": "should be text; put it in quotes",
    "model_type": "should have settings below it",
    "dict_type": "should have settings below it",
}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML's safe loader, but for keys that come twice, of which it would take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name} is given twice", problem_mark=key.start_mark)
            seen.add(name)
        return dict(super().construct_mapping(node, deep))


def read_settings_file(path: Path) -> dict[str, Any]:
    """The sections of a file; those with nothing in them are left out.

    Raises:
        InvalidInputError: it is no YAML, or not sections with settings below them.
    """
    try:
        with path.open(encoding="utf-8") as file:  # not its text: YAML's complaints would repeat lines of it
            read = yaml.load(file, _Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(f"{path} is no YAML that can be read: {error}") from error
    sections = {} if read is None else read
    if not isinstance(sections, dict):
        raise InvalidInputError(
            f"{path} is no mapping of sections; write it as configs/default.yaml: server: {{port: 80}}"
        )
    for name, section in sections.items():
        if section is not None and not isinstance(section, dict):
            raise InvalidInputError(
                f"{path}: {name} should have settings below it, as in configs/default.yaml (got {section!r})"
            )
    return {name: section for name, section in sections.items() if section is not None}


def describe_faults(error: ValidationError, model: type[BaseModel], prefix: str, delimiter: str) -> str:
    """What is wrong with which setting.

    Args:
        error: of making ``model``, whose fields are sections.
        model: where similar names are looked for.
        prefix: of environment variables; where one of them is to blame it is named.
        delimiter: between section and setting in their names.
    """
    return "; ".join(
        f"{_name(fault['loc'], prefix, delimiter)}{_fault(fault, model)}" for fault in error.errors(include_url=False)
    )


def _name(place: tuple[int | str, ...], prefix: str, delimiter: str) -> str:
    variable = prefix + delimiter.join(str(part) for part in place).upper()
    given = next((name for name in os.environ if name.upper() == variable), None)
    return f"{given or '.'.join(str(part) for part in place)}: " if place else ""


def _fault(fault: Mapping[str, Any], model: type[BaseModel]) -> str:
    place, value = fault["loc"], fault["input"]
    if fault["type"] == "extra_forbidden":
        return f"no such setting{_similar(place, model)}"
    said = _SAID_BETTER.get(fault["type"], str(fault["msg"]).removeprefix("Value error, "))
    tells = isinstance(value, dict | list) or not place or any(part in _SECRETS for part in place)
    return said if tells else f"{said} (got {value!r})"


def _similar(place: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """The setting that was probably meant, or those there are."""
    *sections, name = place
    fields = model.model_fields
    for section in sections:
        below = fields[str(section)].annotation if section in fields else None
        if not (isinstance(below, type) and issubclass(below, BaseModel)):
            return ""
        fields = below.model_fields
    meant = get_close_matches(str(name), fields, 1)
    return f"; did you mean {'.'.join([*map(str, sections), *meant])}?" if meant else f"; there are {', '.join(fields)}"
