"""Turn the stamps that a file states into times that follow each other: pure, no file.

Stamps may start again where recordings were joined, jump over a hole, be damaged one by one, and
wrap around. What does not fit is tested against its neighbours: a stamp is damaged if the stamps
after it go on where those before it ended; otherwise a recording begins anew, or there is a hole.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from clipbert.video.outliers import MAX_REORDERED, Ticks, fill_in, lonely, misplaced

# Stands for a time that is not stated.
UNKNOWN = int(np.iinfo(np.int64).min)
# A step of so many seconds, and of so many usual steps, is a jump.
_JUMP_SECONDS = 1.0
_JUMP_STEPS = 10
# Damaged stamps in a row that are looked over.
_MAX_DAMAGED = 48
# So many of them may be damaged in several ways.
_MAX_MIXED = 3
# Fewer packets than this at an end of a file are damage, and not a recording of their own.
_FEWEST_PACKETS = 3
# Of packets before a keyframe, so many; of these the latest but two must be earlier.
_KEY_WINDOW = 15
_KEY_TRIM = 3


@dataclass(frozen=True)
class ClockTraits:
    """What is known of a container's clock.

    Attributes:
        ticks_per_second: of the stamps.
        wraps_after: ticks after which the clock begins at 0 again; None if it does not.
        states_dts: the file states when frames are decoded; otherwise that is guessed.
        states_durations: a frame is on screen as long as stated; otherwise a jump is a hole.
        is_reordered: frames may be decoded in another order than they are shown.
        states_all: each frame has a stamp, unless that is damaged.
        has_rate: the codec states a frame rate that its frames keep to.
    """

    ticks_per_second: float
    wraps_after: int | None
    states_dts: bool
    states_durations: bool
    is_reordered: bool
    states_all: bool = True
    has_rate: bool = False


@dataclass(frozen=True)
class MendedClock:
    """The times of a stream's packets.

    Attributes:
        pts: of each packet, in the order of decoding; UNKNOWN where nothing was stated.
        dts: as pts: when they are decoded, or a guess of it.
        starts: the packets with which recordings begin, ascending.
        gaps: (start, end) in ticks of pts, ascending.
        codes: what was mended, as VideoProbe.mended.
        is_sparse: the frames of packets without a time follow those before them at equal steps.
    """

    pts: Ticks
    dts: Ticks
    starts: tuple[int, ...] = (0,)
    gaps: tuple[tuple[int, int], ...] = ()
    codes: tuple[str, ...] = ()
    is_sparse: bool = False


@dataclass
class _Line:
    """The decoding clock, mended: one value a packet, and where it begins anew."""

    times: Ticks
    is_damaged: NDArray[np.bool_]
    starts: list[int]  # rows at which a recording begins
    packet_step: int = 0  # from one packet to the next, whether or not that states its time
    codes: set[str] = field(default_factory=set)


def mend(
    pts: Ticks,
    dts: Ticks,
    is_key: NDArray[np.bool_],
    traits: ClockTraits,
    *,
    packet_step: int | None = None,
) -> MendedClock:
    """Mend the stamps of one stream's packets.

    Args:
        pts: when each is shown, in the order of decoding, UNKNOWN where not stated.
        dts: when each is decoded.
        is_key: which packets decode alone.
        traits: of the container.
        packet_step: from the decoding of a packet to that of the next by the codec's frame rate;
            None if it does not say.
    """
    known = np.flatnonzero((pts != UNKNOWN) | (dts != UNKNOWN))
    if len(known) < 2:  # noqa: PLR2004 (there is no neighbour)
        return MendedClock(np.where(pts == UNKNOWN, dts, pts), np.where(dts == UNKNOWN, pts, dts))
    shown = np.where(pts == UNKNOWN, dts, pts)[known]
    decoded = np.where(dts == UNKNOWN, pts, dts)[known] if traits.states_dts else shown
    if not traits.states_dts and traits.is_reordered:
        decoded = _guess_decoding(shown, is_key[known])
    line = _mended_line(decoded, np.append(known, len(pts)), traits, packet_step)
    step = _usual_step(line.times)
    times = _shown_times(shown, decoded, line, step, traits)
    mended = np.full(len(pts), UNKNOWN, dtype=np.int64)
    mended[known] = times
    between = np.arange(known[0], known[-1] + 1)
    if len(between) > len(known) and traits.states_all and not traits.is_reordered:
        mended[between] = np.interp(between, known, times).round()
        line.codes.add("damaged_timestamps")
    gaps = gaps_of(times, traits)
    if gaps:
        line.codes.add("clock_gap")
    if not line.codes:
        mended = np.where(pts == UNKNOWN, dts, pts)
    mended_dts = np.full(len(pts), UNKNOWN, dtype=np.int64)
    mended_dts[known] = line.times
    starts = tuple(known[line.starts].tolist())
    return MendedClock(mended, mended_dts, starts, gaps, tuple(sorted(line.codes)))


def _mended_line(
    stated: Ticks, places: NDArray[np.int64], traits: ClockTraits, packet_step: int | None
) -> _Line:
    """Follow the decoding clock, and say of each break in it what it is.

    Args:
        stated: when packets are decoded, those that state it.
        places: of these among all packets, as some may state nothing, and the number of all.
        traits: of the container.
        packet_step: as in mend.
    """
    num_packets = np.diff(places[:-1])
    steps = wrapped(np.diff(stated), traits)
    step = _usual_step_of(steps)
    jump = jump_of(step, traits)
    line = _Line(stated.copy(), np.zeros(len(stated), dtype=bool), [0])
    line.packet_step = _packet_step(steps, num_packets, jump, step)
    if packet_step and (traits.has_rate or not (steps > 0).any()):
        line.packet_step = packet_step
    # In the time of one packet no three are decoded.
    is_standing = (num_packets >= _FEWEST_PACKETS) & (steps < line.packet_step)
    # Half a step backwards is a muxer's rounding.
    is_break = (steps < -line.packet_step // 2) | is_standing | (steps > jump)
    if not is_break.any():
        line.times = stated[0] + np.concatenate([[0], np.cumsum(steps)])
        return line
    breaks = set((np.flatnonzero(is_break) + 1).tolist())
    usual_pause = _usual_pause(steps, step)
    good, row = 0, 1
    line.times[0] = stated[0]
    while row < len(stated):
        if row not in breaks and good == row - 1:
            line.times[row] = line.times[good] + steps[row - 1]
            good, row = row, row + 1
            continue
        back = _row_after_damage(stated, good, row, breaks, step, jump, traits)
        if back is not None:
            ahead = int(wrapped(stated[back] - stated[good], traits))
            for place in range(good + 1, back):
                share = (places[place] - places[good]) / (places[back] - places[good])
                line.times[place] = line.times[good] + round(ahead * share)
            line.is_damaged[good + 1 : back] = True
            line.codes.add("damaged_timestamps")
            line.times[back] = line.times[good] + ahead
            good, row = back, back + 1
            continue
        ahead = int(wrapped(stated[row] - stated[good], traits))
        num_after = int(places[-1] - places[row])
        if ahead > 0 and traits.states_durations:
            line.times[row] = line.times[good] + ahead
        elif (
            ahead <= 0
            or is_standing[row - 1]
            or (ahead > usual_pause and min(num_after, places[row] - places[0]) < _FEWEST_PACKETS)
        ):
            ahead = line.packet_step * int(num_packets[row - 1])
            num_before = int(places[row] - places[line.starts[-1]])
            is_short = min(num_after, num_before) < _FEWEST_PACKETS
            line.codes.add("damaged_timestamps" if is_short else "joined_recordings")
            line.starts.append(row)
            line.times[row] = line.times[good] + ahead
        else:
            line.times[row] = line.times[good] + ahead
        good, row = row, row + 1
    return line


def _packet_step(steps: Ticks, num_packets: Ticks, jump: int, step: int) -> int:
    """Return the usual step from one packet to the next."""
    if num_packets.max() == 1:
        return step
    is_sound = (steps > 0) & (steps <= jump)
    return lower_median(steps[is_sound] // num_packets[is_sound], default=step)


def _usual_pause(steps: Ticks, step: int) -> int:
    """Return the longest pause expected at the end of a file: twice that within a sound one."""
    if (steps < -step // 2).any():
        return 0
    within = steps[_FEWEST_PACKETS - 1 : len(steps) - _FEWEST_PACKETS + 1]
    return 2 * int(within.max()) if len(within) else 0


def _row_after_damage(  # noqa: PLR0917 (one loop's state)
    stated: Ticks,
    good: int,
    row: int,
    breaks: set[int],
    step: int,
    jump: int,
    traits: ClockTraits,
) -> int | None:
    """Find where the clock goes on as it was at the row `good`, after damaged stamps from `row`."""
    for back in range(row + 1, min(row + _MAX_DAMAGED, len(stated))):
        if back not in breaks:  # what is between would lead up to it
            continue
        is_back = (stated[back] < stated[back - 1]) != (stated[row] < stated[row - 1])
        if not is_back and back - row > _MAX_MIXED:  # two pauses, rather
            continue
        ahead = int(wrapped(stated[back] - stated[good], traits))
        if not 0 < ahead <= max(jump, 2 * step * (back - good)):
            continue
        if back + 1 in breaks and back + 1 < len(stated):  # that one is damaged as well
            continue
        return back
    return None


def _guess_decoding(shown: Ticks, is_key: NDArray[np.bool_]) -> Ticks:
    """Guess when packets are decoded from when they are shown: before all that come after them."""
    starts = [0]
    for row in np.flatnonzero(is_key).tolist():
        before = np.sort(shown[max(starts[-1], row - _KEY_WINDOW) : row])
        after = np.sort(shown[row : row + _KEY_WINDOW // 2])
        if len(before) == 0:
            continue
        latest = before[max(0, len(before) - _KEY_TRIM)]
        if shown[row] <= latest and after[len(after) // 2] <= before[-1]:
            starts.append(row)
    decoded = shown.copy()
    for start, stop in zip(starts, [*starts[1:], len(shown)], strict=True):
        part = shown[start:stop].copy()
        late, early = misplaced(part, threshold=MAX_REORDERED)
        for row in (*late, *early):
            part[row] = part[row - 1] if row > 0 else part[min(row + 1, len(part) - 1)]
        decoded[start:stop] = np.minimum.accumulate(part[::-1])[::-1]
        decoded[start:stop][[*late, *early]] = shown[start:stop][[*late, *early]]
    return decoded


def _shown_times(
    shown: Ticks, decoded: Ticks, line: _Line, step: int, traits: ClockTraits
) -> Ticks:
    """Put each frame on the mended clock, and find places for those whose own time is damaged."""
    times = line.times + wrapped(shown - decoded, traits)
    damaged = set()
    for row in np.flatnonzero(line.is_damaged).tolist():
        recording = int(np.searchsorted(line.starts, row, side="right")) - 1
        if shown[row] == decoded[row]:
            times[row] = line.times[row]
            if traits.is_reordered:
                damaged.add(row)
            continue
        # The time of decoding alone may be damaged.
        start = line.starts[recording]
        own = line.times[start] + int(wrapped(shown[row] - decoded[start], traits))
        if -step <= own - line.times[row] <= MAX_REORDERED * step:
            times[row] = own
        else:
            damaged.add(row)
    threshold = MAX_REORDERED if traits.is_reordered else 1
    for start, stop in zip(line.starts, [*line.starts[1:], len(times)], strict=True):
        late, early = misplaced(times[start:stop], threshold=threshold)
        damaged.update(start + row for row in (*late, *early))
        early = lonely(times[start:stop], jump=jump_of(step, traits))
        damaged.update(start + row for row in early)
    if traits.states_dts and not traits.states_durations:
        damaged.update(_far_from_decoding(times, line, step, jump_of(step, traits)))
    if damaged:
        line.codes.add("damaged_timestamps")
        fill_in(times, sorted(damaged), line.times, step)
    part_recordings(times, line.starts, line.packet_step)
    return times


def _far_from_decoding(times: Ticks, line: _Line, step: int, jump: int) -> list[int]:
    """Find the rows that are shown long after as many packets were decoded as any codec reorders.

    That is counted in packets, as pauses may lie between them.
    """
    far = jump + MAX_REORDERED * step
    last = len(times) - 1
    later = line.times[np.minimum(np.arange(len(times)) + MAX_REORDERED, last)]
    is_late = (times > later + jump) & (times > line.times + far)
    if not line.is_damaged.any():
        # The frames that are shown last may come after a pause.
        is_late[-MAX_REORDERED:] &= times[-MAX_REORDERED:] > line.times[last] + _usual_pause(
            np.diff(line.times), step
        )
    return np.flatnonzero(is_late | (times < line.times - far)).tolist()


def part_recordings(times: Ticks, starts: list[int], step: int) -> None:
    """Move each recording, in place, behind the last frame of those before it.

    Args:
        times: when frames are shown.
        starts: rows with which recordings begin, ascending.
        step: how long a last frame is shown.
    """
    bounds = [*starts[1:], len(times)]
    latest, moved = int(times[: bounds[0]].max()), 0
    for start, stop in pairwise(bounds):
        recording = times[start:stop]
        moved += max(0, latest + step - moved - int(recording.min()))
        recording += moved
        latest = max(latest, int(recording.max()))


def gaps_of(times: Ticks, traits: ClockTraits) -> tuple[tuple[int, int], ...]:
    """Find the holes between the times at which frames are shown, as (start, end)."""
    if traits.states_durations:
        return ()
    ascending = np.unique(times)
    steps = np.diff(ascending)
    step = _usual_step_of(steps)
    before = np.flatnonzero(steps > jump_of(step, traits))
    return tuple((int(ascending[row]) + step, int(ascending[row + 1])) for row in before)


def wrapped(difference: Ticks, traits: ClockTraits) -> Ticks:
    """Return a difference of stamps as the shorter way round the clock."""
    if traits.wraps_after is None:
        return difference
    half = traits.wraps_after // 2
    return (difference + half) % traits.wraps_after - half


def _usual_step(times: Ticks) -> int:
    return _usual_step_of(np.diff(times))


def _usual_step_of(steps: Ticks) -> int:
    return lower_median(steps[steps > 0], default=1)


def lower_median(steps: Ticks, *, default: int) -> int:
    """Return a median that is one of the steps: between a frame's and a pause nothing is usual."""
    return int(np.sort(steps)[(len(steps) - 1) // 2]) if len(steps) else default


def jump_of(step: int, traits: ClockTraits) -> int:
    """Return the step that is no frame's any more: a second, and so many usual steps."""
    return max(round(_JUMP_SECONDS * traits.ticks_per_second), _JUMP_STEPS * step)
