"""Which models answer now. Read for every claim, so that a promotion is seen within seconds."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Generation, Model
from store.table_base import Task


@dataclass(frozen=True)
class Serving:
    """The active generation and the models that work on its tokens and vectors.

    Attributes:
        generation: whose clips are searched.
        recall: text -> vector.
        retrieval: reranks; None if no model with a trained retrieval head serves.
        qa: answers open-ended questions; None if no model with a trained head serves.
        multiple_choice: chooses; None leaves it to the recall vectors.
    """

    generation: Generation
    recall: Model
    retrieval: Model | None
    qa: Model | None
    multiple_choice: Model | None

    @property
    def models(self) -> tuple[Model, ...]:
        """All of them, each once."""
        models = (self.recall, self.retrieval, self.qa, self.multiple_choice)
        return tuple({model.id: model for model in models if model is not None}.values())


def read_serving(session: Session) -> Serving | None:
    """Return what answers now; None if there is no active generation.

    A promoted model may look at pixels in another way than the cached tokens were made. Until its
    generation is built, the last model that was promoted before it and fits goes on.
    """
    generation = GenerationRepository(session).active()
    if generation is None:
        return None
    models = ModelRepository(session)
    visual_sha256 = models.get(generation.model_id).visual_sha256

    def fitting(task: Task) -> Model | None:
        model = models.fitting(task, visual_sha256)
        return model if model is not None and task in model.heads else None

    return Serving(
        generation=generation,
        recall=models.get(generation.recall_model_id),
        retrieval=fitting(Task.RETRIEVAL),
        qa=fitting(Task.QA),
        multiple_choice=fitting(Task.MULTIPLE_CHOICE),
    )
