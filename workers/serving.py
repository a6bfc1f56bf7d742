"""Which models answer now. Read for every claim, so that a promotion is seen within seconds."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from store.models import GenerationRepository, ModelRepository
from store.tables import Generation, Model, Task


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
    """Say what answers now; None if there is no active generation."""
    generation = GenerationRepository(session).active()
    if generation is None:
        return None
    models = ModelRepository(session)
    own = models.get(generation.model_id)
    return Serving(
        generation=generation,
        recall=models.get(generation.recall_model_id),
        retrieval=_fitting(models.serving(Task.RETRIEVAL), own, head="retrieval"),
        qa=_fitting(models.serving(Task.QA), own, head="qa"),
        multiple_choice=_fitting(models.serving(Task.MULTIPLE_CHOICE), own, head="multiple_choice"),
    )


def _fitting(serving: Model | None, own: Model, *, head: str) -> Model | None:
    """Choose the model for a task, given the one promoted and the generation's own.

    A promoted model may look at pixels in another way than the cached tokens were made; until its
    generation is built, the model of the active one goes on.
    """
    if serving is None:
        return None
    fits = serving.visual_sha256 == own.visual_sha256
    chosen = serving if fits else own
    return chosen if head in chosen.heads else None
