"""Labels: what people say about videos, put in by hand or by the file, edited, taken out again."""

import json
from collections.abc import Iterator
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any, Final
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.content_types import JSON, content_type_of, unsupported_media_type
from api.dependencies import KeyName, PageDep, Services, ServicesDep
from api.errors import ApiError
from api.intake.batch_bodies import spool_body
from api.intake.label_changes import changed_columns
from api.intake.label_lines import LabelReader
from api.intake.new_labels import OnRefused, add_label, import_labels
from api.responses.answers import fresh, fresh_or_304, require_match
from api.responses.lines import NDJSON, lines_response
from api.responses.problems import refusals
from api.schemas.labels import (
    IMPORT_EXAMPLE,
    LINES_EXAMPLE,
    NEW_LABELS_BODY,
    AnswerCount,
    AnswerCounts,
    LabelChanges,
    LabelResource,
    LabelsImported,
    NewLabel,
    RevisionResource,
    label_line,
    label_resource,
    revision_resource,
)
from api.schemas.resources import Page
from clipbert.datasets.kinds import AnnotationKind
from clipbert.datasets.same_answers import merge_counts
from policy.texts import Name
from store.database import run_in_transaction
from store.labels.repository import LabelFilter, LabelRepository, parse_split
from store.labels.tables import Label, Split
from store.table_base import Task
from store.videos.repository import VideoRepository
from store.videos.tables import Video

router = APIRouter(prefix="/v1/labels", tags=["labels"])

_NDJSON_TYPES: Final = frozenset({NDJSON, "application/ndjson", "application/jsonl"})
_MAX_JSON_BYTES: Final = 2**20
_EXPORT_CHUNK: Final = 1000
_LABEL_FIELDS: Final = (
    "text",
    "answer",
    "choices",
    "right_choice",
    "start_seconds",
    "end_seconds",
    "source",
)
LabelTask = Annotated[Task | None, Query(description="qa, multiple_choice or retrieval")]


async def _label_filter(
    *,
    task: LabelTask = None,
    video_id: UUID | None = None,
    split: Split | None = None,
    source: Name | None = None,
    tag: Annotated[Name | None, Query(description="of the video")] = None,
    text: Annotated[
        Name | None,
        Query(description="a part of the text or of the answer, in upper or lower case"),
    ] = None,
) -> LabelFilter:
    return LabelFilter(
        task=task,
        video_ids=() if video_id is None else (video_id,),
        split=split,
        sources=() if source is None else (source,),
        tags=() if tag is None else (tag,),
        text=text,
    )


FilterDep = Annotated[LabelFilter, Depends(_label_filter)]


@router.post(
    "",
    status_code=201,
    response_model=LabelResource,
    openapi_extra={"requestBody": NEW_LABELS_BODY},
    responses={
        200: {
            "model": LabelsImported | LabelResource,
            "description": "NDJSON: the lines were read. JSON: this label was there already",
            "content": {"application/json": {"example": IMPORT_EXAMPLE}},
        },
        201: {"description": "JSON: the label is new"},
        **refusals(
            "malformed_json",
            "payload_too_large",
            "unsupported_media_type",
            "unknown_video",
            "ambiguous_video",
            "split_conflict",
            "invalid_split",
            "invalid_span",
            "invalid_label",
            "invalid_request",
            "labels_refused",
        ),
    },
)
async def create_labels(
    request: Request,
    services: ServicesDep,
    *,
    on_error: Annotated[
        OnRefused,
        Query(description="NDJSON: what a refused line does to the others: fail keeps nothing"),
    ] = OnRefused.FAIL,
    kind: Annotated[
        AnnotationKind | None,
        Query(description="NDJSON: the form of the lines; by default told from the first one"),
    ] = None,
    split: Annotated[
        Name | None, Query(description="NDJSON: of lines that have none: train or holdout")
    ] = None,
    source: Annotated[Name | None, Query(description="NDJSON: of lines that have none")] = None,
) -> Response:
    """Add one label (JSON), or import many (NDJSON, one a line, up to any number).

    The lines of an import are NewLabels or those of the paper's annotation files: retrieval,
    msrvtt_mc, tgif_choice, tgif_frameqa, tgif_count, msrvtt_qa, vqa, captions. VQA's soft answers
    become the one with the best score, counts become answers in digits, captions are for
    retrieval, and msrvtt_mc, whose choices are captions, gets a question of its own.

    A label is known by its content: the same again changes nothing, so that a request or an import
    can simply be repeated. With `on_error=fail` a refused line keeps all others out too; `errors`
    lists the number, code and message of the first 100. All of an import is one transaction.
    """
    content_type = content_type_of(request)
    if content_type == JSON:
        return await _create_one(request, services)
    if content_type not in _NDJSON_TYPES:
        raise unsupported_media_type(
            "Send application/json for one label or application/x-ndjson for many."
        )
    if split is not None:
        parse_split(split)  # once for all lines
    reader = LabelReader(kind=kind, split=split, source=source)
    async with spool_body(
        request, spool_folder=services.spool_folder, max_bytes=services.settings.max_batch_bytes
    ) as body:

        def store() -> LabelsImported:
            return import_labels(services, body, reader=reader, on_error=on_error)

        # Threads of its own: large imports take seconds, and other requests need theirs.
        imported = await anyio.to_thread.run_sync(store, limiter=services.label_threads)
    return Response(imported.model_dump_json().encode(), media_type="application/json")


