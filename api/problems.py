"""The codes of problems that routes answer with, as the OpenAPI document lists them."""

from http import HTTPStatus
from typing import Any, Final

_CODES: Final[dict[str, tuple[int, str]]] = {
    "malformed_json": (400, "the body is no JSON"),
    "malformed_multipart": (400, "the body is no multipart form"),
    "unauthorized": (401, "there is no valid API key"),
    "outside_media_roots": (403, "a path is not under any media root"),
    "batch_not_found": (404, "there is no such batch"),
    "job_not_found": (404, "there is no such job"),
    "media_gone": (404, "the file is not there any more"),
    "question_not_found": (404, "there is no such question"),
    "search_not_found": (404, "there is no such search"),
    "thumbnail_not_found": (404, "the video has no such thumbnail"),
    "video_not_found": (404, "there is no such video"),
    "illegal_state": (409, "the job is in a state that does not allow this"),
    "no_active_generation": (409, "no model indexes videos yet"),
    "no_qa_model": (409, "no model that answers open-ended questions is serving"),
    "video_not_ready": (409, "the video is not indexed yet, or never will be"),
    "precondition_failed": (412, "the file is not the one that If-Match names"),
    "payload_too_large": (413, "the body is too large"),
    "too_many_items": (413, "the batch has too many items"),
    "unsupported_media_type": (415, "the content type is not one of those listed"),
    "range_not_satisfiable": (416, "the range begins behind the end of the file"),
    "idempotency_conflict": (422, "the Idempotency-Key was used for another request"),
    "invalid_page_token": (422, "the page token is not one of ours"),
    "invalid_request": (422, "a field or parameter is missing or wrong, see errors"),
    "media_not_found": (422, "there is no file at this path"),
    "internal_error": (500, "a fault of the service, to be found in its log"),
    "not_ready": (503, "the service cannot take requests yet"),
    "store_unavailable": (503, "the database does not answer"),
}
_OF_EVERY_ROUTE: Final = ("unauthorized", "internal_error", "store_unavailable")

Responses = dict[int | str, dict[str, Any]]


def refusals(*codes: str) -> Responses:
    """Describe the problems of a route, for its `responses`; those of every route are added."""
    return open_refusals(*codes, *_OF_EVERY_ROUTE)


def open_refusals(*codes: str) -> Responses:
    """As `refusals`, for a route that needs no key and no database."""
    described: Responses = {}
    for code in sorted(codes, key=lambda code: _CODES[code]):
        status, sentence = _CODES[code]
        entry = described.setdefault(
            status, {"description": "", "content": {"application/problem+json": {}}}
        )
        entry["description"] += f"{'; ' if entry['description'] else ''}`{code}`: {sentence}"
        examples = entry["content"]["application/problem+json"].setdefault("examples", {})
        examples[code] = {
            "value": {
                "type": f"urn:clipbert:problem:{code}",
                "title": HTTPStatus(status).phrase,
                "status": status,
                "detail": f"{sentence[0].upper()}{sentence[1:]}.",
                "code": code,
            }
        }
    return described
