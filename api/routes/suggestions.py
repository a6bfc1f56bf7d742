"""Active learning: which labels are worth most."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from api.dependencies import ServicesDep
from api.responses.problems import refusals
from api.schemas.resources import Page
from api.schemas.suggestions import SuggestedTask, SuggestionResource, suggestion_resource
from policy.serving import read_serving
from store.results.suggestions import SuggestionRepository
from store.results.trials import TrialSource
from store.table_base import Task

router = APIRouter(prefix="/v1/labels/suggestions", tags=["labels"])


@router.get("", response_model=Page[SuggestionResource], responses=refusals("invalid_request"))
def list_label_suggestions(
    services: ServicesDep,
    *,
    task: Annotated[
        SuggestedTask,
        Query(description="open-ended questions, or those with choices"),
    ] = "qa",
    limit: Annotated[int, Query(ge=1, le=500)] = 20,
    video_id: UUID | None = None,
    source: Annotated[
        TrialSource | None, Query(description="only what was asked, or only unlabelled videos")
    ] = None,
) -> Page[SuggestionResource]:
    """List the questions that are most worth answering, the best first.

    They come from the answers that people asked for and from questions that the service puts to
    unlabelled videos while it has nothing else to do. Worth a label is an answer that the model is
    unsure of (entropy over all answers) or that its clips disagree on. Questions that have a label
    are left out. There is one page.
    """
    with services.sessions() as session:
        found = SuggestionRepository(session).list(
            task, limit=limit, video_id=video_id, source=source
        )
        serving_id = _answering_model_id(session, Task(task))
        items = [suggestion_resource(each, serving_id=serving_id) for each in found]
    return Page(items=items, next_page_token=None)


def _answering_model_id(session: Session, task: Task) -> UUID | None:
    serving = read_serving(session)
    if serving is None:
        return None
    if task == Task.QA:
        return None if serving.qa is None else serving.qa.id
    return (serving.multiple_choice or serving.recall).id
