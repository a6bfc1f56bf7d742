"""Which answers of the model a person should set right first."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session, aliased

from store.results.questions import is_labelled
from store.results.tables import Question
from store.results.trials import TrialSource
from store.table_base import Task
from store.videos.tables import Video


@dataclass(frozen=True)
class Suggestion:
    """An answer that is worth a label.

    Attributes:
        question: with the model's answer.
        video: whom it is about.
        source: whether people asked it, or the service itself of an unlabelled video.
    """

    question: Question
    video: Video
    source: TrialSource


class SuggestionRepository:
    """Every query about suggestions.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(
        self,
        task: Task | str,
        *,
        limit: int,
        video_id: UUID | None = None,
        source: TrialSource | None = None,
    ) -> Sequence[Suggestion]:
        """List the answers that are worth a label most, the best first.

        A question with a label is left out, and of one that was asked twice on a video all but the
        newest answer. Only questions that are open are read, in the order of the index, so that a
        short list is as fast among many answers, most of them labelled, as among few.

        Args:
            task: qa or multiple_choice.
            limit: how many.
            video_id: only of this video.
            source: only from there.
        """
        newer = aliased(Question)
        query = (
            select(Question, Video)
            .join(Video, Video.id == Question.video_id)
            .where(
                Question.task == Task(task),
                Question.is_open,
                Question.uncertainty.is_not(None),
                Question.video_id.is_not(None),
                # A label, or a later answer, that came at the same moment as this one.
                ~exists().where(
                    newer.is_open,
                    newer.video_id == Question.video_id,
                    func.md5(newer.text_key) == func.md5(Question.text_key),
                    newer.text_key == Question.text_key,
                    newer.task == Question.task,
                    newer.id > Question.id,
                ),
                ~is_labelled(Question),
            )
            .limit(limit)
        )
        if video_id is not None:
            query = query.where(Question.video_id == video_id)
        uncertainty: ColumnElement[float | None] = Question.uncertainty.expression
        if source == TrialSource.UNLABELLED:
            query = query.where(Question.trial_source == TrialSource.UNLABELLED)
            # With + 0.0 it is no longer the index's expression: there are few trials, and what
            # people asked may fill the top of the index.
            uncertainty = Question.uncertainty + 0.0
        elif source is not None:
            query = query.where(Question.trial_source.is_distinct_from(TrialSource.UNLABELLED))
        query = query.order_by(uncertainty.desc(), Question.id.desc())
        found = self._session.execute(query.execution_options(populate_existing=True))
        return [
            Suggestion(question, video, TrialSource(question.trial_source or TrialSource.ASKED))
            for question, video in found
        ]
