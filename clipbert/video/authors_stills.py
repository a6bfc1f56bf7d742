"""JPEG pictures as the authors read them: by Pillow, whose decoder differs from FFmpeg's.

A pixel differs by 1.9 of 255 on the average, mostly in how halved colours are drawn out again, and
logits with it. The `authors` plan is for figures that are compared with theirs.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipbert.containers import sniff_format
from clipbert.errors import DecodeFailed
from clipbert.pictures import exif_orientation
from clipbert.sampling import Clip
from clipbert.video.decode import decode_clips

_JPEG = "jpeg_pipe"


def decode_authors_clips(
    path: Path, clips: Sequence[Clip], *, num_threads: int = 0
) -> list[NDArray[np.uint8]]:
    """Decode the frames of clips whole, as the authors' code sees them.

    Args:
        path: a video or picture that was probed, and so is within the limits on size.
        clips: of the `authors` plan.
        num_threads: of the decoder; 0 is one for each core.

    Returns:
        For each clip its frames, uint8, (T, H, W, 3), RGB: a JPEG by Pillow, all else as
        decode_clips.

    Raises:
        VideoError: the file cannot be read.
    """
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
