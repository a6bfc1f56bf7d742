"""Videos with clips and labels that nothing was computed for: rows only."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from store.labels.repository import LabelRepository, NewLabel
from store.models.repository import GenerationRepository
from store.videos.records import NewClip
from store.videos.repository import VideoRepository


def add_clips(session: Session, video_id: UUID, generation_id: UUID) -> None:
    clip = NewClip(0, 0.0, 1.0, [0.5], None, f"tokens/{generation_id}/{video_id}.safetensors")
    VideoRepository(session).replace_clips(video_id, generation_id, clips=[clip])


def add_indexed_video(session: Session, name: str, *, tags: Sequence[str] = ()) -> UUID:
    """Add a video that can be searched in the active generation."""
    videos = VideoRepository(session)
    video, _ = videos.create(uri=f"file:///{name}.mp4", sha256=name, tags=tags)
    add_clips(session, video.id, GenerationRepository(session).active().id)
    videos.mark_ready(video.id)
    return video.id


def add_questions(
    session: Session,
    names: Sequence[str],
    *,
    answers: Sequence[str] = ("red", "blue"),
    split: str | None = None,
    **columns: object,
) -> list[UUID]:
    """Add a video with one answered question for each name; gives the videos' ids."""
    video_ids = [add_indexed_video(session, name) for name in names]
    added = LabelRepository(session).add_many(
        [
            NewLabel(
                video_id,
                "qa",
                "What colour is it?",
                answer=answers[index % len(answers)],
                split=split,
                **columns,
            )
            for index, video_id in enumerate(video_ids)
        ]
    )
    assert added.num_inserted == len(names)
    return video_ids
