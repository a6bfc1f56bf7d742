"""Containers that do not state when each frame is shown, and recordings that break off."""

import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from videos import (
    counting_frame,
    frame_number,
    join,
    remux,
    remux_at,
    shift_ts_stamps,
    write_counting_video,
    write_video,
)

from clipbert.inference.clips import decode_clips
from clipbert.sampling.plan import INDEX_PLAN, SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import decode_frames, probe_video

SAMPLES = Path(__file__).parents[3] / "samples"


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_an_avi_with_an_empty_chunk_after_each_frame(codec, b_frames, tmp_path):
    path = write_counting_video(
        tmp_path / "v.avi",
        60,
        fps=50,
        codec=codec,
        b_frames=b_frames,
        timestamps=range(0, 120, 2),
        time_base=Fraction(1, 50),
    )

    probe = probe_video(path)
    frames = decode_frames(path, [(number + 0.5) / 25 for number in range(60)])

    assert [frame_number(frame) for frame in frames] == list(range(60))
    assert (probe.num_frames, probe.duration_seconds) == (60, pytest.approx(2.4))
    decode_clips(path, plan_clips(probe, INDEX_PLAN))


@pytest.mark.parametrize("b_frames", [0, 2, 3])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_pause_in_an_avi_is_followed(codec, b_frames, tmp_path):
    ticks = [*range(40), *range(140, 180)]
    path = write_counting_video(
        tmp_path / "v.avi",
        80,
        codec=codec,
        b_frames=b_frames,
        timestamps=ticks,
        time_base=Fraction(1, 25),
    )

    probe = probe_video(path)
    instants = [tick / 25 for tick in ticks]
    frames = decode_frames(path, [*instants, 4.0, 5.59])

    assert [frame_number(frame) for frame in frames] == [*range(80), 39, 39]
    stamps = (probe.frame_pts - probe.start_pts) * float(probe.time_base)
    np.testing.assert_allclose(stamps, instants)
    assert set(probe.keyframe_seconds) <= set(stamps.tolist())


def test_chunks_that_an_encoder_leaves_empty_at_the_start_are_no_pause(tmp_path):
    # As libxvid writes B-frames: it holds frames back, and gives fewer than it took.
    source = write_counting_video(tmp_path / "source.avi", 60, codec="mpeg4", b_frames=2)
    path = remux_at(source, tmp_path / "v.avi", [0, 2, 3, *range(5, 62)])

    frames = decode_frames(path, [(number + 0.5) / 25 for number in range(60)])

    assert [frame_number(frame) for frame in frames] == list(range(60))
    assert probe_video(path).last_frame_seconds == pytest.approx(59 / 25)


@pytest.mark.parametrize("offset", ["95440", "-0.16"], ids=["wrap", "negative"])
def test_a_transport_stream_that_starts_before_time_0_begins_at_its_first_frame(offset, tmp_path):
    # The clock of MPEG-TS wraps after 95443.7 s, and FFmpeg then counts from below 0.
    source = write_counting_video(tmp_path / "v.mp4", 60, b_frames=2)
    options = {"output_ts_offset": offset, "mpegts_copyts": "1", "avoid_negative_ts": "0"}
    path = remux(source, tmp_path / "v.ts", options=options)

    frames = decode_frames(path, [number / 25 for number in range(60)])

    assert probe_video(path).start_pts < 0
    assert [frame_number(frame) for frame in frames] == list(range(60))


def test_a_seek_to_the_middle_of_a_frame_begins_at_the_next_one(tmp_path):
    # Packets of MPEG-PS begin within frames; FFmpeg gives the rest of one the time of the next.
    path = write_counting_video(tmp_path / "v.mpg", 250, codec="mpeg4", gop=33)

    for number in range(130, 165, 5):
        assert frame_number(decode_frames(path, [(number + 0.5) / 25])[0]) == number


def write_second_recording(path: Path, **settings) -> Path:
    return write_video(path, (counting_frame(1000 + i) for i in range(150)), **settings)


RECORDINGS = {"ts": {"b_frames": 2}, "mpg": {"codec": "mpeg2video", "b_frames": 2}}


