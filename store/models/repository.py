"""Models, which of them serves what, and the generations of clips they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.counts import count_indexed_videos, read_counts
from store.errors import GenerationNotFound, ModelNotFound
from store.identifiers import new_id
from store.models.promotions import PromotedModels
from store.models.tables import Generation, GenerationState, Model
from store.table_base import Task
from store.videos.tables import SOUND_STATES

MAX_NAME_LENGTH = 100
MODEL_NAME_RULE = f"1 to {MAX_NAME_LENGTH} printable characters without @, the first not -"
MAX_INDEXED_DIM = 4000  # pgvector's bound for an HNSW index of half-precision vectors


def is_model_name(name: str) -> bool:
    """Whether a model can be called so: name@version is how people name one of several."""
    is_short = 0 < len(name.strip()) == len(name) <= MAX_NAME_LENGTH
    return is_short and name.isprintable() and "@" not in name and not name.startswith("-")


class ModelRepository(PromotedModels):
    """Every query about models; those of promotions are in PromotedModels.

    Args:
        session: in a transaction of the caller's.
    """

    def register(
        self,
        *,
        name: str,
        version: str,
        heads: Sequence[str],
        tasks: Sequence[Task | str],
        folder_key: str,
        sha256: str,
        visual_sha256: str,
        config: Mapping[str, Any],
        metrics: Mapping[str, Any] | None = None,
        parent_id: UUID | None = None,
        id: UUID | None = None,
    ) -> Model:
        """Insert a model, or find the one with this name and version.

        Args:
            name: as people call it.
            version: of the name.
            heads: those it was trained with.
            tasks: what it can be promoted for.
            folder_key: prefix of its files in the blob store.
            sha256: of its weights.
            visual_sha256: of the weights that make visual tokens; models with the same one share
                tokens.
            config: its configuration.
            metrics: how well it did.
            parent_id: what it was finetuned from.
            id: None makes one.
        """
        self._session.execute(
            insert(Model)
            .values(
                id=id or new_id(),
                name=name,
                version=version,
                heads=list(heads),
                tasks=[Task(task) for task in tasks],
                folder_key=folder_key,
                sha256=sha256,
                visual_sha256=visual_sha256,
                config=dict(config),
                metrics=dict(metrics or {}),
                parent_id=parent_id,
            )
            .on_conflict_do_nothing()
        )
        model = self.find(name, version)
        if model is None:
            raise ModelNotFound(f"{name} {version}")
        return model

    def get(self, model_id: UUID) -> Model:
        """Get a model, also a deleted one: what it made still refers to it.

        Raises:
            ModelNotFound: there has never been one with this id.
        """
        model = self._session.get(Model, model_id)
        if model is None:
            raise ModelNotFound(model_id)
        return model

    def live(self, model_id: UUID) -> Model:
        """Get a model that was not deleted.

        Raises:
            ModelNotFound: there is none with this id, or it was deleted.
        """
        model = self.get(model_id)
        if model.deleted_at is not None:
            raise ModelNotFound(model_id)
        return model

    def find(self, name: str, version: str) -> Model | None:
        """Find a model by name and version."""
        query = select(Model).where(
            Model.name == name, Model.version == version, Model.deleted_at.is_(None)
        )
        return self._session.scalar(query)

    def list(self) -> Sequence[Model]:
        """List all models, the newest first; without those that were deleted."""
        query = select(Model).where(Model.deleted_at.is_(None)).order_by(Model.id.desc())
        return self._session.scalars(query).all()


@dataclass(frozen=True)
class Coverage:
    """How much of the library a generation holds.

    Attributes:
        num_videos: videos whose files are sound.
        num_indexed: those that have clips in the generation.
    """

    num_videos: int
    num_indexed: int


class GenerationRepository:
    """Every query about generations.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def active(self) -> Generation | None:
        """Find the generation that is searched; None before the first."""
        query = select(Generation).where(Generation.state == GenerationState.ACTIVE)
        return self._session.scalar(query.execution_options(populate_existing=True))

    def get(self, generation_id: UUID) -> Generation:
        """Get a generation.

        Raises:
            GenerationNotFound: there is none with this id.
        """
        generation = self._session.get(Generation, generation_id, populate_existing=True)
        if generation is None:
            raise GenerationNotFound(generation_id)
        return generation

    def list(self) -> Sequence[Generation]:
        """List all generations, the newest first."""
        return self._session.scalars(select(Generation).order_by(Generation.id.desc())).all()

    def create(
        self,
        *,
        model_id: UUID,
        recall_model_id: UUID,
        plan: Mapping[str, Any],
    ) -> Generation:
        """Insert a generation to be filled; ensure_index makes its index.

        Args:
            model_id: makes the visual tokens.
            recall_model_id: makes the recall vectors.
            plan: the sampling plan as JSON.
        """
        generation = Generation(
            id=new_id(),
            model_id=model_id,
            recall_model_id=recall_model_id,
            plan=dict(plan),
            state=GenerationState.BUILDING,
        )
        self._session.add(generation)
        self._session.flush()
        return self.get(generation.id)

    def activate(self, generation_id: UUID) -> None:
        """Make a generation the searched one, in place of the one before, at the commit.

        Raises:
            GenerationNotFound: there is none with this id.
        """
        generation = self.get(generation_id)
        if generation.state == GenerationState.ACTIVE:
            return
        # The old one steps down first: an index allows one active generation.
        self._session.execute(
            update(Generation)
            .where(Generation.state == GenerationState.ACTIVE)
            .values(state=GenerationState.RETIRED, retired_at=func.now())
        )
        self._session.execute(
            update(Generation)
            .where(Generation.id == generation_id)
            .values(state=GenerationState.ACTIVE, activated_at=func.now(), retired_at=None)
        )

    def walking(self) -> Generation | None:
        """Find the generation with a passage to be gone on with, the searched one first."""
        query = (
            select(Generation)
            .where(Generation.walk.is_not(None))
            .order_by(Generation.state != GenerationState.ACTIVE, Generation.id.desc())
        )
        return self._session.scalar(query.limit(1).execution_options(populate_existing=True))

    def ensure_index(self, generation_id: UUID, dim: int) -> None:
        """Make the HNSW index of a generation's recall vectors, if it is not there.

        From then on vectors of another length are refused. Best made while the generation is empty:
        it then takes no time.

        Args:
            generation_id: the generation.
            dim: length of its recall vectors, 1 to 4000.

        Raises:
            ValueError: dim is out of range.
        """
        if not 1 <= dim <= MAX_INDEXED_DIM:
            raise ValueError(f"recall vectors must have 1 to {MAX_INDEXED_DIM} numbers, not {dim}")
        # Both values are parts of the index's definition, which takes no parameters.
        self._session.execute(
            text(
                f"CREATE INDEX IF NOT EXISTS {index_name(generation_id)} ON clips "
                f"USING hnsw ((vector::halfvec({int(dim)})) halfvec_cosine_ops) "
                f"WHERE generation_id = '{UUID(str(generation_id))}'"
            )
        )
        self._session.execute(
            update(Generation).where(Generation.id == generation_id).values(recall_dim=dim)
        )

    def coverage(self, generation_id: UUID) -> Coverage:
        """Return how much of the library a generation holds, from counts that are kept."""
        counts = read_counts(self._session, "videos:")
        num_videos = sum(count for state, count in counts.items() if state in SOUND_STATES)
        return Coverage(num_videos, count_indexed_videos(self._session, generation_id))


def index_name(generation_id: UUID) -> str:
    """Name the HNSW index of a generation."""
    return f"ix_clips_vector_{generation_id.hex}"
