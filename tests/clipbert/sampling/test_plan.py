import json
import math
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videos import frame_number, write_counting_video

from clipbert.errors import FrameNotFound, NoFrameCount
from clipbert.sampling.plan import INDEX_PLAN, SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import decode_frames, probe_video
from clipbert.video.probed_video import VideoProbe

PARITY = json.loads((Path(__file__).parents[2] / "parity" / "sampling.json").read_text())


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 (sampling, not a secret)


def make_probe(
    num_frames: int = 250, *, fps: float = 25.0, gop: int = 12, header: bool = True
) -> VideoProbe:
    """A constant-rate video's probe; without header it counts no frames, as MPEG-TS does."""
    ticks = 12_800
    frame_pts = np.round(np.arange(num_frames) * ticks / fps).astype(np.int64)
    length = num_frames / fps
    return VideoProbe(
        duration_seconds=length,
        last_frame_seconds=float(frame_pts[-1]) / ticks,
        width=320,
        height=240,
        rotation_degrees=0,
        average_fps=fps,
        num_frames=num_frames,
        header_num_frames=num_frames if header else 0,
        header_duration_pts=round(length * ticks),
        time_base=Fraction(1, ticks),
        start_pts=0,
        keyframe_seconds=tuple((frame_pts[::gop] / ticks).tolist()),
        codec="h264",
        container="mov",
        is_still=False,
        frame_pts=frame_pts,
    )


def parity_plans(case: dict) -> list[tuple[SamplingPlan, random.Random | None, list[list[int]]]]:
    """A parity case as (plan, generator, frames of each clip)."""
    placing = {
        "frames_per_second": float(case.get("fps", 2)),
        "frames_per_clip": case.get("num_frm", 2),
    }
    if "uniform_n_clips" in case:
        plan = SamplingPlan("authors", num_clips=case["uniform_n_clips"], **placing)
        return [(plan, None, case["frames"])]
    if case["strategy"] == "rand":
        plan = SamplingPlan("authors", num_clips=1, **placing)
        return [(plan, seeded(d["seed"]), [d["frames"]]) for d in case["draws"]]
    plan = SamplingPlan("authors", num_clips=1, strategy=case["strategy"], **placing)
    return [(plan, None, [case["frames"]])]


@pytest.mark.parametrize("video", PARITY, ids=lambda video: video["video"])
def test_authors_plan_takes_the_frames_that_the_authors_decoder_takes(video, tmp_path):
    is_matroska = video["video"] == "matroska"
    fps = Fraction(video.get("fps", 25)).limit_denominator(1001)
    path = write_counting_video(
        tmp_path / ("v.mkv" if is_matroska else "v.mp4"),
        video.get("n_frames", 50),
        fps=fps,
        codec="mpeg4",
    )
    probe = probe_video(path)
    assert probe.header_num_frames == video["stream_frames"]
    assert probe.header_duration_pts == video["duration_pts"]

    instants, expected = [], []
    for case in video["cases"]:
        for plan, generator, frames in parity_plans(case):
            clips = plan_clips(probe, plan, generator=generator)
            instants += [instant for clip in clips for instant in clip.instants]
            expected += [number for clip in frames for number in clip]
    shown = [frame_number(frame) for frame in decode_frames(path, instants)]

    assert len(expected) > 1
    assert shown == expected


def test_the_drawn_start_is_the_authors():
    case = PARITY[0]["cases"][9]
    assert case["strategy"] == "rand"
    free = 250 - 25

    for draw in case["draws"]:
        assert seeded(draw["seed"]).uniform(0, free) == draw["start_idx"]


def test_authors_training_clips_are_drawn_independently_and_unordered():
    plan = SamplingPlan("authors", num_clips=8, frames_per_clip=2)

    clips = plan_clips(make_probe(), plan, generator=seeded(0))

    starts = [clip.instants[0] for clip in clips]
    assert starts != sorted(starts)
    assert len(set(starts)) == 8


