"""A small library with stored tokens that a model can learn from in seconds, and its finetunes."""

import dataclasses
import json
from pathlib import Path
from uuid import UUID

import torch

from clipbert.training.finetune_recipes import default_recipe
from policy.finetunes.request import FinetuneGate
from policy.registration import ensure_default
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.jobs.tables import Job, JobEvent
from store.labels.datasets import DatasetRepository
from store.labels.repository import LabelFilter, LabelRepository, NewLabel
from store.models.finetunes import FinetuneRepository
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Finetune
from store.videos.records import NewClip
from store.videos.repository import VideoRepository
from tests.workers.service import Service
from tests.workers.small_models import save_recall_model
from workers.models.token_cache import put_tokens, tokens_key

COLOURS = ("red", "green", "blue")
CLIPS, GRID, WIDTH = 3, (2, 2), 48  # of clipbert-tiny
# Small and quick: the point of these tests is what surrounds the training.
RECIPE = {
    "steps": 40,
    "videos_per_step": 8,
    "videos_per_forward": 4,
    "clips": 2,
    "learning_rate": 3e-3,
    "checkpoint_steps": 20,
    "checkpoint_seconds": None,
    "log_steps": 5,
    "precision": "fp32",
}


def add_library(service: Service, folder: Path, *, num_train: int = 24, num_holdout: int = 8):
    """Register the default model and index videos whose tokens tell their colour.

    Without held-out labels a finetune starts no scorer: to load torch once more takes longer than
    to train.
    """
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(folder / "recall")
    )
    generator = torch.Generator().manual_seed(0)
    looks = torch.randn(len(COLOURS), WIDTH, generator=generator)
    with service.sessions.begin() as session:
        generation = GenerationRepository(session).active()
        videos, labels = VideoRepository(session), LabelRepository(session)
        new = []
        for index in range(num_train + num_holdout):
            video, _ = videos.create(
                uri=f"file:///v{index}.mp4",
                sha256=f"{index:064x}",
                probe={"duration_seconds": 3.0},
            )
            colour = index % len(COLOURS)
            noise = torch.randn(CLIPS, *GRID, WIDTH, generator=generator)
            key = tokens_key(generation.id, video.id)
            put_tokens(service.blobs, key, tokens=(looks[colour] + 0.3 * noise).half())
            vector = torch.nn.functional.normalize(looks[colour] + 0.1 * noise[0, 0, 0], dim=0)
            clips = [
                NewClip(clip, float(clip), clip + 1.0, [clip + 0.5], vector.tolist(), key)
                for clip in range(CLIPS)
            ]
            videos.replace_clips(video.id, generation.id, clips=clips)
            videos.mark_ready(video.id)
            split = "train" if index < num_train else "holdout"
            question = "What colour is it?"
            new.append(NewLabel(video.id, "qa", question, answer=COLOURS[colour], split=split))
        added = labels.add_many(new)
    assert added.num_inserted == len(new)
    return generation


def ask_for_finetune(
    service: Service,
    *,
    task: str = "qa",
    gate: FinetuneGate | None = None,
    **recipe: object,
) -> UUID:
    """Write the rows that a checked request leaves."""
    gate = gate or FinetuneGate(min_holdout=4)
    with service.sessions.begin() as session:
        generation = GenerationRepository(session).active()
        dataset = DatasetRepository(session).freeze(task, LabelFilter(task=task))
        fields = dataclasses.asdict(default_recipe(task, dataset.num_train)) | RECIPE | recipe
        job = JobRepository(session).enqueue(NewJob(JobKind.FINETUNE, {"task": task}))
        FinetuneRepository(session).create(
            job,
            name=f"clipbert-{task}",
            task=task,
            base_model_id=generation.model_id,
            dataset_id=dataset.id,
            recipe=json.loads(json.dumps(fields)),
            gate=gate.model_dump(mode="json"),
            request={"task": task},
        )
    return job.id


def read_finetune(service: Service, finetune_id: UUID) -> tuple[Finetune, Job]:
    with service.sessions.begin() as session:
        return FinetuneRepository(session).get(finetune_id)


def events_of(service: Service, finetune_id: UUID, type_: str | None = None) -> list[JobEvent]:
    with service.sessions.begin() as session:
        events = JobRepository(session).events(finetune_id)
    return [event for event in events if type_ in (None, event.type)]


def serving_model(service: Service, task: str = "qa"):
    with service.sessions.begin() as session:
        return ModelRepository(session).serving(task)


def weights_of(service: Service, finetune_id: UUID) -> bytes:
    """Read the weights of the model that came of a finetune."""
    finetune, _ = read_finetune(service, finetune_id)
    with service.sessions.begin() as session:
        model = ModelRepository(session).get(finetune.model_id)
    with service.blobs.open_read(f"{model.folder_key}/model.safetensors") as file:
        return file.read()


def run_folder(service: Service, finetune_id: UUID) -> Path:
    return service.blob_folder / "runs" / str(finetune_id)
