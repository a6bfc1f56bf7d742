"""A claimed finetune and what it needs: read from its rows, checked, laid out as files."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from clipbert.errors import CheckpointError, ConfigError
from clipbert.model.config import WEIGHTS_FILE
from clipbert.model.config_json import dataclass_from_json
from clipbert.training.recipe import Recipe
from policy.finetunes.request import FinetuneGate
from store.errors import DatasetNotFound, FinetuneNotFound, GenerationNotFound, ModelNotFound
from store.labels.datasets import DatasetRepository
from store.labels.tables import Dataset
from store.models.finetunes import FinetuneRepository
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Finetune, Generation, Model
from store.table_base import Task
from workers.child.context import WorkerContext
from workers.errors import JobError
from workers.finetuning.export import DataFolder
from workers.finetuning.folder import FinetuneFolder
from workers.finetuning.mirror import Mirror
from workers.finetuning.supervision import beat
from workers.jobs.lease import RunningJob
from workers.models.local_models import find_local_folder

log = structlog.get_logger(__name__)

_HEADER_LENGTH_BYTES: Final = 8
_FLOAT32_BYTES: Final = 4
_WEIGHTS_PER_CHECKPOINT: Final = 3  # the weights and the optimiser's two moments
_GIB: Final = 2**30
_WITH_RECALL: Final = (Task.RETRIEVAL, Task.MULTIPLE_CHOICE)


@dataclass
class Work:
    """A claimed finetune.

    Attributes:
        finetune: its row.
        base: what training starts from.
        dataset: the frozen labels.
        generation: whose visual tokens are used; None if videos are decoded.
    """

    context: WorkerContext
    job: RunningJob
    finetune: Finetune
    base: Model
    dataset: Dataset
    recipe: Recipe
    gate: FinetuneGate
    folder: FinetuneFolder
    generation: Generation | None
    mirror: Mirror

    @property
    def is_frozen(self) -> bool:
        """Whether training is from stored visual tokens."""
        return self.recipe.visual == "frozen"

    @cached_property
    def data(self) -> DataFolder:
        """The labels to be trained on and the held-out ones."""
        return self._data_folder("data", self.dataset.id)

    @cached_property
    def regression_data(self) -> DataFolder | None:
        """The labels on which nothing may get worse."""
        wanted = self.gate.regression_dataset_id
        return None if wanted is None else self._data_folder("regression", wanted)

    def local_model(self, model: Model) -> Path:
        """Return a model as a folder of this machine.

        Raises:
            JobError: `model_missing`: its files are gone or changed.
        """
        try:
            return find_local_folder(
                self.context.blobs, model, folder=self.context.settings.model_cache
            )
        except CheckpointError as error:
            raise JobError("model_missing", str(error)) from error

    def recall_model(self) -> Model | None:
        """Find what makes the recall vectors."""
        with self.context.sessions.begin() as session:
            models = ModelRepository(session)
            # The vectors at hand are those of the generation, whatever serves by now.
            generation = self.generation or GenerationRepository(session).active()
            if generation is not None:
                return models.get(generation.recall_model_id)
            return models.serving(Task.RECALL)

    def active_generation(self) -> Generation:
        """Find the generation that is searched."""
        with self.context.sessions.begin() as session:
            return _active(GenerationRepository(session))

    def lay_out(self, data: DataFolder) -> None:
        """Write a data set's labels, and its tokens or links to its videos.

        Raises:
            JobError: a video can no longer be used.
        """
        data.write_labels()
        if self.generation is None:
            data.link_videos()
        else:
            data.write_tokens(self.generation.id, with_vectors=self.finetune.task in _WITH_RECALL)

    def report_stage(self, stage: str) -> None:
        """Show what the job is at, while the trainer's steps stand."""
        progress = self.folder.read_progress()
        self.context.leases.report_progress(
            self.job, done=progress.step, total=progress.total_steps or None, stage=stage
        )

    def add_event(self, type_: str, **data: object) -> None:
        """Write down something that happened."""
        self.context.leases.add_event(self.job, type_, data)

    def _data_folder(self, name: str, dataset_id: UUID) -> DataFolder:
        return DataFolder(
            self.context,
            self.folder.data / name,
            dataset_id=dataset_id,
            task=self.finetune.task,
            on_video=self.job.advance,
        )