def test_authors_plan_without_a_frame_count_is_an_error_of_the_video():
    with pytest.raises(NoFrameCount):
        plan_clips(make_probe(header=False), SamplingPlan("authors"))


def test_authors_plan_without_a_frame_rate_is_an_error_of_the_video():
    probe = make_probe()
    object.__setattr__(probe, "average_fps", None)

    with pytest.raises(NoFrameCount):
        plan_clips(probe, SamplingPlan("authors"))


def test_authors_plan_of_a_header_with_too_long_a_duration_uses_the_timestamps():
    probe = make_probe()
    object.__setattr__(probe, "header_duration_pts", probe.header_duration_pts * 2)

    spread = plan_clips(probe, SamplingPlan("authors", num_clips=4, frames_per_clip=2))

    assert spread[3].instants[0] == pytest.approx(6.76, abs=0.05)
    # A single named clip trusts the header, as the authors' code does.
    end = SamplingPlan("authors", num_clips=1, frames_per_clip=2, strategy="end")
    with pytest.raises(FrameNotFound):
        plan_clips(probe, end)


def test_authors_training_clips_trust_the_header():
    # As their code: it makes sure of the duration only where clips are spread over the video.
    probe = make_probe()
    object.__setattr__(probe, "header_duration_pts", probe.header_duration_pts * 2)
    plan = SamplingPlan("authors", num_clips=1, frames_per_clip=2)
    free = 250 - 25

    starts = [seeded(seed).uniform(0, free) for seed in range(20)]
    reached = [seed for seed, start in enumerate(starts) if start < 120]

    for seed in reached:
        first = plan_clips(probe, plan, generator=seeded(seed))[0].instants[0]
        assert first == pytest.approx(starts[seed] * 2 / 25, abs=0.041)
    with pytest.raises(FrameNotFound):
        plan_clips(probe, plan, generator=seeded(starts.index(max(starts))))


@pytest.mark.parametrize(("strategy", "first"), [("start", 0), ("middle", 84), ("end", 167)])
def test_authors_window_shorter_than_a_frame_takes_the_frame_after_it(strategy, first):
    # Frames of a second, and a clip of half a one: it ends before it begins.
    probe = make_probe(250, fps=1.0)
    plan = SamplingPlan("authors", num_clips=1, frames_per_clip=1, strategy=strategy)

    clips = plan_clips(probe, plan)

    assert [clip.instants for clip in clips] == [(float(first),)]


def test_authors_plan_needs_timestamps():
    probe = VideoProbe.from_json(make_probe().to_json())

    with pytest.raises(ValueError, match="timestamps"):
        plan_clips(probe, SamplingPlan("authors"))


def test_segments_are_sampled_in_their_middle():
    plan = SamplingPlan(num_clips=3, frames_per_clip=2, clip_seconds=2.0)

    clips = plan_clips(make_probe(300), plan)

    assert [clip.instants for clip in clips] == [(1.0, 3.0), (5.0, 7.0), (9.0, 11.0)]
    assert [(clip.start_seconds, clip.end_seconds) for clip in clips] == [(0, 4), (4, 8), (8, 12)]


def test_one_clip_is_the_middle_of_the_video():
    clips = plan_clips(make_probe(250), SamplingPlan(num_clips=1))

    assert [clip.instants for clip in clips] == [(5.0,)]


def test_a_segment_shorter_than_the_clip_is_used_whole():
    plan = SamplingPlan(num_clips=2, frames_per_clip=3, clip_seconds=60.0)

    clips = plan_clips(make_probe(250), plan)

    assert clips[0].instants == (0.0, 2.5, 5.0)
    # The video ends at 10 s, but its last frame begins at 9.96 s.
    assert clips[1].instants == pytest.approx((5.0, 7.5, 9.96))


