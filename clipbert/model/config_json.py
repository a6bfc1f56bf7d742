"""JSON -> frozen dataclasses, refusing what does not fit a field's type."""

import dataclasses
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, cast

from clipbert.errors import ConfigError

Wanted = TypeVar("Wanted")


def dataclass_from_json(wanted: type[Wanted], fields: Mapping[str, Any]) -> Wanted:
    """Make a dataclass from what json.loads gave; fields may hold dataclasses and tuples of them.

    Args:
        wanted: the dataclass.
        fields: by name; a field that is left out has its default.

    Raises:
        ConfigError: a field is unknown, missing or of another type: its place, the value and
            what would be right. What the dataclass itself refuses passes through.
    """
    return cast("Wanted", _read_dataclass(wanted, fields, ""))


def _read(wanted: Any, value: Any, name: str) -> Any:  # noqa: ANN401, PLR0911
    """Turn a JSON value into a field's type, refusing what does not fit it."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _read_dataclass(wanted, value, name)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_read(arguments[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin is UnionType or origin is typing.Union:
        if value is None and type(None) in arguments:
            return None
        return _read(next(a for a in arguments if a is not type(None)), value, name)
    if origin is Literal and isinstance(value, str):
        return value  # the dataclass says which are allowed
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _as_float(value, name)
    if isinstance(wanted, type) and type(value) is wanted:
        return value
    kind = {bool: "true or false", int: "an integer", float: "a number"}.get(
        wanted, "a list" if origin is tuple else "a text"
    )
    raise ConfigError(f"{name} is {value!r}: must be {kind}")


def _as_float(value: float, name: str) -> float:
    try:
        return float(value)
    except OverflowError as error:  # an integer of more than 308 digits
        raise ConfigError(f"{name} is too large a number") from error


def _read_dataclass(wanted: type, value: Any, name: str) -> Any:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}: must be an object")
    prefix = f"{name}." if name else ""
    types = typing.get_type_hints(wanted)
    unknown = sorted(set(value) - set(types))
    if unknown:
        raise ConfigError(
            f"{prefix}{unknown[0]} is unknown: the fields are {', '.join(sorted(types))}"
        )
    fields = {key: _read(types[key], item, prefix + key) for key, item in value.items()}
    try:
        return wanted(**fields)
    # TypeError: a field without a default is missing.
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from error
