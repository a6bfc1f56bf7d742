"""Clips through the CNN, and texts through the recall encoder, within a bound on memory."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipbert.errors import CheckpointError, MissingHead
from clipbert.inference.pass_sizes import by_length, most_pixels, most_tokens
from clipbert.inference.requests import EncodedClips
from clipbert.model.network import Network
from clipbert.model.pixels import clips_to_pixels
from clipbert.model.text import TextTokenizer


def encode_clips(
    network: Network, clips: Sequence[NDArray[np.uint8]], *, token_dtype: torch.dtype
) -> EncodedClips:
    """Run the CNN on clips; see ClipBert.encode_clips.

    Args:
        network: in eval mode, on its device.
        clips: N arrays (T, H, W, 3), RGB, uint8, with one T; H and W may differ.
        token_dtype: of the visual tokens.

    Raises:
        ExtremeAspectRatio: a frame is more than five times as long as wide.
        CheckpointError: visual tokens that token_dtype cannot hold.
        ValueError: no clips, or arrays of another shape or dtype.
    """
    if not clips:
        raise ValueError("encode_clips needs at least one clip")
    config, weight = network.config, next(network.parameters())
    pixels_per_clip = len(clips[0]) * config.max_side_px**2
    chunk_size = max(1, most_pixels(network) // max(1, pixels_per_clip))
    tokens, recall = [], []
    for start in range(0, len(clips), chunk_size):
        chunk = clips[start : start + chunk_size]
        pixels = clips_to_pixels(
            chunk,
            max_side_px=config.max_side_px,
            mean=config.mean,
            std=config.std,
            channel_order=config.channel_order,
            device=weight.device,
        ).to(weight.dtype)  # (N, T, 3, S, S)
        sizes = [(clip.shape[1], clip.shape[2]) for clip in chunk]
        with torch.inference_mode():
            visual, vectors = network.encode_clips(pixels, sizes)  # (N, h, w, D), (N, R)
        kept = visual.to("cpu", token_dtype)
        if not kept.isfinite().all():
            name = str(token_dtype).removeprefix("torch.")
            raise CheckpointError(f"the model's visual tokens are too large for {name}")
        tokens.append(kept)
        if vectors is not None:
            recall.append(vectors.float().cpu())
    return EncodedClips(torch.cat(tokens), torch.cat(recall) if recall else None)


def encode_texts(network: Network, tokenizer: TextTokenizer, texts: Sequence[str]) -> Tensor:
    """Return the recall vectors of Q texts, (Q, R) float32 on the CPU, of length 1.

    Raises:
        MissingHead: the network makes no recall vectors.
    """
    if network.recall_dim is None:
        raise MissingHead("recall")
    device = next(network.parameters()).device
    ids, mask = tokenizer.encode(texts, max_length=network.config.max_text_tokens)
    vectors = torch.empty(len(texts), network.recall_dim)
    chunks = by_length(mask.sum(dim=1), most_tokens(network), extra_tokens=0)
    with torch.inference_mode():
        for rows, length in chunks:
            vectors[rows] = network.encode_texts(
                ids[rows, :length].to(device), mask[rows, :length].to(device)
            ).cpu()
    return vectors
