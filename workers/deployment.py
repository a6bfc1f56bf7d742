"""Put a model folder into the store and let it serve. Never imports torch.

Promotion is rows: the model that serves a task, and, if it looks at pixels in another way than the
tokens were made or makes other recall vectors, a new generation that is built in the background.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from clipbert.sampling import INDEX_PLAN
from store.blobs import BlobStore
from store.database import Sessions
from store.identifiers import new_id
from store.jobs import JobRepository
from store.models import GenerationRepository, ModelRepository
from store.tables import Generation, GenerationState, Model, Task
from workers.generations import rebuild_jobs
from workers.model_folder import hash_visual_side, list_folder, put_folder

log = structlog.get_logger(__name__)

MINI_NAME: Final = "clipbert-mini"
_VERSION_LENGTH: Final = 12


def register_model(
    sessions: Sessions, blobs: BlobStore, folder: Path, *, name: str, version: str
) -> UUID:
    """Copy a model folder into the blob store and write its row.

    The same name and version again gives the row that is there, if the files are the same.

    Args:
        sessions: where the rows are.
        blobs: where the files go, under `models/{id}/`.
        folder: with config.json, model.safetensors and the tokenizer's files.
        name: as people call the model.
        version: of that name.

    Returns:
        The model's id.

    Raises:
        CheckpointError: the folder is no model folder.
        ValueError: this name and version is another model.
    """
    manifest = list_folder(folder)
    with sessions.begin() as session:
        known = ModelRepository(session).find(name, version)
    if known is None:
        config = json.loads((folder / "config.json").read_text())
        model_id = new_id()
        folder_key = f"models/{model_id}"
        put_folder(blobs, folder, folder_key, manifest)
        with sessions.begin() as session:
            known = ModelRepository(session).register(
                id=model_id,
                name=name,
                version=version,
                heads=trained_heads(config),
                tasks=tasks_of(config),
                folder_key=folder_key,
                sha256=manifest.sha256,
                visual_sha256=hash_visual_side(folder),
                config=config,
            )
        log.info("model.registered", model=name, version=version, model_id=str(known.id))
    if known.sha256 != manifest.sha256:
        raise ValueError(f"{name} {version} is registered already with other files")
    return known.id


def promote(sessions: Sessions, model_id: UUID, tasks: Iterable[Task | str] | None = None) -> None:
    """Let a model serve.

    Args:
        sessions: where the rows are.
        model_id: a registered model.
        tasks: which ones; None for all it can do.

    Raises:
        ModelNotFound: there is none with this id.
        ValueError: the model cannot do one of the tasks, or nothing makes recall vectors yet.
    """
    with sessions.begin() as session:
        models = ModelRepository(session)
        model = models.get(model_id)
        wanted = [Task(task) for task in (model.tasks if tasks is None else tasks)]
        models.promote(model_id, wanted)
        _follow_with_generation(session, model, wanted)
    log.info("model.promoted", model_id=str(model_id), tasks=wanted)


def ensure_default(sessions: Sessions, blobs: BlobStore, mini_folder: Path) -> UUID:
    """Make clipbert-mini serve wherever nothing does yet. A second call changes nothing.

    Args:
        sessions: where the rows are.
        blobs: where the files go.
        mini_folder: what `clipbert weights mini` built.

    Returns:
        The id of clipbert-mini.
    """
    version = list_folder(mini_folder).sha256[:_VERSION_LENGTH]
    model_id = register_model(sessions, blobs, mini_folder, name=MINI_NAME, version=version)
    with sessions.begin() as session:
        models = ModelRepository(session)
        idle = [task for task in models.get(model_id).tasks if models.serving(task) is None]
    promote(sessions, model_id, idle)
    return model_id


def trained_heads(config: Mapping[str, Any]) -> list[str]:
    """Name the heads of a model's config.json that were trained."""
    return list(config.get("trained_heads") or ())


def tasks_of(config: Mapping[str, Any]) -> list[Task]:
    """List what a model can serve: its trained heads, and recall if it makes vectors."""
    names = set(trained_heads(config))
    if not config.get("answers"):
        names.discard(Task.QA)  # it could answer nothing
    heads = [task for task in Task if task in names]
    return heads + ([Task.RECALL] if config.get("recall") else [])


def _follow_with_generation(session: Session, model: Model, tasks: Iterable[Task]) -> None:
    """Begin a generation if the active one does not fit what was promoted."""
    generations, models = GenerationRepository(session), ModelRepository(session)
    active = generations.active()
    recall = models.serving(Task.RECALL)
    if recall is None:
        raise ValueError("no model makes recall vectors: register and promote clipbert-mini first")
    is_visual = active is None or any(task != Task.RECALL for task in tasks)
    visual = model if is_visual else models.get(active.model_id) if active else model
    building = [
        generation
        for generation in generations.list()
        if generation.state == GenerationState.BUILDING
    ]
    wanted = [
        generation
        for generation in ([active] if active is not None else []) + building
        if _fits(models, generation, visual, recall)
    ]
    for generation in building:
        if generation not in wanted[:1]:
            generation.state = GenerationState.RETIRED  # overtaken before it was ever searched
    if wanted:
        return
    generation = generations.create(
        model_id=visual.id,
        recall_model_id=recall.id,
        plan=INDEX_PLAN.to_json() if active is None else active.plan,
        recall_dim=recall.config["hidden_size"],
    )
    count = JobRepository(session).enqueue_many(rebuild_jobs(session, generation.id))
    if count == 0:
        generations.activate(generation.id)
    log.info("generation.created", generation_id=str(generation.id), videos=count)


def _fits(models: ModelRepository, generation: Generation, visual: Model, recall: Model) -> bool:
    """Tell whether a generation's tokens and vectors are those that these models need."""
    own = models.get(generation.model_id)
    return own.visual_sha256 == visual.visual_sha256 and generation.recall_model_id == recall.id
