"""Everything that clipbert raises on purpose.

ClipBertError
├── VideoError              one file cannot be used; `code` is its stable name
│   ├── MediaNotFound       no such file
│   ├── EmptyFile           zero bytes
│   ├── UnsupportedMedia    not a container or codec that is read here
│   ├── NoVideoStream       sound only, or a cover picture
│   ├── TruncatedMedia      the file ends before its own header says
│   ├── DecodeFailed        the pictures cannot be decoded
│   │   └── FrameDamaged    those around a wanted instant cannot; others can
│   ├── FrameNotFound       the video ends before a wanted instant
│   ├── ExtremeAspectRatio  more than five times as long as wide
│   ├── MediaTooLarge       over a limit on pixels, streams, frames or length
│   ├── NoFrameCount        the header lacks a count or rate that the `authors` plan needs
│   ├── ProbeTimeout        the probing process was stopped at its limit
│   ├── TokensUnusable      stored visual tokens are missing, damaged or of another model
│   ├── OutsideVideo        what is said of a video holds only after its end
│   └── AmbiguousMedia      several files of a data set's folder have the wanted name
├── CheckpointError         a model folder or checkpoint does not fit
├── ConfigError             a configuration contradicts itself
├── AnnotationError         an annotation or answer file, or a line of it, cannot be read
├── NothingToEvaluate       none of a data set's videos can be used
├── TrainingDiverged        the loss of a training run is no longer a number
├── TrainingStopped         a training run was asked to stop, and can go on
├── FenceLost               another attempt writes in the folder now
└── MissingHead             the model has no such head
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class ClipBertError(Exception):
    """What this library raises on purpose."""


class VideoError(ClipBertError):
    """One media file cannot be used. Trying again gives the same answer."""

    code: ClassVar[str] = "video_error"

    @staticmethod
    def from_code(code: str, message: str) -> "VideoError":
        """Rebuild an error that crossed a process boundary as its code and sentence.

        An unknown code gives a plain VideoError, so an older reader survives a newer writer.
        """
        error_class = _VIDEO_ERRORS.get(code, VideoError)
        error = error_class.__new__(error_class)
        Exception.__init__(error, message)
        return error


class MediaNotFound(VideoError):
    """There is no file at the path."""

    code = "media_not_found"


class EmptyFile(VideoError):
    """The file has no bytes."""

    code = "empty_file"


class UnsupportedMedia(VideoError):
    """The file is not a video or picture of a kind that is read here."""

    code = "unsupported_media"


class NoVideoStream(VideoError):
    """The file holds no moving or still picture of its own: sound only, or a cover."""

    code = "no_video_stream"


class TruncatedMedia(VideoError):
    """The file ends before its own header says."""

    code = "truncated_media"


class DecodeFailed(VideoError):
    """The container is sound but its pictures cannot be decoded."""

    code = "decode_failed"


class FrameDamaged(DecodeFailed):
    """Nothing sound can be decoded around a wanted instant; elsewhere in the video it can.

    Attributes:
        start_seconds: where the damaged span begins, from the first presented frame; None if the
            error comes from another process.
        end_seconds: where it ends.
    """

    code = "frame_damaged"
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __init__(self, name: str, start_seconds: float, end_seconds: float) -> None:
        super().__init__(
            f"the pictures of {name} from {start_seconds:.3f} s to {end_seconds:.3f} s are damaged"
        )
        self.start_seconds, self.end_seconds = start_seconds, end_seconds

    @property
    def span(self) -> tuple[float, float]:
        """(start_seconds, end_seconds); (0, 0) if the error comes from another process."""
        return self.start_seconds or 0.0, self.end_seconds or 0.0


class FrameNotFound(VideoError):
    """The video ends before a wanted instant."""

    code = "frame_not_found"
    wanted_seconds: float | None = None
    last_seconds: float | None = None

    def __init__(self, wanted_seconds: float, last_seconds: float) -> None:
        super().__init__(f"no frame at {wanted_seconds:.3f} s: video ends at {last_seconds:.3f} s")
        self.wanted_seconds, self.last_seconds = wanted_seconds, last_seconds


class ExtremeAspectRatio(VideoError):
    """One side is more than five times the other."""

    code = "extreme_aspect_ratio"


class MediaTooLarge(VideoError):
    """The file goes over a limit on pixels, streams, frames or length."""

    code = "media_too_large"


class NoFrameCount(VideoError):
    """The header gives no frame count or frame rate, which the `authors` plan computes with."""

    code = "no_frame_count"


class ProbeTimeout(VideoError):
    """The probing process did not finish within its time."""

    code = "probe_timeout"


class TokensUnusable(VideoError):
    """The stored visual tokens of a video are missing or damaged, or do not fit the model."""

    code = "tokens_unusable"


class OutsideVideo(VideoError):
    """What is said of a video holds only from a time after its end."""

    code = "outside_video"

    def __init__(self, start_seconds: float, duration_seconds: float) -> None:
        super().__init__(f"the video ends at {duration_seconds:g} s, before {start_seconds:g} s")

    @classmethod
    def in_gap(cls, start_seconds: float, end_seconds: float) -> "OutsideVideo":
        """Make the error of a video that has no pictures from start to end."""
        error = cls.__new__(cls)
        Exception.__init__(
            error, f"the video has no pictures from {start_seconds:g} s to {end_seconds:g} s"
        )
        return error


class AmbiguousMedia(VideoError):
    """Several files of a data set's folder have the wanted name."""

    code = "ambiguous_media"
    name: str | None = None
    paths: tuple[Path, ...] = ()

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        super().__init__(f"{name} may be any of {', '.join(str(path) for path in paths)}")
        self.name, self.paths = name, tuple(paths)


