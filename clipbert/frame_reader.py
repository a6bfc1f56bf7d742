"""Walk an open video to the frames on screen at given instants, decoding as little as it takes.

A frame can only be decoded after the keyframe before it. So the instants are grouped by their
keyframes; each group costs one seek and one run of decoding.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clipbert.containers import check_pixels
from clipbert.errors import DecodeFailed, FrameDamaged, FrameNotFound
from clipbert.frame_clock import NUM_FIRST_PACKETS, FrameClock
from clipbert.packets import (
    Stamping,
    can_seek,
    from_entry,
    packets_of,
    stamp_of,
    stamping_of,
)
from clipbert.probed_video import MediaLimits
from clipbert.video.formats import ANIMATION_DEMUXERS, CLOCKLESS_DEMUXERS, STILL_DEMUXERS
from clipbert.video.streams import decoder_of

# An instant this little before a frame counts as that frame's: instants pass through decimal text.
_TOLERANCE_SECONDS = 1e-6
# Damaged packets in a run of decoding that are forgiven: broadcasts lose some.
_MAX_BAD_PACKETS = 16
# Codecs in which a frame marked as no reference is needed by no other frame at all. (HEVC means
# only frames of its own layer by that.)
_SKIPPABLE_CODECS = frozenset({"h264", "mpeg4", "mpeg1video", "mpeg2video"})
# Before a target, so many of the largest gaps seen between frames are decoded without skipping.
_UNSKIPPED_GAPS = 4
# Packets after a seek among which a keyframe must come, or the seek goes further back.
_KEYFRAME_PACKETS = 600
# Encoders that write their version into the first packet only, for decoders to work around their
# mistakes: x264's 4:4:4 video before 2017 decodes to rubbish after a seek without it.
_VERSIONED_CODECS = frozenset({"h264", "mpeg4"})
# Where to seek to for the first packet. An edit list may hide packets from before time 0 that the
# first frame is made from, and MPEG-TS goes by the time of decoding; where the first packet is at
# 0, demuxers refuse less.
_BEGINNING_PTS = -(1 << 60)
_FROM_ZERO = STILL_DEMUXERS | ANIMATION_DEMUXERS | {"avi"}
# Demuxers that cannot seek, or to whom it would be no gain.
# Demuxers that refuse to seek to a time before the first keyframe, but not to the file's beginning.
_FROM_FIRST_BYTE = CLOCKLESS_DEMUXERS | {"flv"}
_UNSEEKABLE = STILL_DEMUXERS | ANIMATION_DEMUXERS | CLOCKLESS_DEMUXERS


@dataclass(frozen=True)
class _Target:
    instant: float
    pts: int  # the frame on screen is the last one at or before this


@dataclass(frozen=True)
class _Run:
    """Targets that one stretch of decoding passes.

    Attributes:
        seek_pts: where it starts; None is the first packet.
        targets: ascending.
        skipping: pass over frames that no other needs, up to shortly before each target.
    """

    seek_pts: int | None
    targets: list[_Target]
    skipping: bool


class FrameReader:
    """Reads frames of one open video stream.

    Args:
        container: the open file.
        stream: its video stream, not yet decoded.
        limits: frames over the limit on pixels are refused.
        name: of the file, for error messages.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, *, limits: MediaLimits, name: str
    ) -> None:
        self._container, self._stream = container, stream
        self._limits, self._name = limits, name
        self._decoder = decoder_of(stream, max_pixels=2 * limits.max_pixels)
        self._seconds_per_tick = float(stream.time_base or 1)
        self._stamping = stamping_of(container, stream)
        stamps = self._read_beginning()
        self._clock = FrameClock(self._stamping, stamps)
        self._first_pts = min(stamps, default=0)
        largest_gap = max((b - a for a, b in pairwise(stamps)), default=1)
        self._unskipped_pts = _UNSKIPPED_GAPS * largest_gap
        # Where times are reckoned from one frame to the next, none may be left out.
        is_stamped = self._stamping in (Stamping.SHOWN, Stamping.DECODED)
        self._skippable = is_stamped and stream.codec_context.name in _SKIPPABLE_CODECS
        self._skip_before_pts: int | None = None

    def first_frame(self) -> VideoFrame:
        """Decode the first presented frame.

        Raises:
            DecodeFailed: no frame can be decoded, or the first one is damaged.
        """
        self._rewind()
        # An edit list may hide many frames before the first presented one.
        hidden_pts = self._first_pts - self._unskipped_pts
        self._skip_before_pts = hidden_pts if self._skippable else None
        for _, frame in self._decoded():
            if frame.is_corrupt:
                raise DecodeFailed(f"the first frame of {self._name} is damaged")
            return frame
        raise DecodeFailed(f"no frame of {self._name} can be decoded")

    def frames_on_screen(
        self, instants: Sequence[float]
    ) -> Iterator[tuple[float, VideoFrame | FrameDamaged]]:
        """Decode the frame on screen at each instant.

        Args:
            instants: seconds from the first presented frame, ascending, distinct.

        Yields:
            (instant, frame) in the order of instants; the same frame object when it is on screen
            at several of them. FrameDamaged instead, if the frame cannot be decoded whole.

        Raises:
            FrameNotFound: an instant is more than a frame's length past the last frame's end.
            DecodeFailed: a wanted frame cannot be decoded whole.
            MediaTooLarge: a frame is over the limit on pixels.
        """
        targets = [_Target(instant, self._pts_at(instant)) for instant in instants]
        for run in self._runs(targets):
            yield from self._on_screen(run)

    def _pts_at(self, instant: float) -> int:
        ticks = (instant + _TOLERANCE_SECONDS) / self._seconds_per_tick
        return self._first_pts + math.floor(ticks)

    def _read_beginning(self) -> list[int]:
        """Give the timestamps of the first packets, ascending."""
        stamps: list[int] = []
        num_packets = 0
        for index, packet in enumerate(packets_of(self._container, self._stream)):
            if index == 0 and self._stream.codec_context.name in _VERSIONED_CODECS:
                with suppress(av.error.FFmpegError):
                    packet.decode()
            if packet.size == 0 or packet.is_discard:
                continue
            stamp = stamp_of(packet, self._stamping)
            if stamp is not None:
                stamps.append(stamp)
            num_packets += 1
            if num_packets == NUM_FIRST_PACKETS:
                break
        return sorted(stamps)

    def _runs(self, targets: list[_Target]) -> list[_Run]:
        """Group targets so that no frame is decoded twice and no keyframe is passed in vain."""
        if not self._can_seek():
            return [_Run(None, targets, skipping=False)]
        runs: list[_Run] = []
        for target in targets:
            seek_pts, keyframe_pts = self._locate(target.pts)
            # Decoding on from the last target passes this keyframe or begins after it.
            if runs and (keyframe_pts is None or keyframe_pts <= runs[-1].targets[-1].pts):
                runs[-1].targets.append(target)
            else:
                runs.append(_Run(seek_pts, [target], skipping=self._skippable))
        return runs

    def _can_seek(self) -> bool:
        if self._stamping is Stamping.REORDERED or self._container.format.name in _UNSEEKABLE:
            return False
        return can_seek(self._container, self._stream)

    def _locate(self, target_pts: int) -> tuple[int | None, int | None]:
        """Find a place to seek to whose first keyframe is shown at or before the target.

        A seek may land after it: demuxers go by decoding time, which is earlier than the time of
        showing, and in MPEG streams they land on any packet. Then seek further back, in growing
        steps.
        """
        seek_pts = target_pts
        step = max(1, round(1 / self._seconds_per_tick))
        while seek_pts > self._first_pts:
            keyframe_pts = self._keyframe_after_seek(seek_pts)
            if keyframe_pts is not None and keyframe_pts <= target_pts:
                return seek_pts, keyframe_pts
            seek_pts -= step
            step *= 2
        return None, None

    def _keyframe_after_seek(self, seek_pts: int) -> int | None:
        try:
            self._container.seek(seek_pts, stream=self._stream)
            packets = packets_of(self._container, self._stream)
            packets = from_entry(
                islice(packets, _KEYFRAME_PACKETS), self._container, self._stamping
            )
            for packet in packets:
                return stamp_of(packet, self._stamping)
        except av.error.FFmpegError:  # this file cannot be searched there
            return None
        return None

    def _on_screen(self, run: _Run) -> Iterator[tuple[float, VideoFrame | FrameDamaged]]:
        self._rewind(run.seek_pts)
        targets = deque(run.targets)
        self._aim(run, targets[0])
        before: VideoFrame | None = None
        before_pts = last_gap = 0
        for pts, frame in self._decoded(after_seek=run.seek_pts is not None):
            while targets and pts > targets[0].pts:
                target = targets[0]
                if not self._is_certain(run, target, before, before_pts):
                    yield from self._on_screen(self._slower(run, targets))
                    return
                yield target.instant, self._sound(before or frame, target.instant)
                targets.popleft()
                if targets:
                    self._aim(run, targets[0])
            if not targets:
                return
            last_gap = pts - before_pts
            before, before_pts = frame, pts
        yield from self._at_the_end(run, targets, before, before_pts, last_gap)

    def _at_the_end(
        self,
        run: _Run,
        targets: deque[_Target],
        last: VideoFrame | None,
        last_pts: int,
        last_gap: int,
    ) -> Iterator[tuple[float, VideoFrame | FrameDamaged]]:
        if not self._is_certain(run, targets[-1], last, last_pts):
            yield from self._on_screen(self._slower(run, targets))
            return
        if last is None:
            raise DecodeFailed(f"no frame of {self._name} can be decoded")
        length = last.duration or last_gap or 1
        for target in targets:
            if target.pts > last_pts + 2 * length:
                end_seconds = (last_pts + length - self._first_pts) * self._seconds_per_tick
                raise FrameNotFound(target.instant, end_seconds)
            yield target.instant, self._sound(last, target.instant)

    def _aim(self, run: _Run, target: _Target) -> None:
        self._skip_before_pts = target.pts - self._unskipped_pts if run.skipping else None

    def _is_certain(
        self, run: _Run, target: _Target, frame: VideoFrame | None, frame_pts: int
    ) -> bool:
        """Say whether the slow way, from the first packet, could find another or better frame."""
        if run.skipping and (frame is None or frame_pts < target.pts - self._unskipped_pts):
            return False  # the frame on screen may be one of those skipped
        # A keyframe that did not decode alone after all.
        return run.seek_pts is None or (frame is not None and not frame.is_corrupt)

    def _slower(self, run: _Run, targets: deque[_Target]) -> _Run:
        if run.skipping:
            return _Run(run.seek_pts, list(targets), skipping=False)
        return _Run(None, list(targets), skipping=False)

    def _rewind(self, seek_pts: int | None = None) -> None:
        if self._decoder is not self._stream.codec_context and self._decoder.is_open:
            self._decoder.flush_buffers()
        if seek_pts is None and self._container.format.name in _FROM_FIRST_BYTE:
            self._container.seek(0, stream=self._stream, unsupported_byte_offset=True)
            return
        if seek_pts is None:
            seek_pts = 0 if self._container.format.name in _FROM_ZERO else _BEGINNING_PTS
        self._container.seek(seek_pts, stream=self._stream)

    def _decoded(self, *, after_seek: bool = False) -> Iterator[tuple[int, VideoFrame]]:
        """Decode on from the current position; a few bad packets are passed over."""
        self._clock.restart()
        num_bad = 0
        packets = packets_of(self._container, self._stream)
        if after_seek:
            packets = from_entry(packets, self._container, self._stamping)
        for packet in packets:
            self._skip(packet)
            try:
                frames = self._decoder.decode(packet)
            except av.error.FFmpegError as error:
                # The decoder itself refuses a picture that grew over the limit.
                context = self._stream.codec_context
                check_pixels(context.width, context.height, self._limits)
                num_bad += 1
                if num_bad > _MAX_BAD_PACKETS or isinstance(error, MemoryError):
                    raise
                continue
            for frame in frames:
                check_pixels(frame.width, frame.height, self._limits)
                stamp = stamp_of(frame, self._stamping)
                pts = self._clock.pts_of(stamp, frame.duration or 0)
                if pts is not None:
                    yield pts, frame

    def _skip(self, packet: "Packet[VideoStream]") -> None:
        limit = self._skip_before_pts
        stamp = stamp_of(packet, self._stamping)
        early = limit is not None and stamp is not None and stamp < limit
        wanted: Literal["NONREF", "DEFAULT"] = "NONREF" if early else "DEFAULT"
        context = self._stream.codec_context
        if context.skip_frame != wanted:
            context.skip_frame = wanted

    def _sound(self, frame: VideoFrame, instant: float) -> VideoFrame | FrameDamaged:
        if frame.is_corrupt:
            length = (frame.duration or 1) * self._seconds_per_tick
            return FrameDamaged(self._name, instant, instant + length)
        return frame
