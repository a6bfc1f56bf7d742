"""Read the times of a stream's frames from its packets, without decoding."""

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from clipbert.errors import MediaTooLarge
from clipbert.video.frame_clock import NUM_FIRST_PACKETS, FrameClock
from clipbert.video.mending import UNKNOWN, ClockTraits, MendedClock, gaps_of, jump_of, mend
from clipbert.video.outliers import Ticks
from clipbert.video.packets import Stamping, clock_traits, is_end, packets_of, stamp_of, stamping_of
from clipbert.video.pes import PES_DEMUXERS, Pictures, read_pes
from clipbert.video.pes_clock import restamped
from clipbert.video.streams import demuxer_name

_IS_FRAME, _IS_KEY = 1, 2
# So many packets before a keyframe are looked at for one whose place is known.
_MAX_UNPLACED = 1000
# A last frame that is shown no longer than this, or ten times the longest other, is believed.
_LONG_SECONDS = 10
# A last frame that is shown for less than a part of the shortest other has no duration of its own.
_SHORT_PARTS = 10
# One that is shown longer than this and so many times all others is not, whatever the track says.
_ABSURD_SHARE = 100
_ABSURD_SECONDS = 3600


@dataclass(frozen=True)
class Stamps:
    """What the packets of a stream state, in the order of reading: int64 each, flags uint8.

    Attributes:
        positions: in the file, negative where unknown.
    """

    pts: Ticks
    dts: Ticks
    durations: Ticks
    positions: NDArray[np.int64]
    flags: NDArray[np.uint8]

    @property
    def is_frame(self) -> NDArray[np.bool_]:
        """Which packets are frames that are shown."""
        return (self.flags & _IS_FRAME) > 0

    @property
    def is_key(self) -> NDArray[np.bool_]:
        """Which packets decode alone."""
        return (self.flags & _IS_KEY) > 0


@dataclass(frozen=True)
class Entry:
    """A keyframe of a file whose packets are found by their places, and not by their stamps.

    Attributes:
        row: of its packet, in the order of reading.
        position: of it in the file, in bytes.
        seek_position: an earlier packet's: reading that begins in the middle of a frame may take
            the rest of that for a part of the next.
    """

    row: int
    position: int
    seek_position: int


@dataclass(frozen=True)
class Entries:
    """Where reading may begin, ascending.

    Attributes:
        pts: int64 (N,), when their frames are shown.
        rows: int64 (N,), of their packets.
        positions: int64 (M,), of all packets, negative where unknown.
    """

    pts: Ticks
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]

    def before(self, pts: int) -> Entry | None:
        """Return the last that is shown at or before a time; None if that is the file's first."""
        place = int(np.searchsorted(self.pts, pts, side="right")) - 1
        if place < 0:
            return None
        row = int(self.rows[place])
        position = int(self.positions[row])
        earlier = self.positions[max(0, row - _MAX_UNPLACED) : row]
        earlier = earlier[(earlier >= 0) & (earlier < position)]
        return Entry(row, position, int(earlier.max())) if len(earlier) else None


@dataclass(frozen=True)
class Timeline:
    """The timestamps of a stream's frames.

    Attributes:
        stamping: what the stream tells of them.
        frame_pts: int64, ascending, those of hidden frames (edit lists) left out.
        keyframe_pts: int64, ascending.
        last_duration_pts: length of the last frame.
        codes: what was mended, as VideoProbe.mended.
        gaps: (start, end) of holes, in ticks.
        packet_pts: the time of each packet, in the order of reading, UNKNOWN where it has none;
            None if they are those that are stated.
        entries: of a file with packet_pts; None if only its beginning can be found.
    """

    stamping: Stamping
    frame_pts: NDArray[np.int64]
    keyframe_pts: NDArray[np.int64]
    last_duration_pts: int
    codes: tuple[str, ...] = ()
    gaps: tuple[tuple[int, int], ...] = ()
    packet_pts: Ticks | None = None
    entries: Entries | None = None

    def as_shown(self, first_frame: VideoFrame) -> "Timeline":
        """Turn the times of decoding of REORDERED frames into those of showing.

        Args:
            first_frame: what the decoder gives first. How many packets it took tells how far
                showing lags behind.
        """
        if self.stamping is not Stamping.REORDERED:
            return self
        decoded = self.frame_pts.tolist()
        clock = FrameClock(self.stamping, decoded[:NUM_FIRST_PACKETS])
        stamp = stamp_of(first_frame, self.stamping)
        num_waited = len(decoded) if stamp is None else int(np.searchsorted(self.frame_pts, stamp))
        brought_out = decoded[num_waited:] + [None] * num_waited
        shown = np.array([clock.pts_of(stamp) for stamp in brought_out], dtype=np.int64)
        keyframe_rows = np.searchsorted(self.frame_pts, self.keyframe_pts)
        return replace(self, frame_pts=shown, keyframe_pts=shown[keyframe_rows])


