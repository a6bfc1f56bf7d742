"""Pictures that begin after the sound: a player's clock runs from the first of both."""

from fractions import Fraction

import av
import numpy as np
import pytest
from videos import FRAME_HEIGHT, FRAME_WIDTH, counting_frame, frame_number

from clipbert.video.decode import decode_frames, probe_video

FPS, LATE_SECONDS, SAMPLES, RATE = 10, 2, 1152, 48_000


def write_late_pictures(path):
    """Write four seconds of silence, with pictures from the third second on."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("mp2", rate=RATE)
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = FRAME_WIDTH, FRAME_HEIGHT, "yuv420p"
        for index in range(4 * RATE // SAMPLES):
            silence = np.zeros((1, 2 * SAMPLES), dtype=np.int16)
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="stereo")
            frame.sample_rate, frame.pts = RATE, index * SAMPLES
            frame.time_base = Fraction(1, RATE)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(counting_frame(number), format="rgb24")
            frame.pts, frame.time_base = number + LATE_SECONDS * FPS, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


@pytest.mark.parametrize("ending", ["ts", "mkv", "mp4", "mov"])
def test_the_probe_says_when_a_player_shows_the_first_picture(ending, tmp_path):
    path = write_late_pictures(tmp_path / f"v.{ending}")

    probe = probe_video(path)
    frames = decode_frames(path, [0.0, 0.55, 1.95])

    assert probe.starts_at_seconds == pytest.approx(LATE_SECONDS, abs=0.06)  # sound has a lead-in
    assert probe.duration_seconds == pytest.approx(2.0, abs=0.1)
    assert [frame_number(frame) for frame in frames] == [0, 5, 19]
