"""Everything that clipbert raises on purpose.

ClipBertError
├── VideoError              one file cannot be used; `code` is its stable name
│   ├── MediaNotFound       no such file
│   ├── EmptyFile           zero bytes
│   ├── UnsupportedMedia    not a container or codec that is read here
│   ├── NoVideoStream       sound only, or a cover picture
│   ├── TruncatedMedia      the file ends before its own header says
│   ├── DecodeFailed        the pictures cannot be decoded
│   ├── FrameNotFound       the video ends before a wanted instant
│   ├── ExtremeAspectRatio  more than five times as long as wide
│   ├── MediaTooLarge       over a limit on pixels, streams, frames or length
│   ├── NoFrameCount        the header lacks a count or rate that the `authors` plan needs
│   └── ProbeTimeout        the probing process was stopped at its limit
├── CheckpointError         a model folder or checkpoint does not fit
├── ConfigError             a configuration contradicts itself
└── MissingHead             the model has no such head
"""

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
    """The file is no video or picture of a kind that is read here."""

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


class CheckpointError(ClipBertError):
    """A model folder or checkpoint does not fit: unknown or missing keys, wrong shapes."""


class ConfigError(ClipBertError):
    """A configuration contradicts itself."""


class MissingHead(ClipBertError):
    """The model has no such head, or one that was never trained."""

    def __init__(self, head: str) -> None:
        super().__init__(f"the model has no {head} head")
        self.head = head


_VIDEO_ERRORS: dict[str, type[VideoError]] = {
    error_class.code: error_class for error_class in VideoError.__subclasses__()
}
