"""Pictures that a file asks to be turned or mirrored, as viewers show them."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from videos import corner_picture, show_mp4_by, turn_mp4, write_video

from clipbert.video.decode import decode_frames, probe_video


@pytest.mark.parametrize(("clockwise", "shown"), [(90, (96, 64)), (180, (64, 96)), (270, (96, 64))])
def test_rotation_is_honoured(clockwise, shown, tmp_path):
    picture = np.zeros((64, 96, 3), dtype=np.uint8)
    picture[:32, :48] = 255  # white top left corner
    upright = write_video(tmp_path / "v.mp4", [picture] * 5)
    path = turn_mp4(upright, tmp_path / "turned.mp4", clockwise_degrees=clockwise)

    probe = probe_video(path)
    frame = decode_frames(path, [0.1])[0]

    expected = np.rot90(picture, -clockwise // 90)
    assert frame.shape == (*shown, 3)
    assert (probe.height, probe.width) == shown
    assert np.abs(frame.astype(int) - expected).mean() < 5


MATRICES = {
    "left to right": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1)),
    "transverse": ((0, -1, -1, 0), lambda picture: picture[::-1, ::-1].swapaxes(0, 1)),
    "nearly 90": ((0.0002, 1, -1, 0.0002), lambda picture: np.rot90(picture, -1)),
    "just over 90": ((-0.0002, 1, -1, -0.0002), lambda picture: np.rot90(picture, -1)),
    "nearly 270": ((0.0002, -1, 1, 0.0002), np.rot90),
    "1": ((0.99985, 0.01745, -0.01745, 0.99985), lambda picture: picture),
    "twice as wide": ((2, 0, 0, 1), lambda picture: picture),
    "flat": ((1, 1, 1, 1), lambda picture: picture),
    "nothing": ((0, 0, 0, 0), lambda picture: picture),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_display_matrix_is_followed_to_the_nearest_quarter_turn(name, tmp_path):
    matrix, shown = MATRICES[name]
    source = write_video(tmp_path / "source.mp4", [corner_picture()] * 3)
    path = show_mp4_by(source, tmp_path / "v.mp4", matrix)

    probe = probe_video(path)
    frame = decode_frames(path, [0.0])[0]

    expected = shown(corner_picture())
    assert frame.shape == expected.shape == (probe.height, probe.width, 3)
    assert probe.rotation_degrees in (0, 90, 180, 270)
    assert np.abs(frame.astype(int) - expected).mean() < 5


def test_a_turned_frame_is_shrunk_by_its_longer_side(tmp_path):
    upright = write_video(tmp_path / "v.mp4", [np.zeros((240, 320, 3), dtype=np.uint8)] * 3)
    path = turn_mp4(upright, tmp_path / "turned.mp4", clockwise_degrees=90)

    assert decode_frames(path, [0.0], max_side_px=64).shape == (1, 64, 48, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_photograph_is_honoured(orientation, suffix, tmp_path):
    path = tmp_path / f"picture.{suffix}"
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    exif[0x0112] = orientation
    Image.fromarray(corner_picture()).save(path, exif=exif)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))

    probe = probe_video(path)
    frame = decode_frames(path, [0.0])[0]

    assert frame.shape == expected.shape == (probe.height, probe.width, 3)
    assert np.abs(frame.astype(int) - expected).mean() < 5


def test_broken_notes_leave_a_photograph_as_it_is(tmp_path):
    path = tmp_path / "picture.jpg"
    for notes in (
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    ):
        Image.fromarray(corner_picture()).save(path, exif=notes)

        assert decode_frames(path, [0.0]).shape == (1, 64, 96, 3)
