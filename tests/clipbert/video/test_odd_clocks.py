"""Odd files of public bug reports, whose manifest says what is right."""

import json
from pathlib import Path

import numpy as np
import pytest
from videos import decode_sound_clips

from clipbert.sampling.plan import INDEX_PLAN
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import decode_frames, probe_video

ODD = Path(__file__).parent.parent.parent / "odd"
MANIFEST = json.loads((ODD / "manifest.json").read_text())
SHOWN = ("last_delta_huge.mp4", "late_video.mp4", "ts_wrap.ts", "cover_first.mp4")
LISTED = ("joined.ts", "one_late_stamp.ts")
NUM_BITS = 10


def cell_number(frame: np.ndarray) -> int:
    """Read the number in ten cells across the middle of a frame."""
    height, width = frame.shape[:2]
    band = frame[int(height * 0.42) : int(height * 0.58)]
    bits = [
        band[:, int((bit + 0.3) * width / NUM_BITS) : int((bit + 0.7) * width / NUM_BITS)].mean()
        for bit in range(NUM_BITS)
    ]
    return sum(1 << bit for bit, mean in enumerate(bits) if mean > 127)


@pytest.mark.parametrize("name", SHOWN)
def test_each_frame_of_an_odd_file_is_on_screen_when_it_should_be(name):
    right = MANIFEST[name]

    probe = probe_video(ODD / name)
    frames = decode_frames(ODD / name, [second for second, _ in right["shown"]])

    assert [cell_number(frame) for frame in frames] == [number for _, number in right["shown"]]
    assert probe.duration_seconds == pytest.approx(right["duration"])
    assert probe.starts_at_seconds == pytest.approx(right.get("player_offset", 0.0))


@pytest.mark.parametrize("name", LISTED)
def test_an_odd_transport_stream_has_all_its_frames(name):
    right = MANIFEST[name]

    probe = probe_video(ODD / name)
    instants = [(place + 0.5) / 10 for place in range(probe.num_frames)]
    numbers = [cell_number(frame) for frame in decode_frames(ODD / name, instants)]

    assert probe.duration_seconds == pytest.approx(right["duration"])
    assert set(right["has"]) <= set(numbers)
    assert len(set(numbers)) == len(numbers) == probe.num_frames
    assert numbers == sorted(numbers)


def test_of_a_film_with_a_rubbish_tail_the_first_seconds_are_there_and_nothing_wrong():
    path = ODD / "corrupt_tail.mp4"

    sound = decode_sound_clips(path, plan_clips(probe_video(path), INDEX_PLAN))

    assert sound.clips
    for clip, frames in zip(sound.clips, sound.frames, strict=True):
        assert cell_number(frames[0]) == int(clip.instants[0] * 10 + 1e-6)
    assert [clip.instants[0] for clip in sound.clips][:2] == [1.25, 3.75]
    ((start, end),) = sound.damaged_spans
    assert start >= 6.0
    assert end == pytest.approx(10.0)
