"""Clocks that lie: every frame is checked by the number drawn in it."""

import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from videos import (
    counting_frame,
    frame_number,
    join,
    remux,
    shift_ts_stamps,
    write_counting_video,
    write_video,
)

from clipbert.inference.clips import decode_clips
from clipbert.sampling.plan import INDEX_PLAN, SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import decode_frames, probe_video
from clipbert.video.mending import UNKNOWN, ClockTraits, mend

FPS = 10
JOINED_MATROSKA = ("mkv", "webm")
VP8 = {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}}
JOINED = {
    "h264.ts": {},
    "h264_b_frames.ts": {"b_frames": 3},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2, "fps": 25},
    "mpeg2.vob": {"codec": "mpeg2video", "fps": 25},
    "h264.mkv": {},
    "h264_b_frames.mkv": {"b_frames": 2},
    "vp8.webm": VP8,
    "vp8.ogv": VP8,
    "mpeg1.mpg": {"codec": "mpeg1video", "fps": 25},
}


def write_part(path: Path, first: int, *, num_frames: int = 30, **settings) -> Path:
    settings.setdefault("fps", FPS)
    return write_video(path, (counting_frame(first + i) for i in range(num_frames)), **settings)


def check_every_frame(path: Path, shown: dict[float, int]) -> None:
    """Check the number on screen at each time, all at once, one by one, and in clips."""
    instants = list(shown)
    assert [frame_number(f) for f in decode_frames(path, instants)] == list(shown.values())
    for instant in instants[::9]:
        assert frame_number(decode_frames(path, [instant])[0]) == shown[instant]
    probe = probe_video(path)
    for name in ("segments", "keyframes"):
        clips = plan_clips(probe, SamplingPlan(name, num_clips=5))
        for clip, frames in zip(clips, decode_clips(path, clips), strict=True):
            at = max(time for time in instants if time <= clip.instants[0] + 1e-6)
            assert frame_number(frames[0]) == shown[at]


