"""Reckon when frames are shown of which PES packets state the times of some.

Of MPEG-1 and MPEG-2 video the picture types and durations tell how; frames of other codecs follow
each other at equal steps. A stamp is damaged if those after it go on as before it, or if it says
that a picture is shown when it cannot be.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clipbert.video.mending import (
    UNKNOWN,
    ClockTraits,
    MendedClock,
    gaps_of,
    lower_median,
    mend,
    part_recordings,
    wrapped,
)
from clipbert.video.outliers import MAX_REORDERED, Ticks, leaving
from clipbert.video.pes import PesPackets, Pictures

# A stamp that is off by no more than so many halves of a frame's time is believed.
_JITTER_HALF_STEPS = 3


@dataclass(frozen=True)
class _Model:
    """What a codec says of its frames' times, before any clock does: int64 (N,) each, in ticks.

    Attributes:
        line: when packets are decoded, and (N + 1) the end.
        least: how long after its decoding each is shown, at least.
        most: and at most.
    """

    line: Ticks
    least: Ticks
    most: Ticks

    @property
    def step(self) -> int:
        """From a frame to the next, usually."""
        return int(np.median(np.diff(self.line)))

    @property
    def jitter(self) -> int:
        """What a sound stamp may be off."""
        return _JITTER_HALF_STEPS * self.step // 2


def restamped(
    pictures: Pictures,
    pes: PesPackets,
    durations: Ticks,
    is_key: NDArray[np.bool_],
    traits: ClockTraits,
) -> MendedClock | None:
    """Read the clock of a stream from what its PES packets state.

    Args:
        pictures: of the packets as parsed.
        pes: of the same stream.
        durations: int64 (N,), of each picture, in ticks; 0 where it is unknown.
        is_key: which packets decode alone.
        traits: of the container.

    Returns:
        None if that is not the same stream after all, or nothing is stated.
    """
    if pes.starts[-1] != pictures.num_bytes:
        return None
    line = _decoding_line(durations, pictures.is_b, is_delayed=traits.is_reordered)
    pts, dts = pictures.stated(pes, line)
    if not (dts != UNKNOWN).any():
        return None
    traits = replace(traits, has_rate=pictures.is_typed)
    model = (
        _typed_model(pts, dts, durations, pictures.is_b, traits)
        if pictures.is_typed
        else _even_model(dts, line, traits)
    )
    is_wrong_dts, is_wrong_pts = _contradicted(pts, dts, is_key, model, traits)
    if not pictures.is_typed:
        pts, dts = _repaired(pts, dts, is_wrong_dts, is_wrong_pts, is_key, model)
    else:
        pts = np.where(is_wrong_dts | is_wrong_pts, UNKNOWN, pts)
        dts = np.where(is_wrong_dts, UNKNOWN, dts)
    clock = mend(pts, dts, is_key, traits, packet_step=model.step)
    times = np.where(pts == UNKNOWN, UNKNOWN, clock.pts)
    gaps = clock.gaps
    if pictures.is_typed:
        times = _reckoned(replace(clock, pts=times), model)
        gaps = gaps_of(times, traits)
    codes = {*clock.codes} - {"clock_gap"} | ({"clock_gap"} if gaps else set())
    if is_wrong_dts.any() or is_wrong_pts.any():
        codes.add("damaged_timestamps")
    return replace(
        clock,
        pts=times,
        gaps=gaps,
        codes=tuple(sorted(codes)),
        is_sparse=not pictures.is_typed,
    )


def _typed_model(
    pts: Ticks, dts: Ticks, durations: Ticks, is_b: NDArray[np.bool_], traits: ClockTraits
) -> _Model:
    """Tell from picture types when those of MPEG-1 and MPEG-2 video are shown.

    A B-picture is shown when it is decoded, another when the next other one is (ISO/IEC 13818-2,
    6.1.1.11), unless there is no delay at all, which the stamps show.
    """
    references = (dts != UNKNOWN) & (pts != UNKNOWN) & ~is_b
    is_delayed = traits.is_reordered
    if references.any():
        is_delayed = bool(np.median(pts[references] != dts[references]))
    line = _decoding_line(durations, is_b, is_delayed=is_delayed)
    delays = np.zeros(len(is_b), dtype=np.int64)
    if is_delayed:
        others = np.flatnonzero(~is_b)
        delays[others] = line[np.append(others[1:], len(is_b))] - line[others]
    return _Model(line, delays, delays)


def _even_model(dts: Ticks, line: Ticks, traits: ClockTraits) -> _Model:
    """Take equal steps as the clock states them, or else as the codec does."""
    known = np.flatnonzero(dts != UNKNOWN)
    steps, num_packets = wrapped(np.diff(dts[known]), traits), np.diff(known)
    forward = steps > 0
    usual = int(np.median(np.diff(line)))
    step = lower_median(steps[forward] // num_packets[forward], default=usual)
    least = np.zeros(len(dts), dtype=np.int64)
    most = least + (MAX_REORDERED * step if traits.is_reordered else 0)
    return _Model(step * np.arange(len(line)), least, most)


def _contradicted(
    pts: Ticks, dts: Ticks, is_key: NDArray[np.bool_], model: _Model, traits: ClockTraits
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the damaged stamps of packets, of which only some have any.

    Args:
        pts: what is stated, UNKNOWN where nothing is.
        dts: as pts.
        is_key: which packets decode alone.
        model: of the codec.
        traits: of the container.

    Returns:
        Which dts, and which pts, are wrong.
    """
    is_wrong_dts, is_wrong_pts = np.zeros(len(dts), dtype=bool), np.zeros(len(dts), dtype=bool)
    known = np.flatnonzero((dts != UNKNOWN) & (pts != UNKNOWN))
    if len(known) == 0:
        return is_wrong_dts, is_wrong_pts
    stated = np.concatenate([[0], np.cumsum(wrapped(np.diff(dts[known]), traits))])
    off_line = stated - (model.line[known] - model.line[known[0]])
    is_damaged = leaving(off_line, model.jitter)
    _add_lone_ends(is_damaged, off_line, known, pts, is_key, model, traits)
    sound, off_line = known[~is_damaged], off_line[~is_damaged]
    for row in known[is_damaged].tolist():
        is_wrong_dts[row] = True
        near = int(sound[np.abs(sound - row).argmin()])
        is_wrong_pts[row] = not _agree(pts, row, near, is_key, model, traits)
    # A frame that is shown when a later one is decoded waits as long as the clock does in between.
    pauses = np.maximum(np.diff(off_line, append=off_line[-1]), 0)
    delay = wrapped(pts[sound] - dts[sound], traits)
    least, most = model.least[sound], model.most[sound]
    outside = np.where(delay < least, delay - least, np.maximum(delay - most, 0))
    outside -= int(np.median(outside))
    is_outside = (outside > model.jitter + pauses) | (outside < -model.jitter)
    is_wrong_pts[sound[is_outside]] = True
    return is_wrong_dts, is_wrong_pts


