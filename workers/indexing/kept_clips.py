"""Clips that are finished before their video is: kept for the next worker. Imports torch."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from sqlalchemy.orm import Session
from torch import Tensor

from clipbert.sampling.plan import Clip
from store.jobs.pieces import JobPieces, Piece

Encoded = tuple[Tensor, Tensor]
"""Visual tokens, (h, w, D) float16, and recall vector, (R,) float32, of a clip."""

_INDICES: Final = "indices"
_TOKENS: Final = "tokens"
_VECTORS: Final = "vectors"


def about_clips(generation_id: UUID, clips: Sequence[Clip]) -> dict[str, Any]:
    """Return what the clips of a video are made from: of another plan they are worth nothing."""
    instants = hashlib.sha256(repr([clip.instants for clip in clips]).encode()).hexdigest()
    return {"generation_id": str(generation_id), "instants": instants}


def pack_clips(about: Mapping[str, Any], encoded: Mapping[int, Encoded]) -> Piece:
    """Make a piece of some finished clips.

    Args:
        about: as about_clips gives it.
        encoded: by clip index; not empty.
    """
    content = save(
        {
            _INDICES: torch.tensor(list(encoded), dtype=torch.int32),
            _TOKENS: torch.stack([tokens for tokens, _ in encoded.values()]),
            _VECTORS: torch.stack([vector for _, vector in encoded.values()]),
        }
    )
    return Piece(dict(about), content)


def read_kept_clips(
    session: Session, job_id: UUID, *, about: Mapping[str, Any]
) -> dict[int, Encoded]:
    """Read the clips that the workers before have finished, by index."""
    kept: dict[int, Encoded] = {}
    for piece in JobPieces(session).list(job_id):
        if piece.about != dict(about):
            continue
        try:
            tensors = load(piece.content)
        except SafetensorError:  # then they are made again
            continue
        rows = zip(tensors[_TOKENS], tensors[_VECTORS], strict=True)
        kept.update(zip(tensors[_INDICES].tolist(), rows, strict=True))
    return kept