def test_training_draws_reach_every_part_of_every_segment():
    probe, plan = make_probe(250), SamplingPlan(num_clips=2)
    generator = seeded(0)

    draws = [plan_clips(probe, plan, generator=generator) for _ in range(400)]

    for index, (low, high) in enumerate([(0, 5), (5, 10)]):
        instants = [clips[index].instants[0] for clips in draws]
        assert min(instants) < low + 0.2
        assert max(instants) > high - 0.2
        assert all(low <= instant <= high for instant in instants)


def test_long_videos_get_a_clip_for_each_few_seconds():
    assert len(plan_clips(make_probe(250), INDEX_PLAN)) == 4  # at least
    assert len(plan_clips(make_probe(25 * 60), INDEX_PLAN)) == 15
    assert len(plan_clips(make_probe(25 * 3600), INDEX_PLAN)) == 256  # at most
    assert len(plan_clips(make_probe(1), INDEX_PLAN)) == 1  # no more clips than frames


def test_keyframes_moves_instants_to_the_nearest_keyframe():
    probe = make_probe(250, gop=50)  # a keyframe each 2 s

    clips = plan_clips(probe, SamplingPlan("keyframes", num_clips=3))

    assert [clip.instants for clip in clips] == [(2.0,), (4.0,), (8.0,)]
    assert clips[0].end_seconds == pytest.approx(10 / 3)


def test_a_window_is_sampled_as_if_it_were_the_video():
    plan = SamplingPlan("segments", num_clips=2)

    clips = plan_clips(make_probe(), plan, window=(2.0, 6.0))

    assert [clip.instants for clip in clips] == [(3.0,), (5.0,)]
    assert [(clip.start_seconds, clip.end_seconds) for clip in clips] == [(2.0, 4.0), (4.0, 6.0)]
    by_length = SamplingPlan("segments", num_clips=1, seconds_per_clip=2.0)
    assert len(plan_clips(make_probe(), by_length, window=(2.0, 6.0))) == 2


@pytest.mark.parametrize("window", [(0.0, 10.0), (2.0, 6.0), (3.1, 3.4), (9.5, 10.0), (4.0, 4.01)])
@pytest.mark.parametrize("name", ["segments", "keyframes", "authors"])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_clips_are_inside_their_window(window, name, seed):
    plan = SamplingPlan(name, num_clips=3, frames_per_clip=2)
    generator = None if seed is None else seeded(seed)

    clips = plan_clips(make_probe(), plan, generator=generator, window=window)

    assert len(clips) == 3
    one_frame = 1 / 25
    for clip in clips:
        assert len(clip.instants) == 2
        assert all(window[0] - one_frame <= at <= window[1] + one_frame for at in clip.instants)


def test_the_authors_clips_of_a_window_of_all_frames_are_their_own():
    plan = SamplingPlan("authors", num_clips=4, frames_per_clip=2)

    clips = plan_clips(make_probe(), plan, window=(0.0, 10.0))

    assert clips == plan_clips(make_probe(), plan)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "dense"},
        {"num_clips": 0},
        {"frames_per_clip": 0},
        {"max_clips": 3},
        {"clip_seconds": -1.0},
        {"clip_seconds": math.nan},
        {"frames_per_second": 0.0},
        {"seconds_per_clip": 0.0},
        {"strategy": "middle", "num_clips": 1},
        {"name": "authors", "strategy": "middle"},
        {"name": "authors", "strategy": "last", "num_clips": 1},
    ],
)
def test_a_plan_out_of_range_is_refused(fields):
    with pytest.raises(ValueError, match=r"need|named|single"):
        SamplingPlan(**fields)


