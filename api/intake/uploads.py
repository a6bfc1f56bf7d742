"""A multipart upload, taken apart as it arrives: to disk and into a hash, never into memory."""

import hashlib
import os
import tempfile
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from io import RawIOBase
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from api.errors import ApiError
from api.intake.dispositions import read_disposition
from api.schemas.videos import NewUpload
from store.blobs import STAGED

_CHUNK_BYTES: Final = 2**20  # one hop to a thread, one write and one hash update for each
_MAX_FIELDS_BYTES: Final = 64 * 1024
_MAX_PARTS: Final = 64
_MAX_HEADER_BYTES: Final = 16 * 1024
_MAX_SHOWN_LENGTH: Final = 80
FILE_PART: Final = "file"
FIELD_PARTS: Final = frozenset(NewUpload.model_fields)
_MAX_FILENAME_LENGTH: Final = 255


@dataclass(frozen=True)
class Upload:
    """A file that arrived whole.

    Attributes:
        path: where it lies until the caller moves it; removed otherwise.
        size_bytes: its length.
        sha256: of its content, in hex.
        filename: what the client calls it; text only, never a path here.
        fields: the other parts of the form, as (name, text).
    """

    path: Path
    size_bytes: int
    sha256: str
    filename: str
    fields: tuple[tuple[str, str], ...]


