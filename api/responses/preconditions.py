"""What must be there before a search or a question is worth enqueueing."""

from http import HTTPStatus
from uuid import UUID

from sqlalchemy.orm import Session

from api.errors import ApiError
from policy.serving import read_serving
from store.models.repository import GenerationRepository, ModelRepository
from store.table_base import Task
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState


def require_generation(session: Session) -> None:
    """Refuse when no model indexes videos.

    Raises:
        ApiError: 409 no_active_generation.
    """
    if GenerationRepository(session).active() is None:
        raise ApiError(
            HTTPStatus.CONFLICT,
            "no_active_generation",
            "No model indexes videos yet; register and promote one first.",
        )


def require_qa_model(session: Session) -> None:
    """Refuse an open-ended question that no model could answer.

    Raises:
        ApiError: 409 no_qa_model.
    """
    serving = read_serving(session)
    if serving is not None and serving.qa is not None:
        return
    promoted = ModelRepository(session).serving(Task.QA)
    if promoted is not None and Task.QA in promoted.heads:
        raise ApiError(
            HTTPStatus.CONFLICT,
            "no_qa_model",
            f"{promoted.name} {promoted.version} answers as soon as the videos are indexed for it: "
            "GET /v1/generations tells how far that is. Until then give choices.",
        )
    raise ApiError(
        HTTPStatus.CONFLICT,
        "no_qa_model",
        "No model with an answer vocabulary is serving: give choices, or finetune one on questions "
        "with POST /v1/finetunes.",
    )


def require_ready_video(session: Session, video_id: UUID) -> None:
    """Refuse a question about a video that has no clips yet, or never will.

    Raises:
        VideoNotFound: there is none with this id.
        ApiError: 409 video_not_ready.
    """
    video = VideoRepository(session).get(video_id)
    if video.state == VideoState.READY:
        return
    reason = "is still being indexed"
    if video.state == VideoState.FAILED:
        reason = f"could not be indexed: {video.error_message or video.error_code}"
    if video.state == VideoState.SUPERSEDED:
        reason = f"has other content now: ask about video {video.superseded_by_id}"
    raise ApiError(HTTPStatus.CONFLICT, "video_not_ready", f"Video {video_id} {reason}.")
