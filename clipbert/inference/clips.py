"""The clips of one video, decoded: what is between instants and frames, and clips and pixels.

The authors' code reads JPEG by Pillow, which differs from FFmpeg: a pixel by 1.9 of 255 on the
average, mostly in how halved colours are drawn out again, and logits with it. The `authors` plan
is for figures that are compared with theirs, and so reads JPEG as they do.
"""

import math
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipbert.datasets.annotation import WHOLE, Span
from clipbert.errors import DecodeFailed, FrameDamaged
from clipbert.sampling.plan import Clip, SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.containers import sniff_format
from clipbert.video.decode import decode_frames, probe_video, stream_frames
from clipbert.video.stills import exif_orientation

_JPEG = "jpeg_pipe"


@dataclass(frozen=True)
class DecodedClips:
    """The clips of a video before a model has seen them.

    Attributes:
        clips: K clips.
        frames: for each clip its frames, uint8, (T, H, W, 3), RGB.
        duration_seconds: of the video.
    """

    clips: tuple[Clip, ...]
    frames: list[NDArray[np.uint8]]
    duration_seconds: float

    @property
    def places(self) -> tuple[float, ...]:
        """Where in the video each clip's middle lies, from 0 to 1."""
        return tuple(clip.place_in(self.duration_seconds) for clip in self.clips)

    def distinct(self) -> "DecodedClips":
        """Return the clips, but only one of a picture or of a video of one frame.

        There the others would be the same again.
        """
        if len({clip.instants for clip in self.clips}) > 1:
            return self
        return replace(self, clips=self.clips[:1], frames=self.frames[:1])


def read_clips(
    path: Path,
    plan: SamplingPlan,
    *,
    max_side_px: int,
    span: Span = WHOLE,
    num_threads: int = 0,
) -> DecodedClips:
    """Choose a video's clips and decode them; see decode_planned_clips.

    Args:
        path: the video.
        plan: how to place the clips.
        max_side_px: S of the model.
        span: the part of the video to look at.
        num_threads: of the decoder; 0 is one for each core.

    Raises:
        VideoError: one of its subclasses says what is wrong with the file.
    """
    probe = probe_video(path)
    clips = plan_clips(probe, plan, window=span.window_in(probe.duration_seconds))
    frames = decode_planned_clips(
        path, clips, plan=plan, max_side_px=max_side_px, num_threads=num_threads
    )
    return DecodedClips(tuple(clips), frames, probe.duration_seconds)


def decode_planned_clips(
    path: Path,
    clips: Sequence[Clip],
    *,
    plan: SamplingPlan,
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


def decode_clips(
    path: Path,
    clips: Sequence[Clip],
    *,
    max_side_px: int | None = None,
    num_threads: int = 0,
) -> list[NDArray[np.uint8]]:
    """Decode the frames of several clips of one video, each distinct instant once.

    Returns:
        For each clip its frames, uint8, (T, H, W, 3). Otherwise as decode_frames.
    """
    instants = sorted({instant for clip in clips for instant in clip.instants})
    frames = decode_frames(path, instants, max_side_px=max_side_px, num_threads=num_threads)
    row = {instant: index for index, instant in enumerate(instants)}
    return [frames[[row[instant] for instant in clip.instants]] for clip in clips]


def stream_clips(
    path: Path,
    clips: Sequence[Clip],
    *,
    max_side_px: int | None = None,
    num_threads: int = 0,
    name: str | None = None,
) -> Generator[tuple[Clip, NDArray[np.uint8] | FrameDamaged], None, None]:
    """Decode the clips of one video in one passage through it, and go on after damaged ones.

    As stream_frames, no frame is decoded twice, and the file is open until the iterator is used up
    or closed.

    Args:
        path: the video.
        clips: of the video.
        max_side_px: as for decode_frames.
        num_threads: as for decode_frames.
        name: what messages call the file; None for the path's own name.

    Yields:
        Each clip as soon as it is whole, in the order of the last instants: with its frames, uint8,
        (T, H, W, 3), or with what is damaged at the first such instant of the clip.

    Raises:
        FrameNotFound: an instant lies more than a frame's length past the last frame's end.
        VideoError: the file cannot be opened or decoded.
    """
    instants = tuple({instant for clip in clips for instant in clip.instants})
    waiting = deque(sorted(clips, key=lambda clip: (max(clip.instants), clip.index)))
    held: dict[float, NDArray[np.uint8] | FrameDamaged] = {}
    stream = stream_frames(
        path, instants, max_side_px=max_side_px, num_threads=num_threads, name=name
    )
    with closing(stream):
        for instant, frame in stream:
            held[instant] = frame
            while waiting and max(waiting[0].instants) <= instant:
                clip = waiting.popleft()
                yield clip, _join([held[instant] for instant in clip.instants])
            needed_from = min((min(clip.instants) for clip in waiting), default=math.inf)
            for passed in [instant for instant in held if instant < needed_from]:
                del held[passed]


def _join(frames: Sequence[NDArray[np.uint8] | FrameDamaged]) -> NDArray[np.uint8] | FrameDamaged:
    """Return the frames of a clip, (T, H, W, 3), or what is damaged first."""
    sound = []
    for frame in frames:
        if isinstance(frame, FrameDamaged):
            return frame
        sound.append(frame)
    return np.stack(sound)