def open_work(context: WorkerContext, job: RunningJob) -> Work:
    """Read what a claimed job wants, and make its folder this claim's own.

    Raises:
        JobLost: a newer claim has the folder.
        CancelRequested, PauseRequested, Stopping: while a checkpoint was fetched.
        JobError: what it wants is no longer there.
    """
    finetune_id = job.claim.id
    folder = FinetuneFolder(context.run_folder, finetune_id)
    folder.open(job.claim.lease_token)
    mirror = Mirror(context.blobs, finetune_id, folder, is_on=context.mirrors_runs)
    mirror.fetch(job.advance)  # which may take minutes: in no transaction
    try:
        with context.sessions.begin() as session:
            finetune, _ = FinetuneRepository(session).get(finetune_id)
            models = ModelRepository(session)
            base = models.get(finetune.base_model_id)
            dataset = DatasetRepository(session).get(finetune.dataset_id)
            recipe = dataclass_from_json(Recipe, finetune.recipe)
            generation = None
            if recipe.visual == "frozen":
                generation = _find_generation(GenerationRepository(session), folder)
                if models.get(generation.model_id).visual_sha256 != base.visual_sha256:
                    raise JobError(
                        "visual_side_differs",
                        f"{base.name} {base.version} reads pixels differently from the model that "
                        "made the visual tokens",
                    )
        gate = FinetuneGate.model_validate(finetune.gate)
    except (FinetuneNotFound, DatasetNotFound, ModelNotFound, GenerationNotFound) as error:
        raise JobError("finetune_incomplete", str(error)) from error
    except ConfigError as error:
        raise JobError("invalid_recipe", str(error)) from error
    return Work(
        context=context,
        job=job,
        finetune=finetune,
        base=base,
        dataset=dataset,
        recipe=recipe,
        gate=gate,
        folder=folder,
        generation=generation,
        mirror=mirror,
    )


def prepare(work: Work) -> None:
    """Lay out the data, and make sure that there is room for the checkpoints.

    Raises:
        JobError: `disk_full`, or a video can no longer be used.
    """
    work.report_stage("preparing")
    beat(work.context)
    labels_sha256 = work.data.write_labels()
    known = work.folder.read_state().get("labels_sha256")
    if known is not None and known != labels_sha256:
        # Videos were deleted and have come again under other ids: it is another run now.
        log.warning("finetune.begun_anew", job_id=str(work.finetune.id))
        work.folder.begin_anew()
        work.mirror.remove()
        work.data.remove_copies()
    work.folder.write_state(
        labels_sha256=labels_sha256,
        generation_id=None if work.generation is None else str(work.generation.id),
    )
    work.lay_out(work.data)
    if work.regression_data is not None:
        work.lay_out(work.regression_data)
    if not work.folder.is_trained():
        check_disk(
            work.folder,
            work.local_model(work.base) / WEIGHTS_FILE,
            checkpoints_kept=work.recipe.checkpoints_kept,
        )


def check_disk(folder: FinetuneFolder, weights: Path, *, checkpoints_kept: int) -> None:
    """Make sure that a run's checkpoints and its model have room.

    A checkpoint is written before the oldest one goes.

    Args:
        folder: what is in it already counts as there.
        weights: of the model that training starts from.
        checkpoints_kept: by the recipe.

    Raises:
        JobError: `disk_full`, with the figures.
    """
    model_bytes = count_parameters(weights) * _FLOAT32_BYTES
    needed = (checkpoints_kept + 1) * _WEIGHTS_PER_CHECKPOINT * model_bytes + model_bytes
    missing = needed - folder.size_bytes()
    free = shutil.disk_usage(folder.path).free
    if missing > free:
        raise JobError(
            "disk_full",
            f"{checkpoints_kept + 1} checkpoints and the model need {_gib(missing)} in "
            f"{folder.path}, and {_gib(free)} are free",
            detail={"needed_bytes": missing, "free_bytes": free, "folder": str(folder.path)},
        )


def count_parameters(weights: Path) -> int:
    """Count the numbers in a safetensors file, by its header."""
    with weights.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        header = json.loads(file.read(header_bytes))
    count = 0
    for name, entry in header.items():
        if name != "__metadata__":
            size = 1
            for length in entry["shape"]:
                size *= length
            count += size
    return count


def _find_generation(generations: GenerationRepository, folder: FinetuneFolder) -> Generation:
    """Find the generation that the run began with, or the active one."""
    known = folder.read_state().get("generation_id")
    return _active(generations) if known is None else generations.get(UUID(known))


def _active(generations: GenerationRepository) -> Generation:
    generation = generations.active()
    if generation is None:
        raise JobError("no_active_generation", "nothing is indexed: there are no visual tokens")
    return generation


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"