@asynccontextmanager
async def receive_upload(
    request: Request, *, spool_folder: Path, max_bytes: int, threads: anyio.CapacityLimiter
) -> AsyncIterator[Upload]:
    """Receive the form of a request, whose part `file` is the upload.

    Memory stays at about two chunks, whatever the size. The file is removed on leaving, unless
    the caller has moved it away.

    Args:
        request: a multipart/form-data request whose body was not read yet.
        spool_folder: where to put the file for now; must exist.
        max_bytes: largest file taken.
        threads: that write to the disk: a slow one keeps no other request waiting.

    Raises:
        ApiError: 400 malformed_multipart, 413 payload_too_large, 422 invalid_request.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes + _MAX_FIELDS_BYTES:
        raise _too_large(max_bytes)
    _, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise _malformed("its content type names no boundary")
    descriptor, name = await anyio.to_thread.run_sync(
        partial(tempfile.mkstemp, dir=spool_folder, prefix=STAGED), limiter=threads
    )
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            form = _Form(file=file, boundary=boundary, max_bytes=max_bytes)
            await _feed(request, form, threads)
            upload = await anyio.to_thread.run_sync(form.finish, path, limiter=threads)
        yield upload
    finally:
        path.unlink(missing_ok=True)


async def _feed(request: Request, form: "_Form", threads: anyio.CapacityLimiter) -> None:
    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= _CHUNK_BYTES:
            await anyio.to_thread.run_sync(form.write, bytes(waiting), limiter=threads)
            waiting.clear()
    await anyio.to_thread.run_sync(form.write, bytes(waiting), limiter=threads)


class _Part:
    """One part of the form while it arrives."""

    def __init__(self) -> None:
        self.header_name = bytearray()
        self.header_value = bytearray()
        self.disposition = b""
        self.name = ""
        self.is_file = False
        self.text = bytearray()


class _Form:
    """The parser's callbacks, and what they found so far."""

    def __init__(self, *, file: RawIOBase, boundary: bytes, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._filename: str | None = None
        self._is_named = False  # or its name is empty
        self._names: list[str] = []  # of all parts so far
        self._fields: list[tuple[str, str]] = []
        self._fields_bytes = 0
        self._num_parts = 0
        self._part = _Part()
        self._is_complete = False
        self._first_line = b"\r\n--" + boundary
        # What comes before the first boundary, with the line break that may be left out there.
        self._preamble: bytearray | None = bytearray(b"\r\n")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _malformed(str(error)) from error

    def write(self, data: bytes) -> None:
        if self._preamble is not None:
            data = self._skip_preamble(data)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(str(error)) from error

    def _skip_preamble(self, data: bytes) -> bytes:
        # RFC 2046 allows text before the first part, and says to ignore it; the parser refuses it.
        preamble = self._preamble or bytearray()
        preamble += data
        start = preamble.find(self._first_line)
        if start >= 0:
            self._preamble = None
            return bytes(preamble[start + 2 :])
        if len(preamble) > _MAX_FIELDS_BYTES:
            raise _malformed(f"its first {_MAX_FIELDS_BYTES} bytes have no boundary")
        return b""

    def finish(self, path: Path) -> Upload:
        if not self._is_complete:
            raise _malformed("it ends before its closing boundary")
        if self._filename is None:
            came = ", ".join(f"`{name}`" for name in self._names) or "no part at all"
            message = f"the form has no part `{FILE_PART}` with a file name; it has {came}"
            raise _invalid(FILE_PART, message)
        if not self._is_named and not self._size_bytes:
            # What a browser sends when nobody chose a file.
            raise _invalid(FILE_PART, "no file was chosen: its name and content are empty")
        os.fsync(self._file.fileno())  # the row that names the content must not outlive it
        return Upload(
            path=path,
            size_bytes=self._size_bytes,
            sha256=self._hash.hexdigest(),
            filename=self._filename,
            fields=tuple(self._fields),
        )

    def _on_part_begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > _MAX_PARTS:
            raise _invalid("body", f"the form has more than {_MAX_PARTS} parts")
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]
        self._check_header()

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._part.header_name) + len(self._part.header_value) > _MAX_HEADER_BYTES:
            raise _malformed(f"a part has a header of more than {_MAX_HEADER_BYTES} bytes")

    def _on_header_end(self) -> None:
        if self._part.header_name.lower() == b"content-disposition":
            self._part.disposition = bytes(self._part.header_value)
        self._part.header_name.clear()
        self._part.header_value.clear()

    def _on_headers_finished(self) -> None:
        disposition = read_disposition(self._part.disposition)
        if disposition.name is None:
            raise _malformed("a part has no name (Content-Disposition: form-data; name=...)")
        name = self._part.name = _shown(disposition.name)
        self._names.append(name)
        if name != FILE_PART:
            if name in FIELD_PARTS:
                return  # some clients give a text field a file name too
            if disposition.filename is not None:
                raise _invalid(
                    name, f"the file must be in the part `{FILE_PART}`; it came in `{name}`"
                )
            known = ", ".join(f"`{each}`" for each in (FILE_PART, *sorted(FIELD_PARTS)))
            raise _invalid(name, f"a form has no part `{name}`; it may have {known}")
        if disposition.filename is None:
            raise _invalid(FILE_PART, "must be a file with a file name, not a text field")
        if self._filename is not None:
            raise _invalid(FILE_PART, "the form has more than one file; send one request for each")
        self._part.is_file = True
        self._is_named = bool(disposition.filename.strip())
        self._filename = clean_filename(disposition.filename)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._part.is_file:
            self._size_bytes += len(piece)
            if self._size_bytes > self._max_bytes:
                raise _too_large(self._max_bytes)
            self._hash.update(piece)
            self._file.write(piece)
            return
        self._fields_bytes += len(piece)
        if self._fields_bytes > _MAX_FIELDS_BYTES:
            raise _invalid("body", f"the text fields are larger than {_MAX_FIELDS_BYTES} bytes")
        self._part.text += piece

    def _on_part_end(self) -> None:
        if not self._part.is_file:
            try:
                text = self._part.text.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _invalid(self._part.name, "must be UTF-8") from error
            self._fields.append((self._part.name, text))

    def _on_end(self) -> None:
        self._is_complete = True


def clean_filename(filename: str) -> str:
    """Keep of a client's file name what is safe to show: its last part, no control characters."""
    last = filename.replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(
        character for character in last if unicodedata.category(character)[0] != "C"
    ).strip()
    return shown[:_MAX_FILENAME_LENGTH] or "upload"


def _shown(name: str) -> str:
    """Keep of a part's name what can stand in a sentence."""
    return "".join(each for each in name if each.isprintable())[:_MAX_SHOWN_LENGTH]


def _malformed(reason: str) -> ApiError:
    return ApiError(
        HTTPStatus.BAD_REQUEST,
        "malformed_multipart",
        f"The body is not a valid multipart form: {reason}.",
    )


def _invalid(name: str, message: str) -> ApiError:
    return ApiError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_request",
        f"{name}: {message}",
        errors=[{"field": f"body.{name}", "message": message}],
    )


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "payload_too_large",
        f"A video may have {max_bytes} bytes at most.",
    )