def read_timeline(
    container: InputContainer,
    stream: VideoStream,
    *,
    open_unparsed: Callable[[InputContainer], InputContainer],
    max_frames: int,
    name: str,
) -> Timeline:
    """Read all packets of a stream from its beginning.

    Args:
        container: the open file.
        stream: of it.
        open_unparsed: opens the same file once more, with pes.UNPARSED.
        max_frames: more are refused.
        name: what messages call the file.

    Raises:
        MediaTooLarge: there are more than max_frames.
    """
    stamping = stamping_of(container, stream)
    pts, dts, durations, positions = array("q"), array("q"), array("q"), array("q")
    flags = bytearray()
    has_pes = demuxer_name(container) in PES_DEMUXERS
    pictures = Pictures(stream.codec_context.name) if has_pes else None
    for packet in packets_of(container, stream):
        if is_end(packet):
            continue
        is_frame = packet.size > 0 and not packet.is_discard
        if len(pts) >= max_frames and is_frame:
            raise MediaTooLarge(f"{name} has more than {max_frames} frames")
        stamp = stamp_of(packet, stamping)
        pts.append(UNKNOWN if stamp is None else stamp)
        dts.append(UNKNOWN if packet.dts is None or stamp is None else packet.dts)
        durations.append(packet.duration or 0)
        positions.append(-1 if packet.pos is None else packet.pos)
        flags.append(is_frame | packet.is_keyframe << 1)
        if pictures is not None and packet.size:
            pictures.add(memoryview(packet))
    stamps = Stamps(
        np.array(pts),
        np.array(dts),
        np.array(durations),
        np.array(positions),
        np.frombuffer(bytes(flags), np.uint8),
    )
    traits = clock_traits(container, stream, stamping)
    clock = None
    if traits is not None and pictures is not None and pictures.may_share(stamps.positions):
        with open_unparsed(container) as unparsed:
            pes = read_pes(unparsed, stream.index)
        clock = restamped(pictures, pes, stamps.durations, stamps.is_key, traits)
    if traits is not None and clock is None and stamps.is_frame.any():
        clock = _mended(stamps, traits)
    return _timeline_of(
        stamps, stamping, traits, clock, is_placed=has_pes, header_pts=stream.duration
    )


def _mended(stamps: Stamps, traits: ClockTraits) -> MendedClock:
    is_frame = stamps.is_frame
    clock = mend(stamps.pts[is_frame], stamps.dts[is_frame], stamps.is_key[is_frame], traits)
    pts = stamps.pts.copy()
    pts[is_frame] = clock.pts
    return replace(clock, pts=pts)


def _timeline_of(
    stamps: Stamps,
    stamping: Stamping,
    traits: ClockTraits | None,
    clock: MendedClock | None,
    *,
    is_placed: bool,
    header_pts: int | None,
) -> Timeline:
    is_frame, is_key = stamps.is_frame, stamps.is_key
    times = stamps.pts if clock is None else clock.pts
    codes = set() if clock is None else set(clock.codes)
    is_timed = is_frame & (times != UNKNOWN)
    frame_pts = np.unique(times[is_timed])
    # Where a file states both, a length is how long a frame is decoded before the next one.
    has_decoding_steps = traits is not None and traits.states_dts and traits.states_durations
    last_duration = _last_duration(
        times[is_timed],
        stamps.durations[is_timed],
        dts=stamps.dts[is_timed] if has_decoding_steps else None,
    )
    gaps = () if clock is None else clock.gaps
    if traits is not None and (stamping is Stamping.SPARSE or (clock and clock.is_sparse)):
        jump = jump_of(last_duration, traits)
        frame_pts = _filled(times[is_frame], step=last_duration, jump=jump)
        gaps = gaps_of(frame_pts, traits)
        codes = codes - {"clock_gap"} | ({"clock_gap"} if gaps else set())
    steps = np.diff(frame_pts)
    # A chunk of an AVI is one tick, though each frame may be followed by empty ones.
    is_tick = stamping in (Stamping.DECODED, Stamping.REORDERED)
    if is_tick and len(steps):
        last_duration = int(np.median(steps))
    elif len(steps) and last_duration * _SHORT_PARTS < int(steps.min()):
        last_duration = _unstated_end(steps, header_pts)
    believable = _believable_end(frame_pts, last_duration, header_pts, traits)
    if believable is not None:
        last_duration = believable
        codes.add("last_duration")
    packet_pts = None if np.array_equal(times, stamps.pts) else times
    return Timeline(
        stamping,
        frame_pts,
        np.unique(times[is_timed & is_key]),
        last_duration,
        codes=tuple(sorted(codes)),
        gaps=gaps,
        packet_pts=packet_pts,
        entries=None if packet_pts is None or not is_placed else _entries(stamps, times),
    )