@pytest.mark.parametrize("num_parts", [2, 5])
@pytest.mark.parametrize("name", JOINED)
def test_joined_recordings_follow_each_other(name, num_parts, tmp_path):
    if num_parts > 2 and name.endswith(JOINED_MATROSKA):
        pytest.skip("FFmpeg reads two Matroska files that are joined, and no more")
    settings = {"fps": FPS} | JOINED[name]
    suffix = name.split(".")[1]
    parts = [
        write_part(tmp_path / f"{part}.{suffix}", 100 * part, **settings)
        for part in range(num_parts)
    ]
    path = join(tmp_path / f"v.{suffix}", *parts)

    probe = probe_video(path)

    fps = settings["fps"]
    assert probe.num_frames == 30 * num_parts
    assert probe.duration_seconds == pytest.approx(30 * num_parts / fps, abs=0.01)
    assert (probe.mended, probe.gaps) == (("joined_recordings",), ())
    check_every_frame(
        path, {place / fps: place // 30 * 100 + place % 30 for place in range(30 * num_parts)}
    )


@pytest.mark.parametrize("offset", [0.5, 1.5, 2.0, 2.7, 40.0])
def test_a_recording_that_begins_a_little_before_the_end_of_the_other_follows_it(offset, tmp_path):
    options = {"output_ts_offset": str(offset)}
    first = remux(
        write_part(tmp_path / "1.mp4", 0), tmp_path / "1.ts", options={"output_ts_offset": "50"}
    )
    second = remux(write_part(tmp_path / "2.mp4", 100), tmp_path / "2.ts", options=options)
    path = join(tmp_path / "v.ts", first, second)

    assert probe_video(path).duration_seconds == pytest.approx(6.0)
    check_every_frame(path, {place / FPS: place // 30 * 100 + place % 30 for place in range(60)})


@pytest.mark.parametrize("seconds", [5, 3600, 30_000])
def test_a_jump_of_a_transport_stream_is_a_gap_with_both_sides_seen(seconds, tmp_path):
    first = remux(write_part(tmp_path / "1.mp4", 0), tmp_path / "1.ts")
    options = {"output_ts_offset": str(seconds + 3)}
    second = remux(write_part(tmp_path / "2.mp4", 100), tmp_path / "2.ts", options=options)
    path = join(tmp_path / "v.ts", first, second)

    probe = probe_video(path)
    clips = plan_clips(probe, INDEX_PLAN)

    ((start, end),) = probe.gaps
    assert (start, end) == (pytest.approx(3.0), pytest.approx(seconds + 3, abs=0.01))
    assert probe.mended == ("clock_gap",)
    assert probe.duration_seconds == pytest.approx(seconds + 6, abs=0.01)
    numbers = [frame_number(clip[0]) for clip in decode_clips(path, clips)]
    assert numbers == [7, 22, 107, 122]


def test_slides_of_ten_seconds_are_no_gap_in_mp4_and_matroska(tmp_path):
    for suffix in ("mp4", "mkv"):
        stamps = [0, 40, 80, 10_080, 20_080, 20_120, 30_000]
        path = write_counting_video(
            tmp_path / f"v.{suffix}", 7, timestamps=stamps, time_base=Fraction(1, 1000)
        )

        probe = probe_video(path)

        assert (probe.mended, probe.gaps) == ((), ())
        frames = decode_frames(path, [0.05, 9.0, 10.1, 20.0, 20.1, 25.0, 30.0])
        assert [frame_number(frame) for frame in frames] == [1, 2, 3, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("suffix", "num_parts", "num_read"),
    [("mp4", 2, 1), ("flv", 2, 1), ("wmv", 3, 1), ("mkv", 3, 2)],
)
def test_recordings_that_are_not_read_are_told_of(suffix, num_parts, num_read, tmp_path):
    codec = "wmv2" if suffix == "wmv" else "libx264"
    part = write_part(tmp_path / f"part.{suffix}", 0, codec=codec)
    several = join(tmp_path / f"several.{suffix}", *[part] * num_parts)
    read = join(tmp_path / f"read.{suffix}", *[part] * num_read)

    probe = probe_video(several)

    assert probe.num_frames == 30 * num_read
    assert "unread_recordings" in probe.mended
    assert probe.is_partial
    assert "unread_recordings" not in probe_video(read).mended


PAUSES = {
    "now_and_then": [0, 33, 66, 100, 133, 10_133, 10_166, 12_666, 12_700, 12_733, 22_733, 22_766],
    "at_the_end": [0, 40, 80, 120, 160, 15_160, 15_200, 15_240, 15_280, 15_320, 30_320, 30_360],
    "always": [10_000 * number for number in range(12)],
}


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("suffix", ["ts", "flv"])
@pytest.mark.parametrize("name", PAUSES)
def test_a_clock_with_pauses_is_believed(name, suffix, b_frames, tmp_path):
    """Screens are recorded when they change; the clock is sound, however frames are reordered."""
    path = write_counting_video(
        tmp_path / f"v.{suffix}",
        12,
        timestamps=PAUSES[name],
        time_base=Fraction(1, 1000),
        b_frames=b_frames,
    )

    probe = probe_video(path)

    assert set(probe.mended) <= {"clock_gap"}
    assert probe.last_frame_seconds == pytest.approx(PAUSES[name][-1] / 1000)
    check_every_frame(path, {ms / 1000: number for number, ms in enumerate(PAUSES[name])})


DAMAGES = {
    "late": {20: 36_000.0},
    "a_little_late": {20: 2.5},
    "early": {20: -1.9},
    "several": {10: 7200.0, 25: 36_000.0, 40: -2.2},
    "in_a_row": {20: 3600.0, 21: 3600.0, 22: 3600.0},
    "first": {0: 7200.0},
    "last": {59: 7200.0},
}


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_stamps_are_told_by_their_neighbours(name, b_frames, tmp_path):
    source = write_part(tmp_path / "s.ts", 0, num_frames=60, b_frames=b_frames)
    path = shift_ts_stamps(source, tmp_path / "v.ts", DAMAGES[name])

    probe = probe_video(path)

    assert probe.num_frames == 60
    assert probe.duration_seconds == pytest.approx(6.0, abs=0.21)
    assert "damaged_timestamps" in probe.mended
    assert probe.gaps == ()
    if b_frames == 0 or name in ("late", "a_little_late", "early"):
        check_every_frame(path, {place / FPS: place for place in range(60)})


@pytest.mark.parametrize("only", ["pts", "dts"])
@pytest.mark.parametrize("seconds", [36_000.0, -2.0])
def test_of_two_stamps_of_a_frame_one_may_be_damaged(only, seconds, tmp_path):
    source = write_part(tmp_path / "s.ts", 0, num_frames=60, b_frames=2)
    path = shift_ts_stamps(source, tmp_path / "v.ts", {22: seconds}, only=only)

    assert probe_video(path).duration_seconds == pytest.approx(6.0)
    check_every_frame(path, {place / FPS: place for place in range(60)})


def mkv_with_stamp(source: Path, target: Path, frame: int, ticks: int) -> Path:
    """Copy a Matroska file and set the time of one simple block within its cluster."""
    data = bytearray(source.read_bytes())
    place = 0
    for _ in range(frame + 1):
        place = next(
            at
            for at in range(place + 1, len(data))
            if data[at] == 0xA3 and data[at + 1] & 0xC0 and _is_block(data, at)
        )
    header = place + 1 + _vint_bytes(data[place + 1])
    struct.pack_into(">h", data, header + 1, ticks)
    target.write_bytes(data)
    return target


def _vint_bytes(first: int) -> int:
    return 9 - first.bit_length()


def _is_block(data: bytearray, at: int) -> bool:
    size = _vint_bytes(data[at + 1])
    return size <= 3 and data[at + 1 + size] == 0x81 and data[at + 4 + size] in (0x00, 0x80)


@pytest.mark.parametrize("ticks", [30_000, -2000])
def test_a_damaged_stamp_of_a_matroska_is_told_by_its_neighbours(ticks, tmp_path):
    source = write_part(tmp_path / "s.mkv", 0, num_frames=50)
    path = mkv_with_stamp(source, tmp_path / "v.mkv", 20, ticks)

    probe = probe_video(path)

    assert probe.mended == ("damaged_timestamps",)
    assert probe.duration_seconds == pytest.approx(5.0)
    check_every_frame(path, {place / FPS: place for place in range(50)})


def with_last_delta(source: Path, target: Path, ticks: int) -> Path:
    """Copy an MP4 whose frames are all as long, and let the last one be as long as this."""
    data = bytearray(source.read_bytes())
    place = data.index(b"stts") + 4 + 4
    num_entries, count, delta = struct.unpack_from(">III", data, place)
    assert num_entries == 1
    entries = struct.pack(">IIIII", 2, count - 1, delta, 1, ticks)
    data[place : place + 12] = entries
    for name in (b"stts", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        at = data.index(name) - 4
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + 8)
    target.write_bytes(data)
    return target


def test_an_absurd_last_duration_is_not_believed(tmp_path):
    source = write_part(tmp_path / "s.mp4", 0)
    path = with_last_delta(source, tmp_path / "v.mp4", 10_240 * 3600 * 58)

    probe = probe_video(path)

    assert probe.duration_seconds == pytest.approx(3.0)
    assert probe.mended == ("last_duration",)
    check_every_frame(path, {place / FPS: place for place in range(30)})


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_pauses_between_pictures_say_nothing_of_how_long_the_last_is_shown(
    tmp_path, suffix, b_frames
):
    # With B-frames the last one is decoded before others, and a pause lies between, in MP4 stated.
    seconds = (0, 1, 2, 30, 31, 60)
    path = write_part(
        tmp_path / f"v.{suffix}",
        0,
        num_frames=6,
        fps=FPS,
        b_frames=b_frames,
        timestamps=[1000 * second for second in seconds],
        time_base=Fraction(1, 1000),
        options={"b-adapt": "0"},
    )

    probe = probe_video(path)

    assert (probe.duration_seconds, probe.mended) == (pytest.approx(60.1, abs=1e-3), ())
    check_every_frame(path, {float(second): place for place, second in enumerate(seconds)})


TRAITS = ClockTraits(
    ticks_per_second=1000,
    wraps_after=None,
    states_dts=True,
    states_durations=False,
    is_reordered=False,
)


def mended_by(change: Callable[[np.ndarray], None], num_packets: int = 50):
    stamps = np.arange(num_packets, dtype=np.int64) * 100
    change(stamps)
    return mend(stamps, stamps.copy(), np.arange(num_packets) % 10 == 0, TRAITS)


def test_a_sound_clock_is_left_as_it_is():
    clock = mended_by(lambda stamps: None)

    assert (clock.codes, clock.gaps) == ((), ())
    assert clock.pts.tolist() == [100 * row for row in range(50)]


@pytest.mark.parametrize(("states_all", "time"), [(True, 500), (False, UNKNOWN)])
def test_a_frame_without_a_stamp_lies_between_its_neighbours_if_each_has_one(states_all, time):
    stamps = np.arange(20, dtype=np.int64) * 100
    stamps[5] = UNKNOWN
    traits = replace(TRAITS, states_all=states_all)

    assert mend(stamps, stamps.copy(), np.ones(20, dtype=bool), traits).pts[5] == time


@pytest.mark.parametrize("num_joints", [1, 40])
def test_any_number_of_recordings_may_be_joined(num_joints):
    stamps = np.tile(np.arange(20, dtype=np.int64) * 100, num_joints + 1)

    clock = mend(stamps, stamps.copy(), np.arange(len(stamps)) % 20 == 0, TRAITS)

    assert clock.codes == ("joined_recordings",)
    assert clock.pts.tolist() == [100 * row for row in range(20 * (num_joints + 1))]


@pytest.mark.parametrize("stamps", [[0], [5], [0, 5], [3, 8]])
def test_a_clock_that_stands_while_many_packets_pass_is_that_of_another_recording(stamps):
    """Small pictures share PES packets, and a short recording may state one time or two."""
    stated = np.full(12, UNKNOWN, dtype=np.int64)
    stated[[5 * place for place in range(len(stamps))]] = np.array(stamps) * 100
    traits = replace(TRAITS, states_all=False, has_rate=True)
    is_key = np.tile(np.arange(12) == 0, 3)

    clock = mend(np.tile(stated, 3), np.tile(stated, 3), is_key, traits, packet_step=100)

    assert clock.codes == ("joined_recordings",)
    assert clock.starts == (0, 12, 24)
    assert clock.pts[[12, 24]].tolist() == [stamps[0] * 100 + 1200, stamps[0] * 100 + 2400]


def test_packets_without_stamps_before_a_joint_take_their_time():
    stated = np.full(12, UNKNOWN, dtype=np.int64)
    stated[[0, 2, 4, 5, 8]] = [0, 200, 400, 500, 800]  # 9, 10 and 11 begin in one packet with 8
    traits = replace(TRAITS, states_all=False)

    clock = mend(np.tile(stated, 2), np.tile(stated, 2), np.tile(np.arange(12) == 0, 2), traits)

    assert clock.pts[12:][stated != UNKNOWN].tolist() == [1200, 1400, 1600, 1700, 2000]


def test_a_last_frame_that_is_said_to_last_a_tick_lasts_as_long_as_the_track_says(tmp_path):
    times = [0, 670, 1270, 2200, 3000, 4100]
    path = write_video(
        tmp_path / "v.mp4",
        (counting_frame(number) for number in range(6)),
        codec="libvpx-vp9",
        options=VP8["options"],
        timestamps=times,
        time_base=Fraction(1, 10_000),
        fps=Fraction(10),
    )

    probe = probe_video(path)

    assert probe.duration_seconds == pytest.approx(
        float(probe.header_duration_pts * probe.time_base)
    )
    assert probe.duration_seconds > 0.41 + 0.03
    assert frame_number(decode_frames(path, [0.43])[0]) == 5


def test_a_pause_of_a_program_stream_stays():
    right = np.arange(40) * 100
    right[20:] += 100
    traits = replace(TRAITS, is_reordered=True, states_all=False)

    clock = mend(right, right, right == 0, traits)

    assert (clock.pts.tolist(), clock.codes) == (right.tolist(), ())


@pytest.mark.parametrize("short", [15, 30, 50])
def test_a_long_step_and_a_short_one_of_a_variable_rate_stay(short):
    right = np.cumsum([0, *[100] * 9, 200, *[100] * 5, short, *[100] * 10])
    traits = replace(TRAITS, is_reordered=True, states_all=False)

    clock = mend(right, right, right == 0, traits)

    assert (clock.pts.tolist(), clock.codes) == (right.tolist(), ())
