"""Examples -> one batch: padded texts, and the frames of all clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipbert.training.dataset import DroppedExample, Item
from clipbert.training.losses import IGNORED
from clipbert.training.usable_videos import UnusableVideo


@dataclass(frozen=True)
class Batch:
    """What one forward pass of one process learns from. N texts of B videos, in their order.

    Attributes:
        number: of the forward pass in the run, the same in all processes.
        frames: uint8, RGB: of video after video, all of one tensor (K, T, H, W, 3), flattened.
            Empty if every example was dropped; the tensors below are then empty too.
        frame_shapes: B shapes (K, T, H, W, 3); H and W differ between videos.
        tokens: (B, K, h, w, D), of examples whose clips went through the CNN before; there are no
            frames then. None: there are frames.
        places: (B, K) float32, where in its video each clip's middle lies.
        token_ids: (N, L) int64, padded.
        mask: (N, L) int64, 1 for tokens.
        video_of_text: (N,) int64, the row of its video.
        targets: what is right, see clipbert.training.task_texts.
        word_labels: pretraining: (N, L) int64; otherwise (N, 0).
        dropped: videos that could not be decoded.
    """

    number: int
    frames: Tensor
    frame_shapes: tuple[torch.Size, ...]
    tokens: Tensor | None
    places: Tensor
    token_ids: Tensor
    mask: Tensor
    video_of_text: Tensor
    targets: Tensor
    word_labels: Tensor
    dropped: tuple[UnusableVideo, ...]

    @property
    def num_clips(self) -> int:
        """K; 0 if every example was dropped."""
        return self.places.shape[1]

    def clips(self) -> list[NDArray[np.uint8]]:
        """List B * K arrays (T, H, W, 3): the clips of video 0, then of video 1."""
        parts = self.frames.split([shape.numel() for shape in self.frame_shapes])
        videos = [
            part.view(shape).numpy() for part, shape in zip(parts, self.frame_shapes, strict=True)
        ]
        return [clip for video in videos for clip in video]


def collate(items: Sequence[Item], *, pad_id: int) -> Batch:
    """Join the examples of one forward pass; of those that were dropped only the name is kept.

    Args:
        items: at least one, of one forward pass, all of the same K and T.
        pad_id: of the tokenizer.
    """
    loaded = [item for item in items if not isinstance(item, DroppedExample)]
    frames = [item.clips.frames for item in loaded if item.clips.frames is not None]
    stored = [item.clips.tokens for item in loaded if item.clips.tokens is not None]
    dropped = tuple(item.video for item in items if isinstance(item, DroppedExample))
    rows = [row for item in loaded for row in item.texts.token_ids]
    labels = [row for item in loaded for row in item.texts.word_labels]
    nothing = torch.empty(0, dtype=torch.uint8)
    counts = torch.tensor([len(item.texts.token_ids) for item in loaded], dtype=torch.int64)
    return Batch(
        number=items[0].draw.batch,
        # One tensor, not one a video: each takes an open file on its way from a worker.
        frames=torch.cat([nothing, *(each.flatten() for each in frames)]),
        frame_shapes=tuple(each.shape for each in frames),
        tokens=torch.stack(stored) if stored else None,
        places=torch.stack([item.clips.places for item in loaded]) if loaded else torch.empty(0, 0),
        token_ids=_pad(rows, pad_id),
        mask=_pad([[1] * len(row) for row in rows], 0),
        video_of_text=torch.arange(len(loaded)).repeat_interleave(counts),
        targets=torch.cat([item.texts.targets for item in loaded]) if loaded else torch.empty(0),
        word_labels=_pad(labels, IGNORED),
        dropped=dropped,
    )


def _pad(rows: Sequence[Sequence[int]], filling: int) -> Tensor:
    length = max((len(row) for row in rows), default=0)
    padded = torch.full((len(rows), length), filling, dtype=torch.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row)
    return padded
