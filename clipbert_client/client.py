"""The service over HTTP: one request a method, problems as exceptions."""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from clipbert_client.errors import (
    ApiProblem,
    JobFailed,
    JobUnfinished,
    ServiceUnreachable,
    UnexpectedAnswer,
)
from clipbert_client.file_to_send import FileToSend
from clipbert_client.http_connection import Answer, Connection, NoAnswer
from clipbert_client.multipart_form import MultipartForm
from clipbert_client.text import as_text, sendable_name
from clipbert_client.version import client_version

Json = dict[str, Any]
Params = Mapping[str, str | float | None]

JSON_BODY = {"Content-Type": "application/json"}
VERSION_HEADER = "x-clipbert-version"

PAGE_SIZE = 500  # the most that the API returns at once
LONGEST_WAIT_SECONDS = 30  # one ?wait= of the API; longer waits are several
# As long as the API was asked to wait, and the time that a big batch takes to insert.
READ_SECONDS = LONGEST_WAIT_SECONDS + 90.0
TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "quarantined"})


class ApiClient:
    """Talks to the API with its key; use as a context manager.

    Args:
        api_url: such as http://127.0.0.1:8000.
        api_key: sent with every request.
        field_names: what the caller calls the fields of a request, such as `--choice` for
            `body.choices`; a problem of such a field is told under that name.
        on_other_version: called once, with our version and the service's, when they differ.

    Raises:
        UnusableAddress: the address or the key cannot be used.
    """

    def __init__(
        self,
        api_url: str,
        api_key: str,
        *,
        field_names: Mapping[str, str] | None = None,
        on_other_version: Callable[[str, str], None] | None = None,
    ) -> None:
        self.api_url = api_url
        self._connection = Connection(api_url, {"Authorization": f"Bearer {api_key}"})
        self._field_names = field_names or {}
        self._on_other_version = on_other_version
        self._has_compared_versions = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str, **params: str | float | None) -> Json:
        """GET a resource; parameters that are None are left out."""
        return self._json("GET", path, params)

    def post(self, path: str, body: Json | None = None, **params: str | float | None) -> Json:
        """POST a JSON body."""
        # ASCII carries what is not text in an argument too, and the API says so.
        content = None if body is None else json.dumps(body).encode("ascii")
        return self._json("POST", path, params, body=content, headers=JSON_BODY)

    def patch(self, path: str, body: Json) -> Json:
        """PATCH a resource with the fields that change."""
        content = json.dumps(body).encode("ascii")
        return self._json("PATCH", path, body=content, headers=JSON_BODY)

    def delete(self, path: str) -> None:
        """DELETE a resource."""
        with self._answered("DELETE", path):
            pass

    def send_lines(self, path: str, pieces: Iterable[bytes], **params: str | float | None) -> Json:
        """POST lines of JSON, streamed piece by piece; a piece may end within a line."""
        # A source that cannot be read is found out before the service hears of it.
        pieces = iter(pieces)
        first = next(pieces, b"")
        return self._json(
            "POST",
            path,
            params,
            body=chain([first], pieces),
            headers={"Content-Type": "application/x-ndjson"},
            read_seconds=None,  # millions of lines are stored before they are answered
        )

    def lines(self, path: str, **params: str | float | None) -> Iterator[str]:
        """GET lines of JSON as they come, without their ends."""
        with self._answered("GET", path, params, read_seconds=None) as answer:
            # Not by str.splitlines(): it also parts lines at letters that JSON leaves as they are.
            rest = b""
            for piece in answer.pieces():
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    yield line.decode()
            if rest:
                yield rest.decode()

    def upload(self, path: str, file: Path, fields: Sequence[tuple[str, str]]) -> Json:
        """POST a file as multipart form field `file`, streamed from disk.

        Raises:
            OSError: it cannot be read, or is not a regular file.
        """
        with FileToSend(file) as content:
            form = MultipartForm(fields, filename=sendable_name(file.name), content=content)
            return self._json(
                "POST",
                path,
                body=form.pieces(),
                size_bytes=form.size_bytes,
                headers={"Content-Type": form.content_type},
            )

    def items(self, path: str, *, limit: int | None, **params: str | None) -> Iterator[Json]:
        """Yield up to limit items of a list that has pages (None: all), page by page."""
        token: str | None = None
        while limit is None or limit > 0:
            size = PAGE_SIZE if limit is None else min(limit, PAGE_SIZE)
            page = self.get(path, page_size=size, page_token=token, **params)
            yield from page["items"]
            if limit is not None:
                limit -= len(page["items"])
            token = page.get("next_page_token")
            if not token:
                return

    def all_items(self, path: str, **params: str | float | None) -> list[Json]:
        """GET the items of a list that has but one page, however long."""
        items: list[Json] = self.get(path, **params)["items"]
        return items

    def download(self, path: str, target: Path, *, most_bytes: int) -> bool:
        """GET a file into target; False, with nothing kept, when it is larger than most_bytes."""
        with self._answered("GET", path) as answer:
            if int(answer.headers.get("content-length", 0)) > most_bytes:
                return False
            with target.open("wb") as writer:
                for piece in answer.pieces():
                    writer.write(piece)
        return True

    def ask(self, path: str, body: Json, *, timeout_seconds: float) -> Json:
        """POST something that runs as a job (a search, a question) and wait for its end.

        Raises:
            JobFailed: it ended without a result.
            JobUnfinished: it did not end in time.
        """
        deadline = time.monotonic() + timeout_seconds
        resource = self.post(path, body, wait=min(timeout_seconds, LONGEST_WAIT_SECONDS))
        while resource["state"] not in TERMINAL_STATES:
            left = deadline - time.monotonic()
            if left <= 0:
                raise JobUnfinished(
                    f"no answer within {timeout_seconds:.0f} s (state: {resource['state']})",
                    f"see `clipbert jobs show {resource['id']}`; `clipbert doctor` finds the cause",
                )
            wait = min(left, LONGEST_WAIT_SECONDS)
            resource = self.get(f"{path}/{resource['id']}", wait=wait)
        if resource["state"] != "succeeded":
            problem = resource.get("error") or {}
            code, message = problem.get("code"), problem.get("message")
            raise JobFailed(f"{message or 'the job ' + resource['state']} ({code or 'no code'})")
        return resource

    def _json(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Json:
        with self._answered(method, path, params, **options) as answer:
            content = answer.read()
        try:
            value = json.loads(content)
        except ValueError:
            raise UnexpectedAnswer(
                f"{self.api_url} answered {method} {path} with something that is not JSON",
                "is this the address of a ClipBERT API?",
            ) from None
        if not isinstance(value, dict):
            raise UnexpectedAnswer(f"{self.api_url} answered {method} {path} without a JSON object")
        return value

    @contextmanager
    def _answered(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        *,
        body: bytes | Iterable[bytes] | None = None,
        size_bytes: int | None = None,
        headers: Mapping[str, str] | None = None,
        read_seconds: float | None = READ_SECONDS,
    ) -> Iterator[Answer]:
        """Send a request and yield its answer to be read; raise what the API refuses."""
        try:
            answer = self._connection.request(
                method,
                path + _query(params or {}),
                body=body,
                size_bytes=size_bytes,
                headers=headers,
                read_seconds=read_seconds,
            )
            try:
                self._compare_versions(answer.headers.get(VERSION_HEADER))
                if answer.is_error:
                    raise _problem_of(answer, self._field_names)
                yield answer
            finally:
                answer.close()
        except NoAnswer as error:
            raise self._unreachable(error) from error

    def _compare_versions(self, of_service: str | None) -> None:
        if self._has_compared_versions or of_service is None:
            return
        self._has_compared_versions = True
        ours = client_version()
        if ours != of_service and self._on_other_version is not None:
            self._on_other_version(ours, of_service)

    def _unreachable(self, error: Exception) -> ServiceUnreachable:
        return ServiceUnreachable(
            f"no answer from {self.api_url}: {str(error) or type(error).__name__}",
            "is `clipbert up` running? `clipbert doctor` looks closer",
        )


def _query(params: Params) -> str:
    given = {
        name: as_text(value) if isinstance(value, str) else value
        for name, value in params.items()
        if value is not None
    }
    return f"?{urlencode(given)}" if given else ""


def _problem_of(answer: Answer, field_names: Mapping[str, str]) -> ApiProblem:
    try:
        problem = json.loads(answer.read())
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    listed = problem.get("errors")
    errors = tuple(listed) if isinstance(listed, list) else ()
    detail = str(problem.get("detail") or problem.get("title") or answer.reason)
    return ApiProblem(
        status=answer.status,
        code=str(problem.get("code") or ""),
        detail=_in_callers_words(errors, field_names) or detail,
        errors=errors,
        facts=problem,
    )


def _in_callers_words(errors: tuple[Json, ...], field_names: Mapping[str, str]) -> str | None:
    """Return what is wrong with the first field under the caller's name of it; None without one."""
    first = errors[0] if errors else {}
    field = re.sub(r"\.\d+$", "", str(first.get("field", "")))  # body.choices.1: one of several
    if field not in field_names:
        return None
    return f"{field_names[field]}: {first.get('message', '')}"