class CheckpointError(ClipBertError):
    """A model folder or checkpoint does not fit: unknown or missing keys, wrong shapes."""


class ConfigError(ClipBertError):
    """A configuration contradicts itself."""


class AnnotationError(ClipBertError):
    """An annotation or answer file cannot be read.

    Attributes:
        path: the file.
        reason: what is wrong, without the place.
        line: number of the (first) wrong line, from 1; None if it is the whole file.
        field: name of the wrong field; None if it is the whole line.
    """

    def __init__(
        self, path: Path, reason: str, *, line: int | None = None, field: str | None = None
    ) -> None:
        place = str(path) if line is None else f"{path}:{line}"
        super().__init__(f"{place}: {reason}" if field is None else f"{place}: {field} {reason}")
        self.path, self.reason, self.line, self.field = path, reason, line, field


class NothingToEvaluate(ClipBertError):
    """None of a data set's videos can be used.

    Attributes:
        num_videos: how many there are.
        first: what is wrong with the first of them.
    """

    def __init__(self, num_videos: int, first: str) -> None:
        super().__init__(f"none of {num_videos} videos can be used; the first: {first}")
        self.num_videos, self.first = num_videos, first


class TrainingDiverged(ClipBertError):
    """The loss is no longer a finite number, and the weights are worth nothing.

    Attributes:
        step: at which it was noticed.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(
            f"the loss is {loss} at step {step}: the weights are worth nothing, train anew with a "
            "lower learning_rate"
        )
        self.step = step


class TrainingStopped(ClipBertError):
    """A run was asked to stop; it goes on from its last checkpoint."""

    def __init__(self) -> None:
        super().__init__("stopped, as was asked for")


class FenceLost(ClipBertError):
    """Another attempt at the same work has begun, and only that one may write.

    Attributes:
        token: of the attempt that has to give up.
    """

    def __init__(self, token: int, found: str) -> None:
        super().__init__(f"attempt {token} has lost its place: the fence says {found}")
        self.token = token


class MissingHead(ClipBertError):
    """The model has no such head, or one that was never trained."""

    def __init__(self, head: str) -> None:
        super().__init__(f"the model has no {head} head")
        self.head = head


_VIDEO_ERRORS: dict[str, type[VideoError]] = {
    error_class.code: error_class for error_class in VideoError.__subclasses__()
} | {FrameDamaged.code: FrameDamaged}