def _add_lone_ends(  # noqa: PLR0917 (one caller's state)
    is_damaged: NDArray[np.bool_],
    off_line: Ticks,
    known: NDArray[np.int64],
    pts: Ticks,
    is_key: NDArray[np.bool_],
    model: _Model,
    traits: ClockTraits,
) -> None:
    """Add the first and the last stamp, if those next to them contradict it.

    A recording begins with a keyframe that states its time: where the later one is none, both are
    of the same.
    """
    sound = np.flatnonzero(~is_damaged)
    if len(sound) < 3:  # noqa: PLR2004 (of two none is alone)
        return
    for end, near in ((sound[0], sound[1]), (sound[-1], sound[-2])):
        if abs(off_line[end] - off_line[near]) <= model.jitter:
            continue
        begins_anew = is_key[max(known[end], known[near])]
        rows = int(known[end]), int(known[near])
        if not begins_anew or _agree(pts, *rows, is_key, model, traits):
            is_damaged[end] = True


def _agree(  # noqa: PLR0917 (one caller's state)
    pts: Ticks,
    row: int,
    near: int,
    is_key: NDArray[np.bool_],
    model: _Model,
    traits: ClockTraits,
) -> bool:
    """Whether two packets are shown as far apart as the codec says; keyframes wait equally long."""
    apart = int(wrapped(pts[row] - pts[near], traits)) - int(model.line[row] - model.line[near])
    earliest = int(model.least[row] - model.most[near])
    latest = int(model.most[row] - model.least[near])
    if earliest < latest and is_key[row] and is_key[near]:
        earliest = latest = 0
    return earliest - model.jitter <= apart <= latest + model.jitter


