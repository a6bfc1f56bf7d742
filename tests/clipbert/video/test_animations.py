"""Animated pictures are videos, with the time of each frame; of one frame, they are stills."""

import numpy as np
import pytest
from odd_frames import ODD, cell_frame, cell_number
from PIL import Image

from clipbert.errors import UnsupportedMedia
from clipbert.video.decode import decode_frames, probe_video

DURATIONS = (500, 250, 1000, 40)  # milliseconds


def write_animation(path, durations=DURATIONS, **settings):
    pictures = [Image.fromarray(cell_frame(number)) for number in range(len(durations))]
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=list(durations), **settings
    )
    return path


def test_the_animated_odd_file_is_a_video():
    probe = probe_video(ODD / "animated.png")
    frames = decode_frames(ODD / "animated.png", [number / 2 for number in range(8)])

    assert (probe.is_still, probe.num_frames, probe.duration_seconds) == (False, 8, 4.0)
    assert [cell_number(frame) for frame in frames] == list(range(8))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("v.gif", {}), ("v.gif", {"loop": 0}), ("v.png", {}), ("v.png", {"loop": 3}), ("v.avif", {})],
)
def test_each_frame_of_an_animation_lasts_as_long_as_it_says(tmp_path, name, settings):
    path = write_animation(tmp_path / name, **settings)

    probe = probe_video(path)
    frames = decode_frames(path, [0.0, 0.49, 0.51, 0.74, 0.76, 1.74, 1.76, 1.78])

    assert probe.duration_seconds == pytest.approx(1.79, abs=0.011)  # once, however often it loops
    assert probe.num_frames == 4
    assert not probe.is_still
    assert [cell_number(frame) for frame in frames] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_picture_for_viewers_that_know_no_animation_is_no_part_of_it(tmp_path):
    path = write_animation(tmp_path / "v.png", default_image=True, durations=(500,) * 4)

    probe = probe_video(path)

    assert (probe.num_frames, probe.is_still) == (3, False)
    assert [cell_number(frame) for frame in decode_frames(path, [0.0, 0.6, 1.1])] == [1, 2, 3]


@pytest.mark.parametrize("name", ["v.gif", "v.png", "v.avif"])
def test_an_animation_of_one_frame_is_a_still(tmp_path, name):
    path = write_animation(tmp_path / name, durations=(500,))

    probe = probe_video(path)

    assert (probe.is_still, probe.num_frames, probe.duration_seconds) == (True, 1, 0.0)
    assert cell_number(decode_frames(path, [0.0])[0]) == 0


def test_an_animated_webp_is_refused_by_name(tmp_path):
    path = write_animation(tmp_path / "v.webp")

    with pytest.raises(UnsupportedMedia, match=r"v\.webp is an animated WebP, .* not read here"):
        probe_video(path)


def test_motion_jpeg_without_a_container_is_refused_by_name_and_one_picture_is_not(tmp_path):
    pictures = []
    for number in range(3):
        Image.fromarray(cell_frame(number, 160, 96)).save(tmp_path / "p.jpg", quality=90)
        pictures.append((tmp_path / "p.jpg").read_bytes())
    path = tmp_path / "v.mjpeg"
    path.write_bytes(b"".join(pictures))

    with pytest.raises(UnsupportedMedia, match=r"v\.mjpeg is Motion JPEG without a container"):
        probe_video(path)

    for count in (1, 2):  # cameras append a small preview
        path.write_bytes(b"".join(pictures[:count]))
        assert probe_video(path).is_still


def test_a_frame_of_an_animation_that_clears_what_was_drawn_shows_the_ground(tmp_path):
    pixels = np.zeros((32, 32, 4), dtype=np.uint8)
    pixels[:16] = (200, 0, 0, 255)
    pictures = [Image.fromarray(pixels), Image.fromarray(pixels[::-1].copy())]
    path = tmp_path / "v.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=500, disposal=2)

    second = decode_frames(path, [0.6])[0]

    assert np.abs(second[:15] - 255.0).max() <= 2
    assert np.abs(second[17:] - np.array([200.0, 0, 0])).max() <= 10


def test_the_avif_odd_file_is_a_still():
    probe = probe_video(ODD / "still.avif")

    assert (probe.is_still, probe.width, probe.height) == (True, 160, 96)
    assert cell_number(decode_frames(ODD / "still.avif", [0.0])[0]) == 0
