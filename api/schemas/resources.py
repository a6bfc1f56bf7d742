"""What all resources share: strict requests, pages, problems."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

T = TypeVar("T")


class RequestBody(BaseModel):
    """A request; a field that is not known is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Resource(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class Page(Resource, Generic[T]):
    """Some of a list; ask again with `page_token` until `next_page_token` is null.

    A page may have fewer items than were asked for, even none, and not be the last.
    """

    items: list[T]
    next_page_token: str | None = Field(description="null on the last page")


class Failure(Resource):
    """Why a job, an item or a video failed."""

    code: str = Field(description="stable, for programs", examples=["unsupported_media"])
    message: str = Field(description="a sentence, for people")


class Problem(BaseModel):
    """An error answer, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="stable, for programs")
    errors: list[dict[str, Any]] | None = Field(
        default=None, description="what is wrong where: field or index, code, message"
    )


def never_null(*names: str, example: JsonDict) -> Callable[[JsonDict], None]:
    """Describe fields that may be left out of a change, but not be null.

    Args:
        names: of the fields; none: all.
        example: of the whole body.

    Returns:
        A `json_schema_extra`: by itself the schema would say that null is taken.
    """

    def describe(schema: JsonDict) -> None:
        schema["examples"] = [example]
        properties = cast("dict[str, JsonDict]", schema["properties"])
        for name in names or properties:
            field = properties[name]
            field.pop("default", None)
            kinds = cast("list[JsonDict]", field.pop("anyOf"))
            (kind,) = [each for each in kinds if each != {"type": "null"}]
            field.update(kind)

    return describe
