"""Sentences about fields, which are ours and not the validator's."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from policy.field_errors import field_errors
from policy.texts import Name


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    share: float = Field(default=0, gt=0, lt=1, allow_inf_nan=False)


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name = "n"
    count: int = Field(default=1, ge=1, le=9)
    is_on: bool = False
    id: UUID | None = None
    at: AwareDatetime | None = None
    day: datetime | None = None
    mode: Literal["a", "b"] = "a"
    names: list[Name] = Field(default=[], max_length=2)
    pair: list[int] = Field(default=[1, 2], min_length=2)
    part: Inner = Inner()
    plain: Annotated[str, Field(pattern="^[^\0]*$")] = ""
    either: Name | int | None = None
    anything: dict[str, Any] = {}


def said_of(value):
    with pytest.raises(ValidationError) as raised:
        Asked.model_validate(value)
    return [str(each) for each in field_errors(raised.value.errors())]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"name": ""}, "name: must have at least 1 character"),
        ({"name": "x" * 201}, "name: must have at most 200 characters"),
        ({"name": 7}, "name: must be text"),
        ({"name": "\u200b"}, "name: must have a visible character"),
        ({"count": "many"}, "count: must be a whole number"),
        ({"count": 1.5}, "count: must be a whole number"),
        ({"count": 0}, "count: must be 1 or more"),
        ({"count": 10}, "count: must be 9 or less"),
        ({"is_on": "perhaps"}, "is_on: must be true or false"),
        ({"id": "7"}, "id: must be an id (a UUID)"),
        ({"at": "noon"}, "at: must be a time such as 2026-01-05T09:00:00Z"),
        ({"at": "2026-01-05T09:00:00"}, "at: must name its time zone, as in 2026-01-05T09:00:00Z"),
        ({"day": []}, "day: must be a time such as 2026-01-05T09:00:00Z"),
        ({"mode": "c"}, "mode: must be 'a' or 'b'"),
        ({"names": "x"}, "names: must be a list"),
        ({"names": ["a", 1]}, "names.1: must be text"),
        ({"names": ["a", "b", "c"]}, "names: must have at most 2 items"),
        ({"pair": [1]}, "pair: must have at least 2 items"),
        ({"part": 5}, "part: must be a JSON object"),
        ({"part": {"share": float("nan")}}, "part.share: must be a finite number"),
        ({"part": {"share": 1}}, "part.share: must be less than 1.0"),
        ({"part": {"share": "x"}}, "part.share: must be a number"),
        ({"part": {"int": 1}}, "part.int: there is no such field"),
        ({"plain": "a\0"}, "plain: must not hold NUL characters"),
        ({"either": []}, "either: must be text or must be a whole number"),
        ({"anything": []}, "anything: must be a JSON object"),
        (7, "must be a JSON object"),
    ],
)
def test_what_is_wrong_with_a_field_is_said_after_its_name(value, said):
    assert said_of(value) == [said]


def test_each_field_is_named_once_in_the_order_of_what_was_found():
    found = said_of({"count": "x", "either": [], "mode": 0})

    assert [each.split(":")[0] for each in found] == ["count", "mode", "either"]


def test_no_sentence_of_the_validator_is_left_of_kinds_that_requests_can_have():
    sentences = [each for name in Asked.model_fields for each in said_of({name: object()})]

    assert not re.search("Input|String|Value error|valid ", " ".join(sentences))
