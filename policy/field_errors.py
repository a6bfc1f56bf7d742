"""What is wrong with the fields of a request, in sentences of our own and not of the validator."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "none_required": "must be null",
    **dict.fromkeys(
        ("string_type", "string_sub_type", "string_unicode", "bytes_type"), "must be text"
    ),
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "must be a whole number"
    ),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    "finite_number": "must be a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("list_type", "set_type", "tuple_type", "iterable_type"), "must be a list"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type"),
        "must be a JSON object",
    ),
    **dict.fromkeys(("uuid_type", "uuid_parsing", "uuid_version"), "must be an id (a UUID)"),
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "timezone_aware": "must name its time zone, as in 2026-01-05T09:00:00Z",
    "recursion_loop": "is nested too deeply",
}
_TIMES: Final = ("datetime_", "date_", "time_")
_TIME_SENTENCE: Final = "must be a time such as 2026-01-05T09:00:00Z"
_NO_NUL: Final = "^[^\0]*$"
# What names no field but one of the types that a field may have.
_TYPE_NAME: Final = re.compile(r"str|int|float|bool|none|(?:function|constrained)-.*|\w+\[.*")


@dataclass(frozen=True)
class FieldError:
    """A field and what is wrong with it.

    Attributes:
        field: where it stands, such as `filters.tags.0`; "" for all of what was sent.
        message: goes on after its name: "must be text".
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def field_errors(found: Iterable[Mapping[str, Any]]) -> list[FieldError]:
    """Describe what pydantic found, as its errors() gives it: each field once, in their order."""
    messages: dict[str, list[str]] = {}
    for error in found:
        where = [str(part) for part in error["loc"]]
        is_of_type = len(where) > 1 and error["type"] != "extra_forbidden"
        if is_of_type and _TYPE_NAME.fullmatch(where[-1]):
            where.pop()  # a field of two types has an error for each
        said = messages.setdefault(".".join(where), [])
        message = _sentence_of(error)
        if message not in said:
            said.append(message)
    return [FieldError(field, " or ".join(said)) for field, said in messages.items()]


def _sentence_of(error: Mapping[str, Any]) -> str:
    kind: str = error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind in {"string_too_short", "string_too_long"}:
        return _bounds(context, "character")
    if kind in {"too_short", "too_long"}:
        return _bounds(context, "item")
    if kind == "string_pattern_mismatch" and context["pattern"] == _NO_NUL:
        return "must not hold NUL characters"
    if kind in _SENTENCES:
        return _SENTENCES[kind].format_map(context)
    if kind.startswith(_TIMES):
        return _TIME_SENTENCE
    # Our own checks say what is wrong; of others the last resort is better than nothing.
    return re.sub("^(Value error|Assertion failed), ", "", str(error["msg"]))


def _bounds(context: Mapping[str, Any], noun: str) -> str:
    for name, words in (("min_length", "at least"), ("max_length", "at most")):
        if name in context:
            plural = "" if context[name] == 1 else "s"
            return f"must have {words} {context[name]} {noun}{plural}"
    return f"has too many {noun}s"
