"""Bodies of many items, read item by item: 100,000 of them never lie in memory together.

The body goes to disk first, so that a slow client holds no transaction open. Then it is read as
NDJSON, one item a line, or as JSON, `{"name": ..., "items": [...]}`, which is the other form of
POST /v1/batches.
"""

import codecs
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Final, NoReturn

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.errors import ApiError

_MEMORY_BYTES: Final = 2**20  # a body up to this size stays off the disk
_READ_BYTES: Final = 256 * 1024
_MAX_ITEM_LENGTH: Final = 64 * 1024  # characters of one item's JSON
_MARGIN: Final = 4


@dataclass(frozen=True)
class RawItem:
    """An item as it came.

    Attributes:
        index: its place in the batch, from 0.
        value: what its JSON says; None when there is an error.
        error: why its line is not JSON; NDJSON only, since a broken document has no items after it.
        line: number of its line, from 1, counting empty ones too; NDJSON only.
    """

    index: int
    value: object
    error: str | None = None
    line: int | None = None


@asynccontextmanager
async def spool_body(
    request: Request, *, spool_folder: Path, max_bytes: int
) -> AsyncIterator[IO[bytes]]:
    """Receive a body to a temporary file, removed on leaving.

    Raises:
        ApiError: 413 payload_too_large.
    """
    with tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, dir=str(spool_folder)) as file:
        size_bytes = 0
        waiting = bytearray()
        async for chunk in request.stream():
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise ApiError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    "payload_too_large",
                    f"The body may have {max_bytes} bytes at most.",
                )
            waiting += chunk
            if len(waiting) >= _MEMORY_BYTES:
                await run_in_threadpool(file.write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(file.write, bytes(waiting))
        file.seek(0)
        yield file


def read_lines(file: IO[bytes]) -> Iterator[RawItem]:
    """Read NDJSON. Empty lines are skipped, and so is a byte order mark."""
    index = number = 0
    while line := file.readline(_MAX_ITEM_LENGTH + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        error: str | None = None
        value: object = None
        if len(line) > _MAX_ITEM_LENGTH:
            error = f"the line is longer than {_MAX_ITEM_LENGTH} bytes"
            while line and not line.endswith(b"\n"):
                line = file.readline(_MAX_ITEM_LENGTH)
        elif not line.strip():
            continue
        else:
            try:
                value = _DECODER.decode(line.decode("utf-8").strip(" \t\r\n"))
            except (ValueError, RecursionError) as fault:
                error = f"the line is not valid JSON: {fault}"
        yield RawItem(index, value, error, line=number)
        index += 1


class DocumentReader:
    """Reads the JSON form, holding one item at a time.

    Attributes:
        name: the value of "name"; complete only after all items were read, as fields may come in
            any order.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.name: object = None
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._position = 0  # in _text
        self._passed = 0  # characters dropped before _text
        self._is_at_end = False

    def items(self) -> Iterator[RawItem]:
        """Read the document.

        Raises:
            ApiError: 400 malformed_json; 422 invalid_request for a field that is not known,
                comes twice, or when `items` is missing or no list.
        """
        self._expect("{", "a JSON object")
        seen: set[str] = set()
        if self._peek() == "}":
            self._position += 1
        else:
            while True:
                key = self._value()
                if not isinstance(key, str):
                    self._fail("a field's name must be a string")
                self._expect(":", "':'")
                if key not in {"name", "items"} or key in seen:
                    reason = "twice" if key in seen else "not a field of a batch"
                    raise _invalid(key[:100], reason)
                seen.add(key)
                if key == "items":
                    yield from self._elements()
                else:
                    self.name = self._value()
                if self._expect(",}", "',' or '}'") == "}":
                    break
        if self._peek():
            self._fail("something follows the object")
        if "items" not in seen:
            raise _invalid("items", "is missing")

    def _elements(self) -> Iterator[RawItem]:
        first = self._peek()
        if not first:
            self._fail("it ends too early")
        if first != "[":
            raise _invalid("items", "must be a list")
        self._position += 1
        if self._peek() == "]":
            self._position += 1
            return
        index = 0
        while True:
            yield RawItem(index, self._value())
            index += 1
            if self._expect(",]", "',' or ']'") == "]":
                return

    def _value(self) -> object:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except (ValueError, RecursionError) as fault:
                # Cut short, or wrong: only more text can tell, up to what one item may have.
                if self._is_at_end or len(self._text) - self._position > _MAX_ITEM_LENGTH:
                    self._fail(getattr(fault, "msg", str(fault)))
            else:
                # A number near the end may go on: 12|34, 1.|5, 1e+|5.
                is_whole = not isinstance(value, int | float) or len(self._text) - end >= _MARGIN
                if end - self._position > _MAX_ITEM_LENGTH:
                    # Also where the buffer happens to hold all of it.
                    self._fail(f"a value is longer than {_MAX_ITEM_LENGTH} characters")
                if is_whole or self._is_at_end:
                    self._position = end
                    return value
            self._read_more()

    def _expect(self, characters: str, described: str) -> str:
        found = self._peek()
        if not found or found not in characters:
            self._fail(f"expected {described}")
        self._position += 1
        return found

    def _peek(self) -> str:
        """Skip white space and return the next character, "" at the end."""
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if character not in " \t\r\n":
                    return character
                self._position += 1
            if self._is_at_end:
                return ""
            self._read_more()

    def _read_more(self) -> None:
        data = self._file.read(_READ_BYTES)
        self._is_at_end = not data
        try:
            text = self._decode.decode(data, final=self._is_at_end)
        except UnicodeDecodeError:
            self._fail("the body is not UTF-8")
        self._passed += self._position
        self._text = self._text[self._position :] + text
        self._position = 0

    def _fail(self, reason: str) -> NoReturn:
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            "malformed_json",
            f"The body is not valid JSON: {reason}, at character {self._passed + self._position}.",
        )


def _invalid(field: str, message: str) -> ApiError:
    return ApiError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_request",
        f"{field}: {message}",
        errors=[{"field": f"body.{field}", "message": message}],
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
