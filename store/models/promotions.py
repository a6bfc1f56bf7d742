"""Which model serves what, since when, and what served before it.

The promotions of a task, in order, are a pile: a promotion puts a model on top, a rollback takes it
off again, and what then lies on top serves. So rolling back twice goes back two models, never to
and fro.
"""

from collections.abc import Iterable, Sequence
from typing import Literal
from uuid import UUID

from sqlalchemy import delete, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import IllegalRollback, ModelNotFound
from store.models.tables import Model, Promotion, PromotionAction, Serving
from store.table_base import Task

ModelState = Literal["serving", "candidate", "retired"]

# Any constant will do, as long as nothing else locks it: "serving" in ASCII.
_PROMOTION_LOCK = 0x73657276696E67


class PromotedModels:
    """Who serves what, changed and looked up; part of ModelRepository.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def promote(
        self,
        model_id: UUID,
        tasks: Iterable[Task | str],
        *,
        reason: str | None = None,
        finetune_id: UUID | None = None,
    ) -> None:
        """Make a model serve tasks from the commit on; those it serves already are left alone.

        Args:
            model_id: the model.
            tasks: some of those that it can do.
            reason: why, as a sentence.
            finetune_id: what decided so.

        Raises:
            ModelNotFound: there is none with this id.
            ValueError: the model cannot do one of the tasks.
        """
        self.lock()  # before looking: it may be deleted at this moment
        model = self._session.get(Model, model_id, populate_existing=True)
        if model is None or model.deleted_at is not None:
            raise ModelNotFound(model_id)
        wanted = [Task(task) for task in tasks]
        for task in wanted:
            if task not in model.tasks:
                able = ", ".join(model.tasks) or "nothing"
                raise ValueError(f"model {model.name} {model.version} can do {able}, not {task}")
        for task in wanted:
            before = self._served_by(task)
            if before != model_id:
                self._serve(task, model_id)
                self._record(
                    task,
                    PromotionAction.PROMOTE,
                    model_id,
                    previous_model_id=before,
                    reason=reason,
                    finetune_id=finetune_id,
                )

    def rollback(self, model_id: UUID, *, reason: str | None = None) -> Sequence[Promotion]:
        """Bring back, for every task that a model serves, the one that served before it.

        Args:
            model_id: the model that is to serve no more.
            reason: why, as a sentence.

        Returns:
            One row for each task; its `model_id` is None if nobody served before.

        Raises:
            ModelNotFound: there is none with this id.
            IllegalRollback: it serves nothing.
        """
        if self._session.get(Model, model_id) is None:
            raise ModelNotFound(model_id)
        self.lock()
        query = select(Serving.task).where(Serving.model_id == model_id).order_by(Serving.task)
        tasks = self._session.scalars(query).all()
        if not tasks:
            raise IllegalRollback(model_id)
        changes = []
        for task in tasks:
            before = self.rolls_back_to(task)
            self._serve(task, before)
            changes.append(
                self._record(
                    task,
                    PromotionAction.ROLLBACK,
                    before,
                    previous_model_id=model_id,
                    reason=reason,
                )
            )
        return changes

    def rolls_back_to(self, task: Task) -> UUID | None:
        """Return the model that would serve a task after a rollback; None if none would."""
        pile = self._pile(task)
        return pile[-2] if len(pile) > 1 else None

    def lock(self) -> None:
        """Be the only one to change who serves, or which generation does, until the commit.

        What serves now is looked up and then replaced.
        """
        self._session.execute(text(f"SELECT pg_advisory_xact_lock({_PROMOTION_LOCK})"))

    def try_lock(self) -> bool:
        """Do as `lock`, unless somebody else is at it or waits for it; then False, at once."""
        query = f"SELECT pg_try_advisory_xact_lock({_PROMOTION_LOCK})"
        return bool(self._session.scalar(text(query)))

    def serving(self, task: Task | str) -> Model | None:
        """Find the model that serves a task; None if none was promoted for it."""
        query = select(Model).join(Serving).where(Serving.task == Task(task))
        return self._session.scalar(query)

    def all_serving(self) -> dict[Task, tuple[Model, Serving]]:
        """Find which model serves each task, and since when."""
        rows = self._session.execute(
            select(Serving, Model).join(Model).execution_options(populate_existing=True)
        )
        return {serving.task: (model, serving) for serving, model in rows}

    def fitting(self, task: Task | str, visual_sha256: str) -> Model | None:
        """Find the model for a task that can read visual tokens made by certain weights.

        That is the one that serves or, while it waits for tokens of its own, the last before it
        that fits. What was rolled back does not count.

        Args:
            task: what it is to do.
            visual_sha256: of the weights that made the tokens.
        """
        pile = self._pile(Task(task))
        query = select(Model).where(Model.id.in_(pile), Model.visual_sha256 == visual_sha256)
        fitting = {model.id: model for model in self._session.scalars(query)}
        return next((fitting[id_] for id_ in reversed(pile) if id_ in fitting), None)

    def promotions(
        self,
        task: Task | str | None = None,
        model_id: UUID | None = None,
        limit: int = 100,
    ) -> Sequence[Promotion]:
        """List changes of who serves, the latest first.

        Args:
            task: only of this one.
            model_id: only those that began or ended this model's service.
            limit: at most this many.
        """
        query = select(Promotion).order_by(Promotion.created_at.desc(), Promotion.id.desc())
        if task is not None:
            query = query.where(Promotion.task == Task(task))
        if model_id is not None:
            about = or_(Promotion.model_id == model_id, Promotion.previous_model_id == model_id)
            query = query.where(about)
        return self._session.scalars(query.limit(limit)).all()

    def state(self, model: Model) -> ModelState:
        """Return whether a model serves a task, never did, or did once."""
        return self.states([model.id])[model.id]

    def states(self, model_ids: Sequence[UUID]) -> dict[UUID, ModelState]:
        """Return for each model whether it serves a task, never did, or did once."""
        served = select(Serving.model_id).where(Serving.model_id.in_(model_ids))
        serving = set(self._session.scalars(served))
        promoted = select(Promotion.model_id).where(Promotion.model_id.in_(model_ids))
        known = set(self._session.scalars(promoted))
        return {
            id_: "serving" if id_ in serving else "retired" if id_ in known else "candidate"
            for id_ in model_ids
        }

    def _served_by(self, task: Task) -> UUID | None:
        return self._session.scalar(select(Serving.model_id).where(Serving.task == task))

    def _pile(self, task: Task) -> Sequence[UUID]:
        """List the models that were promoted for a task and not rolled back; the last serves.

        Those that were deleted since cannot come back and are left out.
        """
        query = (
            select(Promotion.action, Promotion.model_id)
            .where(Promotion.task == task)
            .order_by(Promotion.created_at, Promotion.id)
        )
        pile: list[UUID] = []
        for action, model_id in self._session.execute(query):
            if action == PromotionAction.PROMOTE and model_id is not None:
                pile.append(model_id)
            elif pile:
                pile.pop()
        deleted = set(
            self._session.scalars(
                select(Model.id).where(Model.id.in_(pile), Model.deleted_at.is_not(None))
            )
        )
        return [model_id for model_id in pile if model_id not in deleted]

    def _serve(self, task: Task, model_id: UUID | None) -> None:
        if model_id is None:
            self._session.execute(delete(Serving).where(Serving.task == task))
            return
        values = {"model_id": model_id, "promoted_at": func.clock_timestamp()}
        self._session.execute(
            insert(Serving)
            .values(task=task, **values)
            .on_conflict_do_update(index_elements=[Serving.task], set_=values)
        )

    def _record(
        self, task: Task, action: PromotionAction, model_id: UUID | None, **columns: object
    ) -> Promotion:
        promotion = Promotion(task=task, action=action, model_id=model_id, **columns)
        self._session.add(promotion)
        self._session.flush()
        self._session.refresh(promotion)
        return promotion