def _entries(stamps: Stamps, times: Ticks) -> Entries:
    _, place, num_here = np.unique(stamps.positions, return_inverse=True, return_counts=True)
    is_alone = (num_here[place] == 1) & (stamps.positions >= 0)
    rows = np.flatnonzero(stamps.is_frame & stamps.is_key & (times != UNKNOWN) & is_alone)
    rows = rows[times[rows].argsort(kind="stable")]
    return Entries(times[rows], rows, stamps.positions)


def _last_duration(times: Ticks, durations: Ticks, *, dts: Ticks | None) -> int:
    """Return the length that is stated of the frame that is shown last.

    Args:
        times: int64 (N,), in ticks, in the order of decoding.
        durations: int64 (N,), as stated.
        dts: int64 (N,), as stated, if a length leads from one to the next; None if it is a frame's.
    """
    if len(times) == 0:
        return 0
    # Of several with one time the last.
    last = len(times) - 1 - int(times[::-1].argmax())
    # What is decoded after it may be shown long before it. Only what is decoded last has a length
    # that no other frame sets.
    is_step = (
        dts is not None and last + 1 < len(dts) and dts[last + 1] - dts[last] == durations[last]
    )
    return int(durations[-1 if is_step else last])


def _unstated_end(steps: NDArray[np.int64], header_pts: int | None) -> int:
    """Reckon how long the last frame is shown where nothing, or next to nothing, is stated.

    FFmpeg calls the frames of some codecs in MP4 (VP9) a tick long; the track knows better.
    """
    header_last = 0 if header_pts is None else header_pts - int(steps.sum())
    if header_last * _SHORT_PARTS >= int(steps.min()) and header_last <= int(steps.max()):
        return header_last
    return int(np.median(steps))


def _believable_end(
    frame_pts: NDArray[np.int64],
    last_duration: int,
    header_pts: int | None,
    traits: ClockTraits | None,
) -> int | None:
    """Reckon how long the last frame is shown, if what is stated cannot be; None if it can.

    It may be shown long, as a slide is, if the track says so too; no slide is shown for many
    times as long as all the others together.
    """
    if traits is None or len(frame_pts) < 2:  # noqa: PLR2004 (the last frame is the only one)
        return None
    steps = np.diff(frame_pts)
    longest, span = int(steps.max()), int(frame_pts[-1] - frame_pts[0])
    if last_duration <= max(_LONG_SECONDS * traits.ticks_per_second, 10 * longest):
        return None
    header_last = None if header_pts is None else header_pts - span
    if header_last is not None and 0 < header_last < last_duration / 2:
        return max(header_last, int(np.median(steps)))
    if last_duration > max(_ABSURD_SHARE * span, _ABSURD_SECONDS * traits.ticks_per_second):
        return int(np.median(steps))
    return None


def _filled(times: Ticks, *, step: int, jump: int) -> Ticks:
    """Add the times of frames that state none: each follows the one before it by a step.

    Args:
        times: int64 (N,), of the frames in the order of decoding, UNKNOWN where none is stated.
        step: from a frame to the next.
        jump: where the next stated time is later by so much than these steps, there is a hole.
    """
    rows = np.flatnonzero(times != UNKNOWN)
    rows = rows[times[rows].argsort(kind="stable")]
    known = times[rows]
    excess = np.diff(known) - step * np.abs(np.diff(rows))
    splits = np.flatnonzero(excess > jump) + 1
    begins = [0, *(int(part.min()) for part in np.split(rows, splits)[1:]), len(times)]
    parts = [
        _spread(part, num_frames=stop - begin, step=step)
        for part, (begin, stop) in zip(np.split(known, splits), pairwise(begins), strict=True)
    ]
    return np.unique(np.concatenate(parts))


def _spread(known: Ticks, *, num_frames: int, step: int) -> Ticks:
    """Add the times of the other frames of a stretch; those left over follow at its end."""
    missing = num_frames - len(known)
    if missing <= 0 or step <= 0:
        return known
    runs = []
    for start, end in pairwise([*known.tolist(), math.inf]):
        num_steps = max(1, round(min((end - start) / step, missing + 1)))
        runs.append(start + step * np.arange(num_steps))
        missing -= num_steps - 1
    return np.concatenate(runs)