plans = st.builds(
    SamplingPlan,
    name=st.sampled_from(["segments", "authors", "keyframes"]),
    num_clips=st.integers(1, 16),
    frames_per_clip=st.integers(1, 5),
    clip_seconds=st.floats(0, 20),
    frames_per_second=st.sampled_from([1.0, 2.0, 3.0]),
    seconds_per_clip=st.none() | st.floats(0.5, 60),
)
# One frame to ten hours.
probes = st.builds(
    make_probe,
    st.integers(1, 2000) | st.sampled_from([36_000 * 25]),
    fps=st.sampled_from([1.0, 10.0, 24.0, 25.0, 30_000 / 1001, 60.0]) | st.floats(0.5, 240),
    gop=st.integers(1, 300),
    header=st.booleans(),
)


@settings(deadline=None)
@given(probe=probes, plan=plans, seed=st.none() | st.integers(0, 100))
def test_clips_are_inside_ascending_counted_and_repeatable(probe, plan, seed):
    def planned():
        generator = None if seed is None else seeded(seed)
        return plan_clips(probe, plan, generator=generator)

    if plan.name == "authors" and probe.header_num_frames == 0:
        with pytest.raises(NoFrameCount):
            planned()
        return
    clips = planned()

    assert clips == planned()
    assert [clip.index for clip in clips] == list(range(len(clips)))
    if plan.seconds_per_clip is None or plan.name == "authors":
        assert len(clips) == plan.num_clips
    else:
        assert min(plan.num_clips, probe.num_frames) <= len(clips)
        assert len(clips) <= min(plan.max_clips, probe.num_frames)
    for clip in clips:
        assert len(clip.instants) == plan.frames_per_clip
        assert list(clip.instants) == sorted(clip.instants)
        assert clip.instants[0] >= 0
        assert clip.instants[-1] <= probe.last_frame_seconds
        assert 0 <= clip.start_seconds <= clip.end_seconds <= probe.duration_seconds
    if plan.name != "authors":  # the moments tile the video
        assert clips[0].start_seconds == 0
        assert clips[-1].end_seconds == probe.duration_seconds
        ends = [clip.end_seconds for clip in clips[:-1]]
        assert ends == [clip.start_seconds for clip in clips[1:]]


@settings(deadline=None)
@given(
    probe=probes,
    name=st.sampled_from(["segments", "authors", "keyframes"]),
    num_clips=st.integers(1, 64),
    seed=st.none() | st.integers(0, 100),
)
def test_clips_cover_the_video_the_better_the_more_there_are(probe, name, num_clips, seed):
    if name == "authors" and (probe.header_num_frames == 0 or seed is not None):
        return  # drawn anywhere, each by itself
    plan = SamplingPlan(name, num_clips=num_clips, max_clips=64)
    generator = None if seed is None else seeded(seed)

    clips = plan_clips(probe, plan, generator=generator)

    instants = sorted(instant for clip in clips for instant in clip.instants)
    gaps = np.diff([0.0, *instants, probe.last_frame_seconds])
    frame_seconds = 1 / probe.average_fps
    part_seconds = probe.duration_seconds / num_clips
    # What a plan may leave out besides two halves of parts that are next to each other.
    keyframes = np.diff([*probe.keyframe_seconds, probe.duration_seconds]).max()
    besides = {
        "segments": 0,
        "keyframes": keyframes,
        "authors": plan.frames_per_clip / plan.frames_per_second,
    }
    most = part_seconds * (1 if seed is None else 2) + besides[name] + 2 * frame_seconds
    assert gaps.max() <= most + 1e-6


@given(plan=plans)
def test_a_plan_survives_json(plan):
    assert SamplingPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_probe_survives_json_but_for_its_timestamps():
    probe = make_probe()

    again = VideoProbe.from_json(json.loads(json.dumps(probe.to_json())))

    assert again == probe
    assert len(again.frame_pts) == 0


def test_planning_imports_neither_torch_nor_av():
    code = (
        "import sys, clipbert, clipbert.errors, clipbert.sampling.plan, clipbert.sampling.authors\n"
        "assert not {'torch', 'av'} & set(sys.modules)\n"
        "import clipbert.video.decode\n"
        "assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
