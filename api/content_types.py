"""Which content type a body is of: JSON that is not called so is refused in one place."""

from http import HTTPStatus

from fastapi import Request
from fastapi.routing import APIRoute

from api.errors import ApiError

JSON = "application/json"


def content_type_of(request: Request) -> str:
    """Return the content type without its parameters, in lower case; "" where there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def unsupported_media_type(sentence: str) -> ApiError:
    """Make the refusal of a body of another type; the sentence says which to send."""
    return ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", sentence)


async def refuse_what_is_not_json(request: Request) -> None:
    """Check the content type of a body, for routes that FastAPI reads the JSON of.

    Raises:
        ApiError: 415 unsupported_media_type.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or route.body_field is None:
        return
    content_type = content_type_of(request)
    kind, _, form = content_type.partition("/")
    is_json = kind == "application" and (form == "json" or form.endswith("+json"))
    if is_json or not await request.body():
        return
    sent = f"not {content_type}" if content_type else "which the request does not state"
    raise unsupported_media_type(f"Send JSON with the header Content-Type: {JSON}, {sent}.")
