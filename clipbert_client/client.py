"""The HTTP client of the commands: one request a method, problems as exceptions."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from cli.data_folder import read_client
from cli.errors import ApiProblem, CliError, ServiceUnreachable
from cli.file_to_send import FileToSend, sendable_name
from cli.show.console import as_text, print_error, say_that_there_is_more
from cli.version import client_version
from clipbert_client.http_connection import Answer, Connection, NoAnswer
from clipbert_client.multipart_form import MultipartForm

Json = dict[str, Any]
Params = Mapping[str, str | float | None]

JSON_BODY = {"Content-Type": "application/json"}
VERSION_HEADER = "x-clipbert-version"

PAGE_SIZE = 500  # the most that the API gives at once
LONGEST_WAIT_SECONDS = 30  # one ?wait= of the API; longer waits are several
# As long as the API was asked to wait, and the time that a big batch takes to insert.
READ_SECONDS = LONGEST_WAIT_SECONDS + 90.0
# What the fields of a request are called on the command line.
OPTION_OF_FIELD = {
    "body.choices": "--choice",
    "body.cron": "--cron",
    "body.dataset_id": "--dataset",
    "body.gate.confidence": "--confidence",
    "body.gate.max_drop": "--max-drop",
    "body.gate.min_gain": "--min-gain",
    "body.gate.min_holdout": "--min-holdout",
    "body.gate.regression_dataset_id": "--regression",
    "body.labels.sources": "--source",
    "body.labels.tags": "--tag",
    "body.limit": "--limit",
    "body.min_new_labels": "--min-new-labels",
    "body.mode": "--mode",
    "body.name": "--name",
    "body.tasks": "--task",
    "body.text": "the text",
    "body.time_zone": "--tz",
    "body.top_k": "--top-k",
    "query.kind": "--kind",
    "query.limit": "--limit",
    "query.name": "the video's name",
    "query.name_part": "the video's name",
    "query.source": "the source",
    "query.split": "--split",
    "query.state": "--state",
    "query.task": "--task",
}
TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "quarantined"})


class ApiClient:
    """Talks to the API with its key; use as a context manager."""

    def __init__(self, api_url: str, api_key: str) -> None:
        self.api_url = api_url
        self._connection = Connection(api_url, {"Authorization": f"Bearer {api_key}"})
        self._has_compared_versions = False

    @classmethod
    def of_data_folder(cls, data: Path) -> Self:
        """Connect with the address and key of the data folder or the environment."""
        settings = read_client(data)
        return cls(settings.api_url, settings.api_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str, **params: str | float | None) -> Json:
        """GET a resource; parameters that are None are left out."""
        return self._json("GET", path, params)

    def post(self, path: str, body: Json | None = None, **params: str | float | None) -> Json:
        """POST a JSON body."""
        # ASCII carries what is no text in an argument too, and the API says that it is none.
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
            OSError: it cannot be read, or is no regular file.
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
        """Yield up to limit items of a list resource (None: all), page by page."""
        token: str | None = None
        while limit is None or limit > 0:
            size = PAGE_SIZE if limit is None else min(limit, PAGE_SIZE)
            page = self.get(path, page_size=size, page_token=token, **params)
            # Some lists have but one page, however long.
            yield from page["items"] if limit is None else page["items"][:size]
            if limit is not None:
                limit -= len(page["items"])
            token = page.get("next_page_token")
            if not token:
                return

    def first_items(
        self, path: str, *, limit: int, every: bool = False, **params: str | None
    ) -> list[Json]:
        """List the first items of a list resource, or every one, and say when there are more."""
        found = list(self.items(path, limit=None if every else limit + 1, **params))
        if every or len(found) <= limit:
            return found
        say_that_there_is_more(limit)
        return found[:limit]

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
            CliError: it failed, or did not end in time.
        """
        deadline = time.monotonic() + timeout_seconds
        resource = self.post(path, body, wait=min(timeout_seconds, LONGEST_WAIT_SECONDS))
        while resource["state"] not in TERMINAL_STATES:
            left = deadline - time.monotonic()
            if left <= 0:
                raise CliError(
                    f"no answer within {timeout_seconds:.0f} s (state: {resource['state']})",
                    f"see `clipbert jobs show {resource['id']}`; `clipbert doctor` finds the cause",
                )
            wait = min(left, LONGEST_WAIT_SECONDS)
            resource = self.get(f"{path}/{resource['id']}", wait=wait)
        if resource["state"] != "succeeded":
            problem = resource.get("error") or {}
            code, message = problem.get("code"), problem.get("message")
            raise CliError(f"{message or 'the job ' + resource['state']} ({code or 'no code'})")
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
            raise CliError(
                f"{self.api_url} answered {method} {path} with something that is not JSON",
                "is this the address of a ClipBERT API?",
            ) from None
        if not isinstance(value, dict):
            raise CliError(f"{self.api_url} answered {method} {path} with no JSON object")
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
        """Ask, and give the answer to whoever reads it; raises what the API refuses."""
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
                    raise _problem_of(answer)
                yield answer
            finally:
                answer.close()
        except NoAnswer as error:
            raise self._unreachable(error) from error

    def _compare_versions(self, of_service: str | None) -> None:
        """Say once that command and service are not of one version."""
        if self._has_compared_versions or of_service is None:
            return
        self._has_compared_versions = True
        ours = client_version()
        if ours != of_service:
            print_error(
                f"warning: this command is version {ours}, the service {of_service}",
                "install one version on both sides: what one knows the other may refuse",
            )

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


def _problem_of(answer: Answer) -> ApiProblem:
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
        detail=_in_terms_of_options(errors) or detail,
        errors=errors,
        facts=problem,
    )


def _in_terms_of_options(errors: tuple[Json, ...]) -> str | None:
    """Say what is wrong with the first field as the command line calls it; None if it does not."""
    first = errors[0] if errors else {}
    field = re.sub(r"\.\d+$", "", str(first.get("field", "")))  # body.choices.1: one of several
    if field not in OPTION_OF_FIELD:
        return None
    # The validator's sentences begin with the type: "String should have at least 1 character".
    message = re.sub("^(String|Input|List|Value error,) ", "", str(first.get("message", "")))
    return f"{OPTION_OF_FIELD[field]}: {message}"
