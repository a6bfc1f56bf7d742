"""What is known of a video without decoding it."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The paper's code takes no frame whose longer side is more than this many times the shorter.
MAX_ASPECT_RATIO = 5.0


@dataclass(frozen=True)
class MediaLimits:
    """What a file may ask of us. Headers only claim; counted frames and pixels are held to it too.

    Attributes:
        max_pixels: width times height of any frame.
        max_streams: streams of video in a container.
        max_other_streams: those of sound and subtitles, and attachments, as fonts.
        max_duration_seconds: length of the video.
        max_frames: video packets of a container.
    """

    max_pixels: int = 33_177_600  # 7680 x 4320
    max_streams: int = 16
    max_other_streams: int = 256
    max_duration_seconds: float = 24 * 3600.0
    max_frames: int = 24 * 3600 * 120


@dataclass(frozen=True)
class VideoProbe:
    """One video's measures. Times are counted from its first presented frame.

    Attributes:
        duration_seconds: first frame's start to last frame's end; 0 for a still picture.
        last_frame_seconds: start of the last frame.
        width: pixels as shown, after turning.
        height: pixels as shown, after turning.
        rotation_degrees: counter-clockwise turn that the file asks for: 0, 90, 180 or 270. A
            picture that is to be mirrored as well is mirrored, left to right, before.
        average_fps: what the header says, None if it says nothing (Ogg).
        num_frames: frames counted, those that an edit list hides left out.
        header_num_frames: what the header says, 0 if it says nothing (MPEG-PS, MPEG-TS, Ogg, WebM).
        header_duration_pts: what the header says, in time_base; None in Matroska and WebM.
        time_base: seconds of one timestamp tick.
        start_pts: timestamp of the first presented frame.
        keyframe_seconds: frames that decode alone, ascending; every n-th of more than 4096.
        codec: FFmpeg's name, as `h264`.
        container: FFmpeg's first name, as `mov`.
        is_still: a single picture (JPEG, PNG, WebP).
        starts_at_seconds: what a player's clock shows at the first presented frame, as where the
            sound begins earlier. All other times count from that frame.
        mended: what of the file's clock was not believed: `joined_recordings` (it starts again,
            each part follows the one before), `damaged_timestamps` (some contradict their
            neighbours), `clock_gap` (it jumps: there are gaps), `last_duration`; and
            `unread_recordings`: more are joined to what is read of the file.
        gaps: (start, end) of each hole without pictures, ascending. No clip lies in one.
        damaged_spans: (start, end) of what is known not to be decodable, as the missing end of a
            file that is cut off; ascending. It may go beyond duration_seconds.
        frame_pts: timestamps of all frames, int64, (num_frames,), ascending. Not in the JSON form:
            a probe from JSON has none.
    """

    duration_seconds: float
    last_frame_seconds: float
    width: int
    height: int
    rotation_degrees: int
    average_fps: float | None
    num_frames: int
    header_num_frames: int
    header_duration_pts: int | None
    time_base: Fraction
    start_pts: int
    keyframe_seconds: tuple[float, ...]
    codec: str
    container: str
    is_still: bool
    starts_at_seconds: float = 0.0
    mended: tuple[str, ...] = ()
    gaps: tuple[tuple[float, float], ...] = ()
    damaged_spans: tuple[tuple[float, float], ...] = ()
    frame_pts: NDArray[np.int64] = field(
        default_factory=lambda: np.empty(0, dtype=np.int64), compare=False, repr=False
    )

    @property
    def is_partial(self) -> bool:
        """Whether parts of the file are known not to be seen."""
        return bool(self.damaged_spans) or "unread_recordings" in self.mended

    def to_json(self) -> dict[str, Any]:
        """Give all but frame_pts as a JSON object."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del fields["frame_pts"]
        fields["time_base"] = [self.time_base.numerator, self.time_base.denominator]
        fields["keyframe_seconds"] = list(self.keyframe_seconds)
        fields["mended"] = list(self.mended)
        for name in ("gaps", "damaged_spans"):
            fields[name] = [list(span) for span in fields[name]]
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "VideoProbe":
        """Rebuild a probe from to_json's object, without frame_pts; older ones lack fields."""
        return cls(
            **fields
            | {
                "time_base": Fraction(*fields["time_base"]),
                "keyframe_seconds": tuple(fields["keyframe_seconds"]),
                "mended": tuple(fields.get("mended", ())),
                "gaps": tuple((start, end) for start, end in fields.get("gaps", ())),
                "damaged_spans": tuple(
                    (start, end) for start, end in fields.get("damaged_spans", ())
                ),
            }
        )
