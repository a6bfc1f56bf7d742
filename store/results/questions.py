"""Questions about a video, and their answers."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, exists, func, literal, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.errors import QuestionNotFound
from store.jobs.locks import lock_jobs
from store.jobs.outputs import find_with_job, list_with_jobs, rows_with_jobs
from store.jobs.tables import Job
from store.labels.tables import Label
from store.pages import Page, PageTokens
from store.results.tables import Question
from store.table_base import Task


class QuestionRepository:
    """Every query about questions.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self,
        job: Job,
        *,
        text: str,
        video_id: UUID | None = None,
        input: Mapping[str, Any] | None = None,
    ) -> Question:
        """Insert the question of a job; it has the job's id.

        Args:
            job: of kind question.
            text: the question.
            video_id: whom it is about; None takes the job's.
            input: all that was asked, as JSON; None takes the job's.
        """
        asked = dict(job.input if input is None else input)
        question = Question(
            id=job.id,
            video_id=job.video_id if video_id is None else video_id,
            text=text,
            text_key=normal_text(literal(text)),
            task=Task.MULTIPLE_CHOICE if asked.get("choices") else Task.QA,
            input=asked,
        )
        self._session.add(question)
        self._session.flush()
        return question

    def complete(
        self,
        question_id: UUID,
        result: Mapping[str, Any],
        *,
        model_id: UUID | None = None,
        generation_id: UUID | None = None,
        uncertainty: float | None = None,
    ) -> None:
        """Write the answer, and by which model and generation.

        Args:
            question_id: whose answer it is.
            result: JSON.
            model_id: that answered.
            generation_id: whose clips it read.
            uncertainty: of the answer, 0 to 1; None if it is not known.

        Raises:
            QuestionNotFound: there is none with this id.
        """
        lock_jobs(self._session, Job.id == question_id)
        changed = self._session.scalar(
            update(Question)
            .where(Question.id == question_id)
            .values(
                result=dict(result),
                model_id=model_id,
                generation_id=generation_id,
                uncertainty=uncertainty,
                completed_at=func.now(),
            )
            .returning(Question.id)
            .execution_options(synchronize_session=False)
        )
        if changed is None:
            raise QuestionNotFound(question_id)

    def get(self, question_id: UUID) -> tuple[Question, Job]:
        """Get a question with its job.

        Raises:
            QuestionNotFound: there is none with this id.
        """
        found = find_with_job(self._session, Question, id_=question_id)
        if found is None:
            raise QuestionNotFound(question_id)
        return found

    def list(
        self,
        *,
        page_size: int = 50,
        page_token: str | None = None,
        video_id: UUID | None = None,
        with_trials: bool = False,
    ) -> Page[tuple[Question, Job]]:
        """List questions with their jobs, the newest first.

        Args:
            page_size: how many at most.
            page_token: of the page before.
            video_id: only those about this video.
            with_trials: those too that the service put by itself.

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        tokens = PageTokens("questions", video_id=video_id, with_trials=with_trials)
        query = rows_with_jobs(Question)
        if video_id is not None:
            query = query.where(Question.video_id == video_id)
        if not with_trials:
            query = query.where(Question.trial_source.is_(None))
        return list_with_jobs(
            self._session,
            Question,
            query=query,
            tokens=tokens,
            page_size=page_size,
            page_token=page_token,
        )


def normal_text(text: ColumnElement[str] | InstrumentedAttribute[str]) -> ColumnElement[str]:
    """Make questions comparable, in SQL: case, spaces and closing marks do not tell two apart."""
    key: ColumnElement[str] = func.question_key(text, type_=Text())
    return key


def is_labelled(question: type[Question]) -> ColumnElement[bool]:
    """Return the condition that a person has answered this question about this video.

    Args:
        question: the table, or an alias of it.
    """
    return exists().where(
        Label.video_id == question.video_id,
        Label.task == question.task,
        Label.deleted_at.is_(None),
        normal_text(Label.text) == question.text_key,
    )
