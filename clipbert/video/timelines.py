"""The timelines of files, each read once while the file stays as it is.

Clips of a long video are decoded a few at a time, and each time the file's clock has to be known.
"""

import os
from collections import OrderedDict
from functools import partial
from pathlib import Path
from threading import Lock

from av.container import InputContainer

from clipbert.errors import DecodeFailed
from clipbert.video.containers import open_video, opened
from clipbert.video.pes import UNPARSED
from clipbert.video.probed_video import MediaLimits
from clipbert.video.timeline import Timeline, read_timeline

_MAX_KEPT = 16
# Of a file's beginning and end, to tell it from another that took its place at the same time.
_COMPARED_BYTES = 4096

_Identity = tuple[int, int, int, int, int, bytes]


class _KeptTimelines:
    """The timelines read last, by the identity of their files."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Identity, Timeline] = OrderedDict()
        self._lock = Lock()

    def get(self, identity: _Identity) -> Timeline | None:
        with self._lock:
            timeline = self._kept.get(identity)
            if timeline is not None:
                self._kept.move_to_end(identity)
            return timeline

    def keep(self, identity: _Identity, timeline: Timeline) -> None:
        with self._lock:
            self._kept[identity] = timeline
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)


_TIMELINES = _KeptTimelines()


def timeline_of(path: Path, limits: MediaLimits, *, name: str) -> Timeline:
    """Read the times of a video's frames from its packets.

    Args:
        path: the file.
        limits: what is refused as too large.
        name: what messages call the file.

    Raises:
        DecodeFailed: there is no frame in it.
        VideoError: the file cannot be opened, or is too large.
    """
    identity = _identity_of(path)
    timeline = None if identity is None else _TIMELINES.get(identity)
    if timeline is None or len(timeline.frame_pts) > limits.max_frames:
        with open_video(path, limits, name=name) as (container, stream):
            timeline = read_timeline(
                container,
                stream,
                open_unparsed=partial(_open_unparsed, path, name),
                max_frames=limits.max_frames,
                name=name,
            )
        if identity is not None and _identity_of(path) == identity:
            _TIMELINES.keep(identity, timeline)
    if len(timeline.frame_pts) == 0:
        raise DecodeFailed(f"{name} has a video stream without frames")
    return timeline


def _open_unparsed(path: Path, name: str, container: InputContainer) -> InputContainer:
    return opened(path, container.format.name, name=name, options=UNPARSED)


def _identity_of(path: Path) -> _Identity | None:
    """Return what tells the file from others; None if there is no file, or it cannot be read."""
    if not path.is_file():  # nor a pipe that would wait for its writer
        return None
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            ends = file.read(_COMPARED_BYTES)
            file.seek(max(0, status.st_size - _COMPARED_BYTES))
            ends += file.read(_COMPARED_BYTES)
    except OSError:  # whoever opens it says why
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        ends,
    )
