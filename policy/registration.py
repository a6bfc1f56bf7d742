"""Put a model folder into the store and let it serve. Never imports torch.

Promotion is rows: the model that serves a task, and, if it looks at pixels in another way than the
tokens were made or makes other recall vectors, a new generation that is built in the background.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from clipbert.datasets.visible_text import has_visible_text
from clipbert.model.config import CONFIG_FILE
from policy.generations import follow_serving
from policy.library_walk import advance
from store.blobs import BlobStore
from store.database import Sessions
from store.identifiers import new_id
from store.models.deletion import ModelDeletion
from store.models.folders import hash_visual_side, list_folder, put_folder
from store.models.repository import MODEL_NAME_RULE, ModelRepository, is_model_name
from store.models.tables import Generation, Promotion
from store.table_base import Task

log = structlog.get_logger(__name__)

MINI_NAME: Final = "clipbert-mini"
_VERSION_LENGTH: Final = 12
_FOLLOW_UP_SECONDS: Final = 1.0


def register_model(
    sessions: Sessions,
    blobs: BlobStore,
    folder: Path,
    *,
    name: str,
    version: str,
    tasks: Iterable[Task | str] | None = None,
    parent_id: UUID | None = None,
) -> UUID:
    """Copy a model folder into the blob store and write its row.

    The same name and version again gives the row that is there, if the files are the same.

    Args:
        sessions: where the rows are.
        blobs: where the files go, under `models/{id}/`.
        folder: with config.json, model.safetensors and the tokenizer's files.
        name: as people call the model.
        version: of that name.
        tasks: what it can be promoted for; None for all that its trained heads can do.
        parent_id: what it was finetuned from.

    Returns:
        The model's id.

    Raises:
        InvalidModelFolder: the folder does not hold a model.
        ValueError: this name and version is another model, or the name cannot be one.
    """
    if not (is_model_name(name) and has_visible_text(name)):
        raise ValueError(f"a model cannot be called {name!r}: must be {MODEL_NAME_RULE}")
    manifest = list_folder(folder)
    with sessions.begin() as session:
        known = ModelRepository(session).find(name, version)
    if known is None:
        config = json.loads((folder / CONFIG_FILE).read_text())
        model_id = new_id()
        folder_key = f"models/{model_id}"
        put_folder(blobs, folder, folder_key=folder_key, manifest=manifest)
        with sessions.begin() as session:
            known = ModelRepository(session).register(
                id=model_id,
                name=name,
                version=version,
                heads=trained_heads(config),
                tasks=tasks_of(config) if tasks is None else [Task(task) for task in tasks],
                folder_key=folder_key,
                sha256=manifest.sha256,
                visual_sha256=hash_visual_side(folder),
                config=config,
                parent_id=parent_id,
            )
        log.info("model.registered", model=name, version=version, model_id=str(known.id))
    if known.sha256 != manifest.sha256:
        raise ValueError(f"{name} {version} is registered already with other files")
    return known.id


def promote(sessions: Sessions, model_id: UUID, tasks: Iterable[Task | str] | None = None) -> None:
    """Make a model serve, in a transaction of its own; see `promote_in`."""
    with sessions.begin() as session:
        promote_in(session, model_id, tasks=tasks)
    follow_up(sessions)


def follow_up(sessions: Sessions) -> int:
    """Do, after the commit of a promotion or rollback, what it has begun: jobs for the library.

    All of it in a small library; of a large one a part, and maintenance goes on.

    Args:
        sessions: for transactions of its own.

    Returns:
        How many jobs there are for `embed` to be rung for.
    """
    return advance(sessions, seconds=_FOLLOW_UP_SECONDS)


def promote_in(
    session: Session,
    model_id: UUID,
    *,
    tasks: Iterable[Task | str] | None = None,
    reason: str | None = None,
    finetune_id: UUID | None = None,
) -> Generation | None:
    """Make a model serve from the commit on.

    If it looks at pixels in another way than the tokens were made, it serves once its generation is
    built; until then the last model promoted before it that fits goes on.

    Args:
        session: in a transaction of the caller's; after its commit call `follow_up`.
        model_id: a registered model.
        tasks: which ones; None for all it can do.
        reason: why, as a sentence.
        finetune_id: what decided so.

    Returns:
        The generation that is to be built first; None if the model serves at once.

    Raises:
        ModelNotFound: there is none with this id.
        ValueError: the model cannot do one of the tasks, or nothing makes recall vectors yet.
    """
    models = ModelRepository(session)
    model = models.get(model_id)
    wanted = [Task(task) for task in (model.tasks if tasks is None else tasks)]
    models.promote(model_id, wanted, reason=reason, finetune_id=finetune_id)
    building = follow_serving(session)
    log.info("model.promoted", model_id=str(model_id), tasks=wanted)
    return building


def rollback_in(
    session: Session, model_id: UUID, *, reason: str | None = None
) -> Sequence[Promotion]:
    """Bring back, for every task that a model serves, the model that served before it.

    The generation that model needs is searched again from the commit on, if it is still kept.

    Args:
        session: in a transaction of the caller's; after its commit call `follow_up`.
        model_id: the model that is to serve no more.
        reason: why, as a sentence.

    Returns:
        One row for each task; its `model_id` is None if nobody served before.

    Raises:
        ModelNotFound: there is none with this id.
        IllegalRollback: it serves nothing.
        ValueError: nothing would make recall vectors then.
    """
    changes = ModelRepository(session).rollback(model_id, reason=reason)
    if any(change.task == Task.RECALL and change.model_id is None for change in changes):
        raise ValueError(
            "no model made recall vectors before this one: searches cannot do without it"
        )
    follow_serving(session)
    log.info("model.rolled_back", model_id=str(model_id), tasks=[c.task for c in changes])
    return changes


def remove_model_files(sessions: Sessions, blobs: BlobStore, *, model_id: UUID) -> None:
    """Remove the files of a deleted model, after the commit of its deletion.

    What an interruption leaves of them the sweep removes: the row says so until all are gone.

    Args:
        sessions: for transactions of its own.
        blobs: where the files are.
        model_id: of a deleted model; others are left alone.
    """
    with sessions.begin() as session:
        folders = dict(ModelDeletion(session).with_files())
    folder_key = folders.get(model_id)
    if folder_key is None:
        return
    for key in list(blobs.keys(folder_key)):
        blobs.delete(key)
    with sessions.begin() as session:
        ModelDeletion(session).note_files_removed(model_id)
    log.info("model.files_removed", model_id=str(model_id))


def ensure_default(sessions: Sessions, blobs: BlobStore, *, mini_folder: Path) -> UUID:
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
