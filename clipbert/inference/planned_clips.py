"""Clips as a plan looks at them; the authors' reads JPEG by Pillow, which differs from FFmpeg.

A pixel differs by 1.9 of 255 on the average, mostly in how halved colours are drawn out again, and
logits with it. The `authors` plan is for figures that are compared with theirs.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipbert.errors import DecodeFailed
from clipbert.sampling.plan import Clip, SamplingPlan
from clipbert.video.containers import sniff_format
from clipbert.video.decode import decode_clips
from clipbert.video.stills import exif_orientation

_JPEG = "jpeg_pipe"


def decode_planned_clips(
    path: Path,
    clips: Sequence[Clip],
    plan: SamplingPlan,
    *,
    max_side_px: int,
    num_threads: int = 0,
) -> list[NDArray[np.uint8]]:
    """Decode the frames of clips as a model that looks by this plan sees them.

    Frames are shrunk in the decoder's colour conversion. The authors' plan keeps them whole: their
    code shrinks them later, without smoothing, and a pixel's value depends on it. JPEG pictures are
    then decoded by Pillow, as theirs are.

    Args:
        path: a video or picture that was probed, and so is within the limits on size.
        clips: of the plan.
        plan: how they were placed.
        max_side_px: S of the model.
        num_threads: of the decoder; 0 is one for each core.

    Returns:
        For each clip its frames, uint8, (T, H, W, 3), RGB.

    Raises:
        VideoError: the file cannot be read.
    """
    if plan.name != "authors":
        return decode_clips(path, clips, max_side_px=max_side_px, num_threads=num_threads)
    if sniff_format(path) != _JPEG:
        return decode_clips(path, clips, num_threads=num_threads)
    try:
        with Image.open(path, formats=["JPEG", "MPO"]) as picture:
            pixels = np.asarray(picture.convert("RGB"))  # (H, W, 3)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DecodeFailed(f"{path.name} cannot be read: {error}") from error
    orientation = exif_orientation(path, _JPEG)
    if orientation is not None:
        pixels = orientation.show(pixels)
    return [np.stack([pixels] * len(clip.instants)) for clip in clips]
