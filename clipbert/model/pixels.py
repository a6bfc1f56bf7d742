"""Frames -> the normalised square tensor that the backbone reads."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from clipbert.errors import ExtremeAspectRatio
from clipbert.video.probed_video import MAX_ASPECT_RATIO
from clipbert.video.resizing import fitted_size

ChannelOrder = Literal["rgb", "bgr"]
_CHANNELS = 3


def to_pixels(
    frames: NDArray[np.uint8],
    *,
    max_side_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    channel_order: ChannelOrder,
) -> Tensor:
    """Fit the frames of one clip into a square and normalise them.

    The longer side becomes max_side_px, also by enlarging; the shorter one is truncated. The
    image lies in the upper left corner, the rest is 0 before the mean is subtracted, so that
    padding is as black as a black pixel. Values stay on the 0-255 scale.

    Args:
        frames: RGB, uint8, (T, H, W, 3).
        max_side_px: S.
        mean: of the channels in RGB order, 0-255 scale, 3 numbers.
        std: of the channels in RGB order, 3 numbers.
        channel_order: of the result; the authors' backbone reads BGR.

    Returns:
        float32, (T, 3, S, S).

    Raises:
        ExtremeAspectRatio: one side is more than five times the other.
        ValueError: frames are not uint8 of shape (T, H, W, 3).

    Source: the authors' code (Lei et al., CVPR 2021): bilinear, align_corners false, no
    antialiasing, no rounding back to integers.
    """
    return clips_to_pixels(
        [frames], max_side_px=max_side_px, mean=mean, std=std, channel_order=channel_order
    )[0]


def clips_to_pixels(
    clips: Sequence[NDArray[np.uint8]],
    *,
    max_side_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    channel_order: ChannelOrder,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Fit the frames of several clips, of any sizes, into one batch.

    Args:
        clips: each uint8, (T, H, W, 3) with the same T; H and W may differ between clips.
        max_side_px: S, as in to_pixels.
        mean: as in to_pixels.
        std: as in to_pixels.
        channel_order: as in to_pixels.
        device: of the result. Frames travel there as bytes and are fitted there.

    Returns:
        float32, (K, T, 3, S, S).

    Raises:
        ExtremeAspectRatio, ValueError: as to_pixels.
    """
    _check(clips, max_side_px)
    num_frames, side = clips[0].shape[0], max_side_px
    pixels = torch.zeros(len(clips), num_frames, side, side, _CHANNELS, device=device)
    # Channels last, as frames come and as the backbone wants them: one pass, no transposing copy.
    planes = pixels.permute(0, 1, 4, 2, 3)  # (K, T, 3, S, S), a view
    for row, frames in enumerate(clips):
        height, width = fitted_size(frames.shape[1], frames.shape[2], side)
        image = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
        image = image.permute(0, 3, 1, 2)  # (T, 3, H, W)
        if image.shape[2:] != (height, width):
            image = functional.interpolate(
                image.float(), size=(height, width), mode="bilinear", align_corners=False
            )
        planes[row, :, :, :height, :width] = image
    pixels.sub_(torch.tensor(mean, dtype=torch.float32, device=device))
    pixels.div_(torch.tensor(std, dtype=torch.float32, device=device))
    if channel_order == "bgr":
        planes = planes.flip(2)
    return planes


def _check(clips: Sequence[NDArray[np.uint8]], max_side_px: int) -> None:
    if not clips:
        raise ValueError("need at least one clip")
    for frames in clips:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != _CHANNELS:  # noqa: PLR2004
            raise ValueError(f"need uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
        if 0 in frames.shape or frames.shape[0] != clips[0].shape[0]:
            raise ValueError(f"need clips of one length, got {[clip.shape for clip in clips]}")
        height, width = frames.shape[1:3]
        shorter, longer = sorted((height, width))
        # Shrinking truncates the shorter side: of 1000 x 200 it leaves 448 x 89.
        lost = 1 if longer == max_side_px else 0
        if longer > MAX_ASPECT_RATIO * (shorter + lost):
            raise ExtremeAspectRatio(f"frames of {width}x{height} are too long to be shown")
