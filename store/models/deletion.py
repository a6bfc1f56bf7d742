"""Models that go: the row stays for what they once made, the files are removed after the commit."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from store.errors import ModelNeeded
from store.jobs.state import ACTIVE_STATES
from store.jobs.tables import Job
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Finetune, Generation, GenerationState, Model, Schedule, Serving
from store.table_base import Task

# Of each task the newest that are not looked at; of the rest those that came of a finetune, were
# never promoted, and were made before all that are kept.
_SURPLUS = """
SELECT candidates.id
FROM (SELECT models.id, row_number() OVER (PARTITION BY tasks ORDER BY models.id DESC) AS place
      FROM models
      WHERE deleted_at IS NULL
        AND EXISTS (SELECT FROM finetunes WHERE finetunes.model_id = models.id)
        AND NOT EXISTS (SELECT FROM promotions WHERE promotions.model_id = models.id)
     ) AS candidates
WHERE place > :kept
ORDER BY candidates.id
LIMIT :limit
"""


class ModelDeletion:
    """Deletes models that nothing needs.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def delete(self, model_id: UUID) -> None:
        """Delete a model; `with_files` lists it until its files are removed.

        Raises:
            ModelNotFound: there is none with this id.
            ModelNeeded: something needs it; the error says what.
        """
        models = ModelRepository(self._session)
        models.lock()  # nobody promotes it meanwhile
        locked = select(Model).where(Model.id == model_id).with_for_update()
        self._session.scalar(locked.execution_options(populate_existing=True))
        model = models.live(model_id)
        reason = self._why_needed(model)
        if reason is not None:
            raise ModelNeeded(model.name, model.version, reason=reason)
        model.deleted_at = self._session.scalars(select(func.now())).one()
        self._session.flush()

    def surplus_candidates(self, *, kept: int, limit: int = 20) -> Sequence[UUID]:
        """List finetuned models that never served, without the newest of each task.

        Args:
            kept: how many of a task are not listed.
            limit: how many are listed, the oldest first.
        """
        parameters = {"kept": kept, "limit": limit}
        return self._session.scalars(text(_SURPLUS), parameters).all()

    def with_files(self) -> Sequence[tuple[UUID, str]]:
        """List deleted models whose files may still be there, each with their prefix."""
        query = select(Model.id, Model.folder_key).where(
            Model.deleted_at.is_not(None), Model.files_removed_at.is_(None)
        )
        return [(row[0], row[1]) for row in self._session.execute(query.order_by(Model.id))]

    def note_files_removed(self, model_id: UUID) -> None:
        """Note that the files of a deleted model are gone."""
        model = self._session.get_one(Model, model_id)
        model.files_removed_at = self._session.scalars(select(func.now())).one()

    def _why_needed(self, model: Model) -> str | None:
        tasks = self._session.scalars(select(Serving.task).where(Serving.model_id == model.id))
        served = sorted(tasks)
        if served:
            return f"it serves {', '.join(served)}; promote another or roll it back first"
        models = ModelRepository(self._session)
        active = GenerationRepository(self._session).active()
        for task in Task:
            if models.rolls_back_to(task) == model.id:
                return f"a rollback of {task} would bring it back"
            if active is not None:
                answering = models.fitting(task, models.get(active.model_id).visual_sha256)
                if answering is not None and answering.id == model.id:
                    return f"it answers {task} until the index for a newer model is built"
        return self._why_needed_by_rows(model)

    def _why_needed_by_rows(self, model: Model) -> str | None:
        made = select(Generation.id).where(
            Generation.state != GenerationState.DELETED,
            (Generation.model_id == model.id) | (Generation.recall_model_id == model.id),
        )
        generation_id = self._session.scalar(made.limit(1))
        if generation_id is not None:
            return f"the kept index (generation {generation_id}) was made by it"
        going_on = (
            select(Finetune.id)
            .join(Job, Job.id == Finetune.id)
            .where(
                (Finetune.base_model_id == model.id) | (Finetune.model_id == model.id),
                Job.state.in_(ACTIVE_STATES),
            )
        )
        finetune_id = self._session.scalar(going_on.limit(1))
        if finetune_id is not None:
            return f"finetune {finetune_id} is at work with it"
        starts = select(Schedule.name).where(
            Schedule.finetune["base_model_id"].astext == str(model.id)
        )
        name = self._session.scalar(starts.limit(1))
        return None if name is None else f"the schedule {name} starts its finetunes from it"