def _repaired(  # noqa: PLR0917 (one caller's state)
    pts: Ticks,
    dts: Ticks,
    is_wrong_dts: NDArray[np.bool_],
    is_wrong_pts: NDArray[np.bool_],
    is_key: NDArray[np.bool_],
    model: _Model,
) -> tuple[Ticks, Ticks]:
    """Replace damaged stamps by those of the packets next to them.

    A keyframe gets the delay of other keyframes, as the frames after it follow it; how long after
    its decoding another frame is shown nothing tells.
    """
    pts, dts = pts.copy(), dts.copy()
    sound = np.flatnonzero((dts != UNKNOWN) & ~is_wrong_dts & ~is_wrong_pts)
    if len(sound) == 0:
        return pts, dts
    for row in np.flatnonzero(is_wrong_dts).tolist():
        near = int(sound[np.abs(sound - row).argmin()])
        dts[row] = dts[near] + model.line[row] - model.line[near]
    like = sound[is_key[sound]] if is_key[sound].any() else sound
    delay = int(np.median(pts[like] - dts[like]))
    pts = np.where(is_wrong_pts, np.where(is_key, dts + delay, UNKNOWN), pts)
    return pts, dts


def _decoding_line(durations: Ticks, is_b: NDArray[np.bool_], *, is_delayed: bool) -> Ticks:
    """Reckon when packets are decoded from how long their pictures are shown.

    While a picture that others refer to is decoded, the one before it of that kind is shown.

    Args:
        durations: int64 (N,), of each picture, in ticks; 0 where it is unknown.
        is_b: which packets are B-pictures.
        is_delayed: whether the others are shown when the next of them is decoded.

    Returns:
        int64 (N + 1,), from 0: the last is the end.
    """
    stated = durations[durations > 0]
    usual = int(np.median(stated)) if len(stated) else 0
    lasting = np.where(durations > 0, durations, usual)
    steps = lasting.copy()
    if is_delayed:
        references = np.flatnonzero(~is_b)
        steps[references[1:]] = lasting[references[:-1]]
    return np.concatenate([[0], np.cumsum(steps)])


def _reckoned(clock: MendedClock, model: _Model) -> Ticks:
    """Reckon when the frames of MPEG-1 or MPEG-2 video are shown that state nothing.

    Args:
        clock: what is known, of each packet.
        model: of the codec.
    """
    line, delays = model.line, model.most
    known = np.flatnonzero(clock.dts != UNKNOWN)
    rows = np.arange(len(clock.dts))
    anchors = known[np.maximum(np.searchsorted(known, rows, side="right") - 1, 0)]
    ahead = line[rows] - line[anchors]
    # Where there is less time than that to the next stamp, it is divided evenly.
    after = np.searchsorted(known, rows, side="right")
    is_between = (after > 0) & (after < len(known))
    following = known[np.minimum(after, len(known) - 1)]
    span = clock.dts[following] - clock.dts[anchors]
    wanted = line[following] - line[anchors]
    is_short = is_between & (span < wanted) & (wanted > 0)
    ahead = np.where(is_short, ahead * span // np.maximum(wanted, 1), ahead)
    decoded = clock.dts[anchors] + ahead
    # What is shown when a later one is decoded follows those in between, and no pause.
    last_before = np.searchsorted(line, line[rows] + delays, side="left") - 1
    last_before = np.maximum(last_before, rows)
    shown = decoded[last_before] + line[rows] + delays - line[last_before]
    times = np.where(clock.pts == UNKNOWN, shown, clock.pts)
    part_recordings(times, list(clock.starts), model.step)
    return times
