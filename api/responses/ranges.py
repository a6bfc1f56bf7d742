"""Range requests (RFC 9110, section 14): a player asks for the part of a file that it needs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.errors import ApiError

CHUNK_BYTES: Final = 256 * 1024


class Source(Protocol):
    """Something with bytes that can be read from anywhere."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def etag(self) -> str:
        """Quoted and strong: another content has another etag."""

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Read the bytes [start, end) piece by piece, then close."""

    def close(self) -> None:
        """Close what is open, when nothing is to be read."""


@dataclass(frozen=True)
class Span:
    """The bytes [start, end) of a file."""

    start: int
    end: int


def span_of_range(header: str, size_bytes: int) -> Span | None:
    """Read a Range header of one span; None when it should be ignored and all be sent.

    Ignored, as the RFC allows, are other units, broken syntax and several spans at once.

        span_of_range("bytes=2-5", 10)  ->  Span(2, 6)

    Raises:
        ApiError: 416 range_not_satisfiable, the span begins behind the end.
    """
    unit, _, spans = header.partition("=")
    if unit.strip().lower() != "bytes" or "," in spans:
        return None
    first, dash, last = (part.strip() for part in spans.partition("-"))
    if not dash or not (first or last) or not _is_number(first) or not _is_number(last):
        return None
    if first:
        start = int(first)
        end = min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < start:
            return None
    else:  # the last so many bytes
        start, end = max(size_bytes - int(last), 0), size_bytes
    if start >= size_bytes or start >= end:
        raise ApiError(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "range_not_satisfiable",
            f"The file has {size_bytes} bytes.",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return Span(start, end)


def _is_number(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and len(text) < 20)  # noqa: PLR2004


def respond_with(
    source: Source, request: Request, *, media_type: str, headers: Mapping[str, str]
) -> Response:
    """Answer 200 with all, 206 with the wanted part, 304, 412 or 416. Closes the source."""
    request_headers = request.headers
    sent = {
        **headers,
        "ETag": source.etag,
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    if not is_expected(source.etag, request_headers.get("if-match")):
        source.close()
        raise ApiError(
            HTTPStatus.PRECONDITION_FAILED,
            "precondition_failed",
            "The file is not the one that If-Match names.",
        )
    if is_known(source.etag, request_headers.get("if-none-match")):
        source.close()
        return Response(status_code=int(HTTPStatus.NOT_MODIFIED), headers=sent)
    span: Span | None = None
    wanted = request_headers.get("range")
    only_if = request_headers.get("if-range")
    if wanted is not None and only_if in {None, source.etag}:
        try:
            span = span_of_range(wanted, source.size_bytes)
        except ApiError:
            source.close()
            raise
    status = int(HTTPStatus.OK if span is None else HTTPStatus.PARTIAL_CONTENT)
    if span is None:
        span = Span(0, source.size_bytes)
    else:
        sent["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{source.size_bytes}"
    sent["Content-Length"] = str(span.end - span.start)
    if request.method == "HEAD":
        source.close()
        return Response(status_code=status, headers=sent, media_type=media_type)
    return StreamingResponse(
        source.read(span.start, span.end), status, headers=sent, media_type=media_type
    )


def is_expected(etag: str, if_match: str | None) -> bool:
    """Whether this etag is among those that the client insists on, if it insists."""
    if if_match is None:
        return True
    # Not W/"...": weak tags never match here.
    return if_match.strip() == "*" or etag in {each.strip() for each in if_match.split(",")}


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Whether the client already has what this etag stands for."""
    if if_none_match is None:
        return False
    known = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return etag in known or "*" in known
