"""The two models of a generation: one makes the visual tokens, one the recall vectors.

Imports torch.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipbert.errors import FrameDamaged
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.clips import stream_clips
from clipbert.sampling.plan import Clip
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Generation
from workers.child.context import WorkerContext
from workers.errors import JobError
from workers.models.loaded_models import LoadedModels


@dataclass(frozen=True)
class ClipFrames:
    """The frames of one clip, (T, H, W, 3) uint8, at the size that each model wants."""

    for_model: NDArray[np.uint8]
    for_recall: NDArray[np.uint8]


ClipStream = Generator[tuple[Clip, ClipFrames | FrameDamaged], None, None]
"""Gives clips as they are decoded; closing it closes the file."""


@dataclass(frozen=True)
class Encoders:
    """The models of a generation; often one and the same, which then runs once."""

    generation: Generation
    model: ClipBert
    recall: ClipBert

    def stream(self, path: Path, clips: Sequence[Clip], *, name: str | None = None) -> ClipStream:
        """Decode clips for both models, each at its own size, as the library would for it alone.

        Args:
            path: the file.
            clips: of the video.
            name: what messages call the file; None for the path's own name.

        Yields:
            Each clip as soon as it is decoded, or with what is damaged; see `stream_clips`.
        """
        side, recall_side = self.model.config.max_side_px, self.recall.config.max_side_px
        for_model = stream_clips(path, clips, max_side_px=side, num_threads=1, name=name)
        if recall_side == side:
            decoded = ((clip, frames, frames) for clip, frames in for_model)
        else:
            for_recall = stream_clips(
                path, clips, max_side_px=recall_side, num_threads=1, name=name
            )
            pairs = zip(for_model, for_recall, strict=True)
            decoded = (
                (clip, frames, recall_frames) for (clip, frames), (_, recall_frames) in pairs
            )
        for clip, frames, recall_frames in decoded:
            if isinstance(frames, FrameDamaged):
                yield clip, frames
            elif isinstance(recall_frames, FrameDamaged):
                yield clip, recall_frames
            else:
                yield clip, ClipFrames(frames, recall_frames)

    def encode(self, clips: Sequence[ClipFrames]) -> list[tuple[Tensor, Tensor]]:
        """Return tokens (h, w, D) and recall vector (R,) of each clip, by one pass a model."""
        encoded = self.model.encode_clips([clip.for_model for clip in clips])
        recall = encoded.recall
        if self.recall is not self.model:
            recall = self.recall.encode_clips([clip.for_recall for clip in clips]).recall
        if recall is None:
            raise JobError("internal_error", "the generation's recall model gives no vectors")
        return list(zip(encoded.tokens, recall, strict=True))

    def cost(self, clip: ClipFrames) -> float:
        """Megapixels that the CNNs see: they letterbox every frame to a square."""
        models = {id(model): model for model in (self.model, self.recall)}.values()
        pixels = sum(model.config.max_side_px**2 for model in models)
        return len(clip.for_model) * pixels / 1e6


def open_encoders(context: WorkerContext, generation_id: UUID) -> Encoders:
    """Load the models of a generation.

    Raises:
        GenerationNotFound: there is none with this id.
        CheckpointError: a model is not what was registered.
    """
    with context.sessions.begin() as session:
        generation = GenerationRepository(session).get(generation_id)
        models = ModelRepository(session)
        rows = [models.get(id_) for id_ in (generation.model_id, generation.recall_model_id)]
    model, recall = (context.own(LoadedModels).cache.get(row) for row in rows)
    return Encoders(generation, model, recall)