@router.get(
    "",
    response_model=Page[LabelResource],
    responses=refusals("invalid_page_token", "invalid_request"),
)
def list_labels(services: ServicesDep, *, page: PageDep, wanted: FilterDep) -> Page[LabelResource]:
    """List labels, the newest first."""
    with services.sessions() as session:
        found = LabelRepository(session).list(
            page_size=page.page_size, page_token=page.page_token, filter=wanted
        )
        videos = VideoRepository(session).get_many({label.video_id for label in found.items})
        items = [label_resource(label, videos.get(label.video_id)) for label in found.items]
    return Page(items=items, next_page_token=found.next_page_token)


@router.get(
    ":export",
    response_class=Response,
    responses={
        200: {
            "description": "One label a line",
            "content": {NDJSON: {"schema": {"type": "string"}, "example": LINES_EXAMPLE}},
        },
        **refusals("invalid_request"),
    },
)
def export_labels(
    services: ServicesDep,
    *,
    wanted: FilterDep,
    video: Annotated[
        str,
        Query(
            pattern="^(id|sha256|filename)$",
            description="what names the videos: ids are clear; sha256 is understood by every "
            "service that has the same files; the file name by `clipbert train`",
        ),
    ] = "id",
) -> Response:
    """Export labels, the oldest first, as lines that can be imported and trained from."""

    def lines() -> Iterator[dict[str, Any]]:
        with services.sessions() as session:
            labels = LabelRepository(session).stream(wanted)
            while chunk := list(islice(labels, _EXPORT_CHUNK)):
                ids = {label.video_id for label in chunk}
                videos = VideoRepository(session).get_many(ids)
                for label in chunk:
                    of = videos[label.video_id]
                    names = {"sha256": of.sha256, "filename": of.filename}
                    content = {field: getattr(label, field) for field in _LABEL_FIELDS}
                    yield label_line(
                        content,
                        video=names.get(video) or str(of.id),
                        split=label.split,
                        starts_at_seconds=of.starts_at_seconds,
                    )
                session.expunge_all()  # else the session keeps them all

    return lines_response(services, lines(), filename="labels.jsonl")


@router.get("/answers", response_model=AnswerCounts, responses=refusals("invalid_request"))
def list_label_answers(services: ServicesDep, wanted: FilterDep) -> AnswerCounts:
    """Count the answers to open-ended questions: what a finetune's vocabulary would be."""
    with services.sessions() as session:
        found = merge_counts(LabelRepository(session).answers(wanted))
    return AnswerCounts(
        items=[AnswerCount(answer=answer, count=count) for answer, count in found],
        num_labels=sum(count for _, count in found),
    )


@router.api_route("/answers", methods=["PATCH", "DELETE"], include_in_schema=False)
@router.api_route("/suggestions", methods=["PATCH", "DELETE"], include_in_schema=False)
async def refuse_to_change_a_list() -> None:
    """Keep what can only be read from being taken for the id of a label."""
    raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET"})


