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
from itertools import chain, islice
from typing import Literal, Protocol

import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clipbert.errors import DecodeFailed, FrameDamaged, FrameNotFound
from clipbert.video.containers import check_pixels
from clipbert.video.damage import Damage, SoundnessLedger
from clipbert.video.formats import ANIMATION_DEMUXERS, CLOCKLESS_DEMUXERS, STILL_DEMUXERS
from clipbert.video.frame_clock import NUM_FIRST_PACKETS, FrameClock
from clipbert.video.holes import has_hole
from clipbert.video.mending import UNKNOWN
from clipbert.video.packets import (
    Stamping,
    from_entry,
    is_end,
    packets_of,
    stamp_of,
    stamping_of,
)
from clipbert.video.probed_video import MediaLimits
from clipbert.video.streams import decoder_of
from clipbert.video.timeline import Entry, Timeline

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
# Demuxers that refuse to seek to a time before the first keyframe, but not to the file's beginning.
_FROM_FIRST_BYTE = CLOCKLESS_DEMUXERS | {"flv"}
# Demuxers that cannot seek, or to whom it would be no gain.
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


class _Trouble(Exception):
    """A run of decoding in several threads met something damaged."""


class Reopen(Protocol):
    """Opens the file again, at its beginning, to be decoded in one thread."""

    def __call__(self, *, is_lenient: bool) -> tuple[InputContainer, VideoStream]:
        """Open it; a lenient decoder takes what breaks the rules of its codec in small ways."""


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
        self._container, self._stream = container, stream
        self._timeline, self._reopen = timeline, reopen
        self._limits, self._name = limits, name
        self._decoder = decoder_of(stream, max_pixels=2 * limits.max_pixels)
        self._seconds_per_tick = float(stream.time_base or 1)
        self._stamping = stamping_of(container, stream)
        self._is_careful = self._is_lenient = False
        self._beginning: tuple[int | None, int | None, int] | None = None
        stamps = self._read_beginning()
        self._clock = FrameClock(self._stamping, stamps)
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
        self._open_again()
        self._is_careful = True
        self._read_beginning()
        places = [None, *self._tried_keyframes()]
        if all(self._first_sound(place) is None for place in places):
            self._is_lenient = True
            self._open_again()
            self._read_beginning()

    def _open_again(self) -> None:
        self._container, self._stream = self._reopen(is_lenient=self._is_lenient)
        self._decoder = decoder_of(self._stream, max_pixels=2 * self._limits.max_pixels)

    def _seek(self, seek_pts: int | None) -> None:
        if self._decoder is not self._stream.codec_context and self._decoder.is_open:
            self._decoder.flush_buffers()
        if seek_pts is None and self._container.format.name in _FROM_FIRST_BYTE:
            self._container.seek(0, stream=self._stream, unsupported_byte_offset=True)
            return
        if seek_pts is None:
            seek_pts = 0 if self._container.format.name in _FROM_ZERO else _BEGINNING_PTS
        self._container.seek(seek_pts, stream=self._stream)

    def _tried_keyframes(self) -> list[int]:
        keyframes = self._timeline.keyframe_pts
        if not self._can_seek():
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

    def _read_beginning(self) -> list[int]:
        """Return the timestamps of the first packets, ascending."""
        stamps: list[int] = []
        num_packets = 0
        for index, packet in enumerate(packets_of(self._container, self._stream)):
            if index == 0:
                self._beginning = _identity(packet)
                if self._stream.codec_context.name in _VERSIONED_CODECS:
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
        if not targets:
            return []
        skipping = self._skippable and not self._is_careful
        if not self._can_seek():
            return [
                _Run(None, targets, skipping=skipping and self._timeline.packet_pts is not None)
            ]
        runs: list[_Run] = []
        for target in targets:
            seek_pts, keyframe_pts = self._locate(target.pts)
            # Decoding on from the last target passes this keyframe or begins after it.
            if runs and (keyframe_pts is None or keyframe_pts <= runs[-1].targets[-1].pts):
                runs[-1].targets.append(target)
            else:
                runs.append(_Run(seek_pts, [target], skipping=skipping))
        return runs

    def _can_seek(self) -> bool:
        """Whether a seek, which goes by the stamps in the file, finds the right place."""
        if self._stamping is Stamping.REORDERED or self._container.format.name in _UNSEEKABLE:
            return False
        return self._timeline.packet_pts is None or self._timeline.entries is not None

    def _locate(self, target_pts: int) -> tuple[int | None, int | None]:
        """Find a place to seek to whose first keyframe is shown at or before the target.

        A seek may land after it: demuxers go by decoding time, which is earlier than the time of
        showing, and in MPEG streams they land on any packet. Then seek further back, in growing
        steps.
        """
        if self._timeline.entries is not None:
            entry = self._timeline.entries.before(target_pts)
            keyframe_pts = None if entry is None else self._packet_pts(entry.row)
            return keyframe_pts, keyframe_pts
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
        for pts in reversed(frame_pts[max(start, stop - _KEYFRAME_PACKETS) : stop].tolist()):
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

    def _stamped(self, seek_pts: int | None) -> Iterator["Packet[VideoStream]"]:
        """Read on from a place, None for the first packet, each packet with its mended time."""
        entries = self._timeline.entries
        entry = None if entries is None or seek_pts is None else entries.before(seek_pts)
        if entry is not None:
            return self._mended(self._from_packet(entry), first_row=entry.row)
        if seek_pts is not None and entries is None:
            self._seek(seek_pts)
            packets = packets_of(self._container, self._stream)
            return from_entry(packets, self._container, self._stamping)
        packets = self._from_beginning()
        return packets if self._timeline.packet_pts is None else self._mended(packets)

    def _from_packet(self, entry: Entry) -> Iterator["Packet[VideoStream]"]:
        """Read on from a packet whose place in the file is known; nothing if it is not there."""
        self._container.seek(entry.seek_position, unsupported_byte_offset=True)
        packets = packets_of(self._container, self._stream)
        near = islice(packets, _KEYFRAME_PACKETS)
        found = next((packet for packet in near if packet.pos == entry.position), None)
        return iter(()) if found is None else chain([found], packets)

    def _from_beginning(self) -> Iterator["Packet[VideoStream]"]:
        """Read from the first packet.

        A seek may fail, where a track has no keyframe that is noted; it may also find another
        packet than the first. Either has moved the demuxer, and only a new one finds it.
        """
        if self._timeline.packet_pts is not None:  # nor may it find what was joined to the first
            self._open_again()
            return packets_of(self._container, self._stream)
        with suppress(av.error.FFmpegError):
            self._seek(None)
            packets = packets_of(self._container, self._stream)
            first = next(packets)
            if _identity(first) == self._beginning:
                return chain([first], packets)
        self._open_again()
        return packets_of(self._container, self._stream)

    def _packet_pts(self, row: int) -> int:
        assert self._timeline.packet_pts is not None  # noqa: S101
        return int(self._timeline.packet_pts[row])

    def _mended(
        self, packets: Iterator["Packet[VideoStream]"], *, first_row: int = 0
    ) -> Iterator["Packet[VideoStream]"]:
        """Write the timeline's times into the packets, so that their frames come out with them."""
        assert self._timeline.packet_pts is not None  # noqa: S101
        times = iter(self._timeline.packet_pts[first_row:].tolist())
        for packet in packets:
            if not is_end(packet):
                time = next(times, UNKNOWN)
                packet.pts = None if time == UNKNOWN else time
                packet.dts = None
            yield packet

    def _decoded(self, *, seek_pts: int | None = None) -> Iterator[tuple[int, VideoFrame]]:
        """Decode on from a place, None for the first packet.

        Raises:
            _Trouble: something is damaged, and several threads decode.
        """
        self._clock.restart()
        self._ledger = SoundnessLedger(has_labels=self._stamping is Stamping.SHOWN)
        for packet, following in _with_following(self._stamped(seek_pts)):
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
            context = self._stream.codec_context
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
        context = self._stream.codec_context
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


def _identity(packet: "Packet[VideoStream]") -> tuple[int | None, int | None, int]:
    return packet.pts, packet.pos, packet.size
