"""Questions about a video: multiple choice, or open-ended where a QA model serves."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.dependencies import IdempotencyKey, PageDep, Services, ServicesDep, WaitSeconds
from api.middleware.authentication import key_id_of
from api.responses.answers import accepted, fresh_or_304, wait_for_job
from api.responses.preconditions import require_generation, require_qa_model, require_ready_video
from api.responses.problems import refusals
from api.schemas.questions import NewQuestion, QuestionResource, question_resource
from api.schemas.resources import Page
from store.errors import QuestionNotFound
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.results.questions import QuestionRepository
from store.videos.repository import VideoRepository

router = APIRouter(prefix="/v1/questions", tags=["questions"])


@router.post(
    "",
    status_code=202,
    response_model=QuestionResource,
    responses={
        200: {"model": QuestionResource, "description": "Done within `wait`"},
        202: {"description": "Not done yet; ask again at Location"},
        **refusals(
            "malformed_json",
            "video_not_found",
            "no_active_generation",
            "no_qa_model",
            "video_not_ready",
            "invalid_request",
            "idempotency_conflict",
        ),
    },
)
async def create_question(
    request: Request,
    services: ServicesDep,
    *,
    new: NewQuestion,
    wait: WaitSeconds = 0,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Ask about a video. With `wait`, the answer is in the response if it comes in time."""
    question_id = await run_in_threadpool(
        _enqueue, services, new, idempotency_key, key_id_of(request)
    )
    await wait_for_job(services, request, job_id=question_id, wait_seconds=wait)
    resource = await run_in_threadpool(_read, services, question_id)
    return accepted(resource, location=f"/v1/questions/{question_id}", done=resource.done)


@router.get(
    "",
    response_model=Page[QuestionResource],
    responses=refusals("invalid_page_token", "invalid_request"),
)
def list_questions(
    services: ServicesDep,
    page: PageDep,
    *,
    video_id: UUID | None = None,
    trials: Annotated[
        bool, Query(description="include questions that the service asked by itself")
    ] = False,
) -> Page[QuestionResource]:
    """List questions with their answers, the newest first."""
    with services.sessions() as session:
        found = QuestionRepository(session).list(
            page_size=page.page_size,
            page_token=page.page_token,
            video_id=video_id,
            with_trials=trials,
        )
        ids = {question.video_id for question, _ in found.items if question.video_id is not None}
        videos = VideoRepository(session).get_many(ids)
    return Page(
        items=[
            question_resource(
                question, job, video=videos.get(question.video_id) if question.video_id else None
            )
            for question, job in found.items
        ],
        next_page_token=found.next_page_token,
    )


@router.get(
    "/{question_id}",
    response_model=QuestionResource,
    responses=refusals("question_not_found", "invalid_request"),
)
async def get_question(
    request: Request, services: ServicesDep, *, question_id: UUID, wait: WaitSeconds = 0
) -> Response:
    """Get a question with its answer. With `wait`, the response comes when it is done."""
    resource = await run_in_threadpool(_read, services, question_id)
    if not resource.done and wait > 0:
        await wait_for_job(services, request, job_id=question_id, wait_seconds=wait)
        resource = await run_in_threadpool(_read, services, question_id)
    return fresh_or_304(resource, if_none_match=request.headers.get("if-none-match"))


def _enqueue(
    services: Services, new: NewQuestion, idempotency_key: str | None, key_id: UUID | None
) -> UUID:
    asked: dict[str, Any] = new.model_dump(mode="json")
    with services.sessions.begin() as session:
        require_generation(session)
        if new.choices is None:
            require_qa_model(session)
        require_ready_video(session, new.video_id)
        job = JobRepository(session).enqueue(
            NewJob(
                kind=JobKind.QUESTION,
                input=asked,
                video_id=new.video_id,
                idempotency_key=idempotency_key,
                api_key_id=key_id,
            )
        )
        questions = QuestionRepository(session)
        try:
            questions.get(job.id)
        except QuestionNotFound:
            questions.create(job, text=new.text)
    services.doorbell.ring(job.kind, job.id)
    return job.id


def _read(services: Services, question_id: UUID) -> QuestionResource:
    with services.sessions() as session:
        question, job = QuestionRepository(session).get(question_id)
        ids = [] if question.video_id is None else [question.video_id]
        [*videos] = VideoRepository(session).get_many(ids).values()
        return question_resource(question, job, video=videos[0] if videos else None)