@pytest.mark.parametrize("suffix", RECORDINGS)
def test_recordings_strung_together_are_one_video(suffix, tmp_path):
    first = write_counting_video(tmp_path / f"1.{suffix}", 100, **RECORDINGS[suffix])
    second = write_second_recording(tmp_path / f"2.{suffix}", **RECORDINGS[suffix])
    path = join(tmp_path / f"v.{suffix}", first, second)

    probe = probe_video(path)

    assert (probe.num_frames, probe.duration_seconds) == (250, pytest.approx(10.0))
    shown = {0: 0, 30: 30, 55: 55, 98: 98, 99: 99, 100: 1000, 101: 1001, 180: 1080, 249: 1149}
    frames = decode_frames(path, [place / 25 for place in shown])
    assert [frame_number(frame) for frame in frames] == list(shown.values())
    for place, number in shown.items():  # a seek may find either recording
        assert frame_number(decode_frames(path, [place / 25])[0]) == number


@pytest.mark.parametrize("seconds", [-2.02, 3600])
def test_one_damaged_time_is_no_other_recording(seconds, tmp_path):
    source = write_counting_video(tmp_path / "source.ts", 100)
    path = shift_ts_stamps(source, tmp_path / "v.ts", {60: seconds})

    assert probe_video(path).num_frames == 100
    assert frame_number(decode_frames(path, [99 / 25])[0]) == 99


def test_a_chained_ogg_is_one_video_of_all_its_links(tmp_path):
    sample = SAMPLES / "grand_prix_1906.ogv"
    path = join(tmp_path / "v.ogv", sample, sample)

    whole, probe = probe_video(sample), probe_video(path)

    assert probe.start_pts == whole.start_pts
    assert probe.num_frames == 2 * whole.num_frames
    assert probe.duration_seconds == pytest.approx(2 * whole.duration_seconds, abs=0.3)
    for seed in range(4):
        plan = SamplingPlan("keyframes", num_clips=4)
        generator = random.Random(seed)  # noqa: S311
        decode_clips(path, plan_clips(probe, plan, generator=generator), max_side_px=64)
    # The second link shows what the first does.
    first, second = decode_frames(path, [5.0, 5.0 + probe.duration_seconds / 2], max_side_px=64)
    assert np.abs(first.astype(int) - second).mean() < 20


@pytest.mark.parametrize("settings", RECORDINGS.values(), ids=["h264", "mpeg2"])
def test_a_transport_stream_with_an_empty_tail_ends_before_it(settings, tmp_path):
    source = write_counting_video(tmp_path / "source.ts", 120, **settings)
    data = source.read_bytes()
    kept = len(data) * 7 // 10
    path = tmp_path / "v.ts"
    path.write_bytes(data[:kept] + bytes(len(data) - kept))

    probe = probe_video(path)
    clips = decode_clips(path, plan_clips(probe, INDEX_PLAN))

    assert 60 < probe.num_frames < 100
    assert [frame_number(clip[0]) for clip in clips] == [
        int(clip.instants[0] * 25 + 1e-6) for clip in plan_clips(probe, INDEX_PLAN)
    ]


@pytest.mark.parametrize("num_junk_bytes", [1, 100, 191])
def test_a_transport_stream_may_begin_within_a_packet(num_junk_bytes, tmp_path):
    source = write_counting_video(tmp_path / "source.ts", 60)
    path = tmp_path / "v.ts"
    path.write_bytes(bytes(num_junk_bytes) + source.read_bytes())

    assert probe_video(path).num_frames == 60
    assert frame_number(decode_frames(path, [1.0])[0]) == 25


def test_frames_begin_at_the_first_presented_one_whatever_its_timestamp(tmp_path):
    source = write_counting_video(tmp_path / "v.mp4", 60, b_frames=2)
    # A recording of a broadcast begins at the hour of the day.
    path = remux(source, tmp_path / "v.ts", options={"output_ts_offset": "50000"})

    frames = decode_frames(path, [0.0, 1.0, 2.36])

    assert probe_video(path).start_pts > 4_000_000_000
    assert [frame_number(frame) for frame in frames] == [0, 25, 59]