@router.get(
    "/{label_id}",
    response_model=LabelResource,
    responses={
        304: {"description": "nothing changed since the ETag of If-None-Match"},
        **refusals("label_not_found", "invalid_request"),
    },
)
def get_label(
    services: ServicesDep,
    *,
    label_id: UUID,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Get a label as it is now."""
    with services.sessions() as session:
        resource = _read(session, label_id)
    return fresh_or_304(resource, if_none_match=if_none_match)


@router.patch(
    "/{label_id}",
    response_model=LabelResource,
    responses=refusals(
        "malformed_json",
        "label_not_found",
        "precondition_failed",
        "payload_too_large",
        "duplicate",
        "invalid_label",
        "invalid_span",
        "invalid_split",
        "split_conflict",
        "invalid_request",
    ),
)
def change_label(
    services: ServicesDep,
    *,
    label_id: UUID,
    changes: LabelChanges,
    key_name: KeyName,
    if_match: Annotated[str | None, Header(description="the ETag of the label as seen")] = None,
) -> Response:
    """Change what a label says; what it said before stays in its history.

    Data sets that were made with it keep what it said then.
    """

    def change(session: Session) -> Response:
        before = _read(session, label_id, for_change=True)
        require_match(before, if_match)
        starts_at = VideoRepository(session).starts_at([before.video_id])[before.video_id]
        columns = changed_columns(changes, before, starts_at_seconds=starts_at)
        LabelRepository(session).edit(label_id, columns, by=key_name)
        return fresh(_read(session, label_id))

    return run_in_transaction(services.sessions, change)


@router.delete(
    "/{label_id}",
    status_code=204,
    responses=refusals("label_not_found", "precondition_failed", "invalid_request"),
)
def delete_label(
    services: ServicesDep,
    *,
    label_id: UUID,
    key_name: KeyName,
    if_match: Annotated[str | None, Header(description="the ETag of the label as seen")] = None,
) -> None:
    """Delete a label. Its history and the data sets that were made with it stay."""

    def take_away(session: Session) -> None:
        require_match(_read(session, label_id, for_change=True), if_match)
        LabelRepository(session).delete(label_id, by=key_name)

    run_in_transaction(services.sessions, take_away)


@router.get(
    "/{label_id}/history",
    response_model=Page[RevisionResource],
    responses=refusals("label_not_found"),
)
def list_label_history(services: ServicesDep, label_id: UUID) -> Page[RevisionResource]:
    """List what a label has said, the oldest first; also of a deleted one. There is one page."""
    with services.sessions() as session:
        revisions = LabelRepository(session).history(label_id)
        of = session.get(Label, label_id)
        video = None if of is None else session.get(Video, of.video_id)
        items = [revision_resource(revision, video) for revision in revisions]
    return Page(items=items, next_page_token=None)


async def _create_one(request: Request, services: Services) -> Response:
    async with spool_body(
        request, spool_folder=services.spool_folder, max_bytes=_MAX_JSON_BYTES
    ) as body:
        content = body.read()
    try:
        new = NewLabel.model_validate(json.loads(content))
    except ValidationError as error:
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(found) from error
    except (ValueError, RecursionError) as error:
        raise ApiError(
            HTTPStatus.BAD_REQUEST, "malformed_json", f"The body is not valid JSON: {error}."
        ) from error

    def store() -> tuple[LabelResource, bool]:
        with services.sessions.begin() as session:
            label_id, is_new = add_label(session, new)
            return _read(session, label_id), is_new

    resource, is_new = await run_in_threadpool(store)
    status = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    return fresh(resource, status=status, location=f"/v1/labels/{resource.id}")


def _read(session: Session, label_id: UUID, *, for_change: bool = False) -> LabelResource:
    if for_change:  # what If-Match was compared with is what is changed
        session.get(Label, label_id, with_for_update=True)
    label = LabelRepository(session).get(label_id)
    return label_resource(
        label, VideoRepository(session).get_many([label.video_id]).get(label.video_id)
    )
