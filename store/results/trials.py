"""Trial questions: put to videos by the service itself, to find where a label is worth most.

A trial is a job of kind `trial` with a question beside it, answered like those of people and kept
out of their lists. Labels, promotions and deleted videos make trials pointless; those are removed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Text,
    cast,
    delete,
    exists,
    func,
    literal,
    select,
    tablesample,
)
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.orm import Session, aliased

from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import HELD_STATES, JobKind, JobState
from store.jobs.tables import Job
from store.labels.tables import Label
from store.results.questions import QuestionRepository, is_labelled, normal_text
from store.results.tables import Question
from store.table_base import Task
from store.videos.repository import VideoRepository
from store.videos.tables import Video, VideoState

TRIAL_PRIORITY: Final = 100
"""Far behind what people ask (5); lower runs first."""

_LOCK: Final = 0x7472_6961_6C73  # any number that is nobody else's: "trials"
_NEWEST: Final = 5_000  # questions of people that are counted
_MOST_CANDIDATES: Final = 1_000
_MOST_READ: Final = 2_500  # videos, some of which are labelled already


class TrialSource(StrEnum):
    """Where a trial's question comes from."""

    ASKED = "asked"
    """Somebody asked it on this video, and a model answered that no longer serves."""
    UNLABELLED = "unlabelled"
    """Often labelled or asked on other videos."""


@dataclass(frozen=True)
class TrialCounts:
    """How many trials there are of one model: all, and those without an answer yet."""

    num_all: int
    num_waiting: int


@dataclass(frozen=True)
class AskedText:
    """A question that is often labelled or asked.

    Attributes:
        key: the text, made comparable.
        text: one of its spellings.
        num_trials: of one model with this text.
    """

    key: str
    text: str
    num_trials: int


@dataclass(frozen=True)
class UnlabelledVideo:
    """A video that can be asked and has no answer by a person.

    Attributes:
        id: of the video.
        asked_keys: the questions it was asked, made comparable.
    """

    id: UUID
    asked_keys: frozenset[str]


