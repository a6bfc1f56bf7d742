"""Walk an open video to the frames on screen at given instants, decoding as little as it takes.

A frame can only be decoded after the keyframe before it. So the instants are grouped by their
keyframes; each group costs one seek and one run of decoding.

A file that decodes without trouble is decoded in several threads. At the first sign of damage it is
opened again and decoded in one, where each failure is that of the packet just fed, and an account
is kept of what is sound.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clipbert.errors import DecodeFailed, FrameDamaged, FrameNotFound
from clipbert.video.containers import check_pixels
from clipbert.video.damage import Damage, SoundnessLedger
from clipbert.video.frame_clock import NUM_FIRST_PACKETS, FrameClock
from clipbert.video.holes import has_hole
from clipbert.video.packet_source import PacketSource, Reopen
from clipbert.video.packets import (
    Stamping,
    is_end,
    stamp_of,
)
from clipbert.video.probed_video import MediaLimits
from clipbert.video.streams import decoder_of
from clipbert.video.timeline import Timeline

# An instant this little before a frame counts as that frame's: instants pass through decimal text.
_TOLERANCE_SECONDS = 1e-6
# Packets that are read ahead of decoding.
_NUM_FOLLOWING = 3
# Where no frame near the beginning is sound, so many keyframes of the video are tried.
_NUM_TRIED_KEYFRAMES = 64
_MAX_TRIED_FRAMES = 600
# Codecs in which a frame marked as no reference is needed by no other frame at all. (HEVC means
# only frames of its own layer by that.)
_SKIPPABLE_CODECS = frozenset({"h264", "mpeg4", "mpeg1video", "mpeg2video"})
# Before a target, so many of the largest gaps seen between frames are decoded without skipping.
_UNSKIPPED_GAPS = 4
# Among so many frames up to a target one that is damaged is looked for.
_MAX_LOOKED_BACK = 600


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


class _Trouble(Exception):
    """A run of decoding in several threads met something damaged."""


class FrameReader:
    """Reads frames of one open video stream.

    Args:
        container: the open file.
        stream: its video stream, not yet decoded.
        timeline: of the stream.
        reopen: opens the file again.
        limits: frames over the limit on pixels are refused.
        name: of the file, for error messages.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        *,
        timeline: Timeline,
        reopen: Reopen,
        limits: MediaLimits,
        name: str,
    ) -> None:
        self._source = PacketSource(container, stream, timeline, reopen)
        self._timeline, self._limits, self._name = timeline, limits, name
        self._decoded_stream = stream
        self._decoder = decoder_of(stream, max_pixels=2 * limits.max_pixels)
        self._seconds_per_tick = float(stream.time_base or 1)
        self._stamping = self._source.stamping
        self._is_careful = False
        self._clock = FrameClock(self._stamping, self._source.first_stamps)
        self._first_pts = int(timeline.frame_pts[0])
        steps = np.diff(timeline.frame_pts[:NUM_FIRST_PACKETS])
        self._unskipped_pts = _UNSKIPPED_GAPS * int(steps.max() if len(steps) else 1)
        # Where times are reckoned from one frame to the next, none may be left out.
        is_stamped = self._stamping in (Stamping.SHOWN, Stamping.DECODED)
        self._skippable = is_stamped and stream.codec_context.name in _SKIPPABLE_CODECS
        self._skip_before_pts: int | None = None
        self._ledger = SoundnessLedger(has_labels=is_stamped)

    def first_frame(self) -> VideoFrame:
        """Decode the first presented frame, or the first that is sound.

        Raises:
            DecodeFailed: no frame can be decoded.
        """
        try:
            # An edit list may hide many frames before the first presented one.
            hidden_pts = self._first_pts - self._unskipped_pts
            self._skip_before_pts = hidden_pts if self._skippable else None
            for _, frame in self._decoded():
                return frame
        except _Trouble:
            self._be_careful()
            places = [None, *self._tried_keyframes()]
            for seek_pts in places:
                sound = self._first_sound(seek_pts)
                if sound is not None:
                    return sound
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
            DecodeFailed: no frame can be decoded at all.
            MediaTooLarge: a frame is over the limit on pixels.
        """
        targets = [_Target(instant, self._pts_at(instant)) for instant in instants]
        num_found = 0
        try:
            for found in self._found(targets):
                yield found
                num_found += 1
        except _Trouble:
            self._be_careful()
            yield from self._found(targets[num_found:])

    def _found(self, targets: list[_Target]) -> Iterator[tuple[float, VideoFrame | FrameDamaged]]:
        for run in self._runs(targets):
            yield from self._on_screen(run)

    def _pts_at(self, instant: float) -> int:
        ticks = (instant + _TOLERANCE_SECONDS) / self._seconds_per_tick
        return self._first_pts + math.floor(ticks)

    def _be_careful(self) -> None:
        """Decode from now on in one thread, in which a failure is that of the packet just fed.

        Of a file in which nothing is sound to a strict decoder, a lenient one is asked: then it is
        its writer that breaks the rules.
        """
        self._source.open_again(is_lenient=False)
        self._is_careful = True
        places = [None, *self._tried_keyframes()]
        if all(self._first_sound(place) is None for place in places):
            self._source.open_again(is_lenient=True)

    def _tried_keyframes(self) -> list[int]:
        keyframes = self._timeline.keyframe_pts
        if not self._source.can_seek:
            return []
        step = max(1, len(keyframes) // _NUM_TRIED_KEYFRAMES)
        return [int(pts) for pts in keyframes[::step]]

    def _first_sound(self, seek_pts: int | None) -> VideoFrame | None:
        with suppress(av.error.FFmpegError):
            for pts, frame in islice(self._decoded(seek_pts=seek_pts), _MAX_TRIED_FRAMES):
                if self._ledger.damage_at(pts) is None:
                    return frame
                if seek_pts is not None:
                    return None
        return None

    def _runs(self, targets: list[_Target]) -> list[_Run]:
        """Group targets so that no frame is decoded twice and no keyframe is passed in vain."""
        if not targets:
            return []
        skipping = self._skippable and not self._is_careful
        if not self._source.can_seek:
            return [
                _Run(None, targets, skipping=skipping and self._timeline.packet_pts is not None)
            ]
        runs: list[_Run] = []
        for target in targets:
            seek_pts, keyframe_pts = self._source.locate(target.pts)
            # Decoding on from the last target passes this keyframe or begins after it.
            if runs and (keyframe_pts is None or keyframe_pts <= runs[-1].targets[-1].pts):
                runs[-1].targets.append(target)
            else:
                runs.append(_Run(seek_pts, [target], skipping=skipping))
        return runs

    def _on_screen(self, run: _Run) -> Iterator[tuple[float, VideoFrame | FrameDamaged]]:
        targets = deque(run.targets)
        self._aim(run, targets[0])
        before: tuple[int, VideoFrame] | None = None
        held: list[tuple[_Target, Damage]] = []
        for pts, frame in self._decoded(seek_pts=run.seek_pts):
            while targets and pts > targets[0].pts:
                target = targets[0]
                if not self._is_certain(run, target, before):
                    yield from self._on_screen(self._slower(run, targets))
                    return
                damage = self._damage_of(target, before)
                if damage is not None:
                    held.append((target, damage))
                else:
                    yield from self._flushed(held)
                    yield target.instant, before[1] if before else frame
                targets.popleft()
                if targets:
                    self._aim(run, targets[0])
            if not self._ledger.is_open:
                yield from self._flushed(held)
            if not targets and not held:
                return
            before = pts, frame
        yield from self._at_the_end(run, targets, held, before)

    def _at_the_end(
        self,
        run: _Run,
        targets: deque[_Target],
        held: list[tuple[_Target, Damage]],
        last: tuple[int, VideoFrame] | None,
    ) -> Iterator[tuple[float, VideoFrame | FrameDamaged]]:
        if targets and not self._is_certain(run, targets[-1], last):
            yield from self._on_screen(self._slower(run, targets))
            return
        end_pts = self._end_pts(last)
        for target in targets:
            if target.pts > end_pts[1]:
                yield from self._flushed(held)
                end_seconds = (end_pts[0] - self._first_pts) * self._seconds_per_tick
                raise FrameNotFound(target.instant, end_seconds)
            damage = self._damage_of(target, last)
            if damage is not None:
                held.append((target, damage))
            elif last is None:
                raise DecodeFailed(f"no frame of {self._name} can be decoded")
            else:
                yield from self._flushed(held)
                yield target.instant, last[1]
        yield from self._flushed(held)

    def _end_pts(self, last: tuple[int, VideoFrame] | None) -> tuple[int, int]:
        """Return where the video ends, and up to where its last frame is still given."""
        frame_pts = self._timeline.frame_pts
        last_pts = int(frame_pts[-1])
        if last is not None and not self._ledger.damages:
            last_pts = last[0]
        length = self._timeline.last_duration_pts or 1
        return last_pts + length, last_pts + 2 * length

    def _damage_of(self, target: _Target, before: tuple[int, VideoFrame] | None) -> Damage | None:
        """Return what damaged the frame on screen at a target; it is not `before` if it is lost."""
        if not self._ledger.damages:
            return None
        frame_pts = self._timeline.frame_pts
        stop = int(np.searchsorted(frame_pts, target.pts, side="right"))
        start = 0 if before is None else int(np.searchsorted(frame_pts, before[0], side="left"))
        for pts in reversed(frame_pts[max(start, stop - _MAX_LOOKED_BACK) : stop].tolist()):
            damage = self._ledger.damage_at(pts)
            if damage is not None:
                return damage
        return None if before is None else self._ledger.damage_at(before[0])

    def _flushed(
        self, held: list[tuple[_Target, Damage]]
    ) -> Iterator[tuple[float, VideoFrame | FrameDamaged]]:
        """Return the damaged targets, now that the damage's end is known."""
        video_end = int(self._timeline.frame_pts[-1]) + self._timeline.last_duration_pts
        for target, damage in held:
            end_pts = video_end if damage.end_pts is None else damage.end_pts
            start_pts = min(damage.start_pts, target.pts)
            yield (
                target.instant,
                FrameDamaged(
                    self._name,
                    max(0.0, (start_pts - self._first_pts) * self._seconds_per_tick),
                    max(target.instant, (end_pts - self._first_pts) * self._seconds_per_tick),
                ),
            )
        held.clear()

    def _aim(self, run: _Run, target: _Target) -> None:
        self._skip_before_pts = target.pts - self._unskipped_pts if run.skipping else None

    def _is_certain(
        self, run: _Run, target: _Target, before: tuple[int, VideoFrame] | None
    ) -> bool:
        """Whether the slow way, from the first packet, could find another or better frame."""
        if run.skipping and (before is None or before[0] < target.pts - self._unskipped_pts):
            return False  # the frame on screen may be one of those skipped
        # A keyframe that did not decode alone after all.
        return run.seek_pts is None or before is not None or bool(self._ledger.damages)

    def _slower(self, run: _Run, targets: deque[_Target]) -> _Run:
        if run.skipping:
            return _Run(run.seek_pts, list(targets), skipping=False)
        return _Run(None, list(targets), skipping=False)

    def _decoded(self, *, seek_pts: int | None = None) -> Iterator[tuple[int, VideoFrame]]:
        """Decode on from a place, None for the first packet.

        Raises:
            _Trouble: something is damaged, and several threads decode.
        """
        self._clock.restart()
        self._ledger = SoundnessLedger(has_labels=self._stamping is Stamping.SHOWN)
        packets = self._source.read_from(seek_pts)
        self._renew_decoder()
        for packet, following in _with_following(packets):
            self._skip(packet)
            for frame in self._frames_of(packet, following):
                check_pixels(frame.width, frame.height, self._limits)
                stamp = stamp_of(frame, self._stamping)
                pts = self._clock.pts_of(stamp, frame.duration or 0)
                if pts is None:
                    continue
                if frame.is_corrupt and not self._is_careful:
                    raise _Trouble
                self._ledger.show(pts, frame)
                yield pts, frame

    def _renew_decoder(self) -> None:
        """Take the decoder of the file as it is open now, and one without frames of before."""
        stream = self._source.stream
        if stream is not self._decoded_stream:
            self._decoded_stream = stream
            self._decoder = decoder_of(stream, max_pixels=2 * self._limits.max_pixels)
        elif self._decoder is not stream.codec_context and self._decoder.is_open:
            self._decoder.flush_buffers()  # its own one a seek has flushed

    def _frames_of(
        self, packet: "Packet[VideoStream]", following: Sequence["Packet[VideoStream]"]
    ) -> list[VideoFrame]:
        if not is_end(packet):
            stamp = stamp_of(packet, self._stamping)
            self._ledger.feed(stamp, is_keyframe=packet.is_keyframe)
        # Where recordings were joined a keyframe follows; FFmpeg takes the joint for a loss.
        is_lossy = packet.is_corrupt and not any(later.is_keyframe for later in following)
        is_lossy = is_lossy or has_hole(packet)
        try:
            frames = self._decoder.decode(packet)
        except av.error.FFmpegError as error:
            # The decoder itself refuses a picture that grew over the limit.
            context = self._source.stream.codec_context
            check_pixels(context.width, context.height, self._limits)
            if isinstance(error, MemoryError):
                raise
            frames, is_lossy = [], True
        if is_lossy:
            if not self._is_careful:
                raise _Trouble
            self._ledger.fail()
        return frames

    def _skip(self, packet: "Packet[VideoStream]") -> None:
        limit = self._skip_before_pts
        stamp = stamp_of(packet, self._stamping)
        early = limit is not None and stamp is not None and stamp < limit
        wanted: Literal["NONREF", "DEFAULT"] = "NONREF" if early else "DEFAULT"
        context = self._source.stream.codec_context
        if context.skip_frame != wanted:
            context.skip_frame = wanted


def _with_following(
    packets: Iterator["Packet[VideoStream]"],
) -> Iterator[tuple["Packet[VideoStream]", Sequence["Packet[VideoStream]"]]]:
    """Give each packet with the few that come after it."""
    waiting: deque[Packet[VideoStream]] = deque()
    for packet in packets:
        waiting.append(packet)
        if len(waiting) > _NUM_FOLLOWING:
            yield waiting.popleft(), tuple(waiting)
    while waiting:
        yield waiting.popleft(), tuple(waiting)
