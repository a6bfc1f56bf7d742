"""Where clips are placed in a video with holes."""

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from clipbert.errors import OutsideVideo
from clipbert.sampling.plan import INDEX_PLAN, SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.probed_video import VideoProbe

FPS = 10


def probe_with_gaps(*gaps: tuple[float, float], seconds: float) -> VideoProbe:
    """A video of 10 frames a second, a keyframe each second, without pictures in the gaps."""
    at = np.arange(round(seconds * FPS)) / FPS
    shown = at[~np.any([(at >= start - 1e-9) & (at < end - 1e-9) for start, end in gaps], axis=0)]
    return VideoProbe(
        duration_seconds=seconds,
        last_frame_seconds=float(shown[-1]),
        width=96,
        height=64,
        rotation_degrees=0,
        average_fps=FPS,
        num_frames=len(shown),
        header_num_frames=0,
        header_duration_pts=None,
        time_base=Fraction(1, 1000),
        start_pts=0,
        keyframe_seconds=tuple(shown[np.isclose(shown % 1, 0)].tolist()),
        codec="h264",
        container="mpegts",
        is_still=False,
        mended=("clock_gap",),
        gaps=gaps,
        frame_pts=np.round(shown * 1000).astype(np.int64),
    )


PLANS = [
    INDEX_PLAN,
    SamplingPlan(num_clips=1),
    SamplingPlan(num_clips=2, frames_per_clip=3, clip_seconds=60.0),
    SamplingPlan(num_clips=5, frames_per_clip=2),
    SamplingPlan("keyframes", num_clips=4),
    SamplingPlan("keyframes", num_clips=3, frames_per_clip=2, seconds_per_clip=2.0),
]
HOLES = {
    "one": ((4.0, 3604.0),),
    "two": ((1.0, 3.0), (3.5, 90.0)),
    "many": tuple((2 * i + 1.0, 2 * i + 2.0) for i in range(40)),
}


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("holes", HOLES)
@pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))
def test_no_instant_lies_in_a_gap(plan, holes, seed):
    gaps = HOLES[holes]
    probe = probe_with_gaps(*gaps, seconds=gaps[-1][1] + 4)
    generator = None if seed is None else random.Random(seed)  # noqa: S311

    clips = plan_clips(probe, plan, generator=generator)

    instants = [instant for clip in clips for instant in clip.instants]
    assert not [at for at in instants for start, end in gaps if start <= at < end]
    assert all(0 <= at <= probe.last_frame_seconds for at in instants)


@pytest.mark.parametrize("name", ["segments", "keyframes"])
def test_both_sides_of_a_gap_are_seen_and_tiled(name):
    probe = probe_with_gaps((4.0, 3604.0), seconds=3608.0)

    clips = plan_clips(probe, replace(INDEX_PLAN, name=name))

    spans = [(clip.start_seconds, clip.end_seconds) for clip in clips]
    assert spans == [(0, 2), (2, 4), (3604, 3606), (3606, 3608)]


def test_a_long_video_with_a_gap_gets_clips_for_its_pictures_only():
    probe = probe_with_gaps((40.0, 4000.0), seconds=4040.0)

    assert len(plan_clips(probe, INDEX_PLAN)) == 20  # 80 s of pictures, one for each 4


def test_a_single_clip_of_a_video_with_a_gap_is_the_middle_of_its_pictures():
    probe = probe_with_gaps((2.0, 100.0), seconds=108.0)

    clips = plan_clips(probe, SamplingPlan(num_clips=1))

    assert clips[0].instants == (pytest.approx(103.0),)


def test_a_window_over_a_gap_sees_both_sides_and_one_inside_it_is_refused():
    probe = probe_with_gaps((4.0, 100.0), seconds=110.0)

    clips = plan_clips(probe, SamplingPlan(num_clips=2), window=(2.0, 104.0))

    assert [clip.instants for clip in clips] == [(3.0,), (102.0,)]
    with pytest.raises(OutsideVideo, match="no pictures from 10 s to 90 s"):
        plan_clips(probe, SamplingPlan(num_clips=2), window=(10.0, 90.0))