class TrialRepository:
    """Every query about trials.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def lock(self) -> bool:
        """Keep others from making trials until the transaction ends; False if another does."""
        query = select(func.pg_try_advisory_xact_lock(_LOCK))
        return bool(self._session.scalar(query))

    def may_run(self) -> bool:
        """Whether a trial is due and no video waits to be embedded by the same device."""

        def is_due(kind: JobKind) -> ColumnElement[bool]:
            due = (Job.kind == kind, Job.state == JobState.QUEUED, Job.run_at <= func.now())
            return exists().where(*due)

        return bool(self._session.scalar(select(is_due(JobKind.TRIAL) & ~is_due(JobKind.EMBED))))

    def counts(self, model_id: UUID) -> TrialCounts:
        """Count the trials made for a model."""
        query = select(func.count(), func.count().filter(Job.state.in_(_WAITING))).join(
            Question, Question.id == Job.id
        )
        row = self._session.execute(query.where(_is_trial(), Question.model_id == model_id)).one()
        return TrialCounts(row[0], row[1])

    def outdated_questions(self, model_id: UUID, *, limit: int) -> Sequence[Question]:
        """Find open-ended questions of people that another model answered, the unsurest first.

        Those that were asked again since, or have a label, are left out. Only the unsurest answers
        of all are looked through.
        """
        newer = aliased(Question)
        unsurest = (
            select(Question)
            .where(
                Question.task == Task.QA,
                Question.is_open,
                Question.uncertainty.is_not(None),
                Question.video_id.is_not(None),
            )
            .order_by(Question.uncertainty.desc(), Question.id.desc())
            .limit(_MOST_CANDIDATES)
            .subquery()
        )
        asked = aliased(Question, unsurest)
        query = (
            select(asked)
            .join(Video, Video.id == asked.video_id)
            .where(
                asked.trial_source.is_(None),
                asked.model_id.is_distinct_from(model_id),
                Video.state == VideoState.READY,
                ~exists().where(
                    newer.video_id == asked.video_id,
                    newer.text_key == asked.text_key,
                    newer.task == asked.task,
                    newer.id > asked.id,
                ),
                ~is_labelled(asked),
            )
            .order_by(asked.uncertainty.desc(), asked.id.desc())
            .limit(limit)
        )
        return self._session.scalars(query).all()

    def frequent_texts(self, model_id: UUID, *, limit: int) -> Sequence[AskedText]:
        """Find the open-ended questions that are labelled and asked most often.

        Args:
            model_id: whose trials are counted for each.
            limit: how many.
        """
        asked = (
            select(Question.text_key.label("key"), Question.text.label("text"))
            .where(Question.task == Task.QA, Question.trial_source.is_(None))
            .order_by(Question.id.desc())
            .limit(_NEWEST)
        )
        labelled = (
            select(normal_text(Label.text).label("key"), Label.text.label("text"))
            .where(Label.task == Task.QA, Label.deleted_at.is_(None))
            .order_by(Label.id.desc())
            .limit(_NEWEST)
        )
        every = asked.subquery().select().union_all(labelled.subquery().select()).subquery()
        key, spelling = every.c.key, every.c.text
        trials = (
            select(func.count())
            .where(_is_trial(), Question.model_id == model_id, Question.text_key == key)
            .scalar_subquery()
        )
        query = (
            select(key, func.mode().within_group(spelling), trials)
            .group_by(key)
            .order_by(func.count().desc(), key)
            .limit(limit)
        )
        return [AskedText(*row) for row in self._session.execute(query)]

    def unlabelled_videos(
        self, model_id: UUID, *, keys: Sequence[str], limit: int
    ) -> Sequence[UnlabelledVideo]:
        """Find videos with no answer by a person: those with the fewest questions, spread evenly.

        Args:
            model_id: the order among equals is another for each model.
            keys: the questions, made comparable; videos that were asked all of them are left out.
            limit: how many.
        """
        # Some are enough to choose from, and what follows is asked of each. Of a large library they
        # are those of pages here and there, of other pages each time.
        num_ready = VideoRepository(self._session).counts().get(VideoState.READY, 0)
        video = Video
        if num_ready > _MOST_READ:
            share = func.system(100.0 * _MOST_READ / num_ready)
            video = aliased(Video, tablesample(Video, share))
        labelled = (
            select(literal(True))
            .where(Label.video_id == video.id, Label.task == Task.QA, Label.deleted_at.is_(None))
            .limit(1)
            .correlate(video)
            .scalar_subquery()
        )
        spread = (
            select(video.id)
            .where(video.state == VideoState.READY, labelled.is_(None))
            .order_by(func.md5(func.concat(video.id, model_id)))
            .limit(_MOST_CANDIDATES)
            .subquery()
        )
        asked = (
            select(func.coalesce(func.array_agg(Question.text_key.distinct()), _NO_KEYS))
            .where(
                Question.video_id == spread.c.id,
                Question.task == Task.QA,
                Question.text_key.in_(keys),
            )
            .correlate(spread)
            .scalar_subquery()
        )
        num_asked = func.cardinality(asked)
        query = (
            select(spread.c.id, asked)
            .where(num_asked < len(keys))
            .order_by(num_asked, func.md5(func.concat(spread.c.id, model_id)))
            .limit(limit)
        )
        return [UnlabelledVideo(row[0], frozenset(row[1])) for row in self._session.execute(query)]

    def create(
        self,
        source: TrialSource,
        *,
        video_id: UUID,
        text: str,
        model_id: UUID,
        top_k: int = 5,
    ) -> Job:
        """Put an open-ended question to a video.

        Args:
            source: where the question comes from.
            video_id: whom it is about.
            text: the question.
            model_id: that will answer; noted at once, so that a trial that fails counts for it too.
            top_k: answers to keep.
        """
        asked: Mapping[str, Any] = {
            "video_id": str(video_id),
            "text": text,
            "choices": None,
            "top_k": top_k,
        }
        new = NewJob(JobKind.TRIAL, dict(asked), priority=TRIAL_PRIORITY, video_id=video_id)
        job = JobRepository(self._session).enqueue(new)
        question = QuestionRepository(self._session).create(job, text=text)
        question.trial_source, question.model_id = source, model_id
        self._session.flush()
        return job

    def remove_outdated(self, model_id: UUID | None) -> int:
        """Remove the trials that no longer tell anything; return how many.

        Those of other models than the one that serves, those whose video is gone and those that a
        person has answered. A trial that a worker has in hand stays for the next time.

        Args:
            model_id: that serves; None if none does.
        """
        pointless = (
            Question.model_id.is_distinct_from(model_id)
            | Question.video_id.is_(None)
            | is_labelled(Question)
        )
        removed = self._session.execute(
            delete(Job)
            .where(
                Job.kind == JobKind.TRIAL,
                Job.state.not_in(HELD_STATES),
                Job.id.in_(select(Question.id).where(_is_trial(), pointless)),
            )
            .returning(Job.id)
            .execution_options(synchronize_session=False)
        ).all()
        return len(removed)


_WAITING: Final = (JobState.QUEUED, JobState.RUNNING)
_NO_KEYS: Final = cast(array([]), ARRAY(Text()))


def _is_trial() -> ColumnElement[bool]:
    return Question.trial_source.is_not(None)
