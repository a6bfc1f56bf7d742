"""Finetunes: models trained further on a data set, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store.errors import FinetuneNotFound
from store.jobs.outputs import find_with_job, list_with_jobs, rows_with_jobs
from store.jobs.state import ACTIVE_STATES, JobState
from store.jobs.tables import Job
from store.models.tables import Finetune
from store.pages import Page, PageTokens
from store.table_base import Task

_CAME_TO_NOTHING = (JobState.FAILED, JobState.CANCELLED, JobState.QUARANTINED)


class FinetuneRepository:
    """Every query about finetunes.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self,
        job: Job,
        *,
        name: str,
        task: Task | str,
        base_model_id: UUID,
        dataset_id: UUID,
        recipe: Mapping[str, Any],
        gate: Mapping[str, Any],
        request: Mapping[str, Any],
        schedule_id: UUID | None = None,
    ) -> Finetune:
        """Insert the finetune of a job, or find it if the job came from a repeated request.

        Args:
            job: of kind finetune; the finetune has its id.
            name: of the model that is to come of it.
            task: what the model is to learn.
            base_model_id: where it begins.
            dataset_id: what it learns from and is measured on.
            recipe: how it is trained, complete.
            gate: when it is promoted, complete.
            request: what was asked for.
            schedule_id: the schedule that asked.
        """
        found = self._session.get(Finetune, job.id)
        if found is not None:
            return found
        finetune = Finetune(
            id=job.id,
            name=name,
            task=Task(task),
            base_model_id=base_model_id,
            dataset_id=dataset_id,
            recipe=dict(recipe),
            gate=dict(gate),
            request=dict(request),
            schedule_id=schedule_id,
        )
        self._session.add(finetune)
        self._session.flush()
        self._session.refresh(finetune)
        return finetune

    def complete(
        self, finetune_id: UUID, *, model_id: UUID | None, report: Mapping[str, Any]
    ) -> None:
        """Write down the model that came of a finetune, and how it did.

        Raises:
            FinetuneNotFound: there is none with this id.
        """
        changed = self._session.scalar(
            update(Finetune)
            .where(Finetune.id == finetune_id)
            .values(model_id=model_id, report=dict(report), completed_at=func.now())
            .returning(Finetune.id)
            .execution_options(synchronize_session=False)
        )
        if changed is None:
            raise FinetuneNotFound(finetune_id)

    def get(self, finetune_id: UUID) -> tuple[Finetune, Job]:
        """Get a finetune with its job.

        Raises:
            FinetuneNotFound: there is none with this id.
        """
        found = find_with_job(self._session, Finetune, id_=finetune_id)
        if found is None:
            raise FinetuneNotFound(finetune_id)
        return found

    def list(
        self,
        *,
        page_size: int = 50,
        page_token: str | None = None,
        task: Task | str | None = None,
        schedule_id: UUID | None = None,
    ) -> Page[tuple[Finetune, Job]]:
        """List finetunes with their jobs, the newest first.

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        tokens = PageTokens("finetunes", task=task, schedule_id=schedule_id)
        query = rows_with_jobs(Finetune)
        if task is not None:
            query = query.where(Finetune.task == Task(task))
        if schedule_id is not None:
            query = query.where(Finetune.schedule_id == schedule_id)
        return list_with_jobs(
            self._session,
            Finetune,
            query=query,
            tokens=tokens,
            page_size=page_size,
            page_token=page_token,
        )

    def active_of_schedule(self, schedule_id: UUID) -> Sequence[Job]:
        """List the jobs of a schedule's finetunes that are not over, the oldest first."""
        query = (
            select(Job)
            .join(Finetune, Finetune.id == Job.id)
            .where(Finetune.schedule_id == schedule_id, Job.state.in_(ACTIVE_STATES))
            .order_by(Job.id)
        )
        return self._session.scalars(query.execution_options(populate_existing=True)).all()

    def last_of_schedule(self, schedule_id: UUID) -> Finetune | None:
        """Find the newest finetune of a schedule that did not fail and was not cancelled."""
        query = (
            select(Finetune)
            .join(Job, Job.id == Finetune.id)
            .where(Finetune.schedule_id == schedule_id, Job.state.not_in(_CAME_TO_NOTHING))
        )
        return self._session.scalar(query.order_by(Finetune.id.desc()).limit(1))

    def of_model(self, model_id: UUID) -> Finetune | None:
        """Find the finetune that a model came of; the newest, if several gave the same."""
        query = select(Finetune).where(Finetune.model_id == model_id)
        return self._session.scalar(query.order_by(Finetune.id.desc()).limit(1))
