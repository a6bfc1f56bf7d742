"""HEIC and AVIF pictures are whole: all tiles, as they are to be held, and nothing hidden shows."""

import numpy as np
import pytest
from heif_writer import ALPHA, Heif, turned
from odd_frames import cell_frame, cell_number, corner_error
from PIL import Image, ImageOps

from clipbert.errors import UnsupportedMedia, VideoError
from clipbert.video.colour import GROUND
from clipbert.video.decode import decode_frames, probe_video
from clipbert.video.probed_video import MediaLimits

KINDS = [(b"hvc1", "v.heic"), (b"av01", "v.avif")]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_single_picture_with_a_thumbnail_before_it(tmp_path, kind, name):
    heif = Heif(kind)
    thumbnail = heif.add_picture(cell_frame(1, 64, 64))
    heif.primary = heif.add_picture(cell_frame(6, 320, 192))
    heif.references.append((b"thmb", thumbnail, [heif.primary]))
    path = heif.write(tmp_path / name)

    probe, frame = probe_video(path), decode_frames(path, [0.0])[0]

    assert (probe.is_still, probe.num_frames, probe.duration_seconds) == (True, 1, 0.0)
    assert (probe.width, probe.height) == (320, 192) == frame.shape[1::-1]
    assert cell_number(frame) == 6
    assert corner_error(frame) <= 12


@pytest.mark.parametrize(("kind", "name"), KINDS)
@pytest.mark.parametrize("quarter_turns", [0, 1, 3])
def test_a_grid_of_tiles_is_shown_whole(tmp_path, kind, name, quarter_turns):
    heif = Heif(kind)
    heif.add_picture(cell_frame(1, 64, 64))
    # 5 x 3 tiles, the last of them cut off.
    heif.primary = heif.add_grid(cell_frame(9, 310, 186), turned(quarter_turns))
    path = heif.write(tmp_path / name)

    probe = probe_video(path)
    frame = decode_frames(path, [0.0])[0]
    small = decode_frames(path, [0.0], max_side_px=155)[0]

    assert probe.is_still
    assert (probe.width, probe.height) == ((310, 186), (186, 310))[quarter_turns % 2]
    upright = np.rot90(frame, -quarter_turns)
    assert upright.shape == (186, 310, 3)
    assert cell_number(upright) == 9
    assert corner_error(upright) <= 12
    assert max(small.shape) == 155


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_phone_s_picture_of_many_tiles_is_not_too_many_streams(tmp_path, kind, name):
    heif = Heif(kind)
    heif.primary = heif.add_grid(cell_frame(5, 512, 320))  # 8 x 5
    path = heif.write(tmp_path / name)

    assert cell_number(decode_frames(path, [0.0], limits=MediaLimits(max_streams=16))[0]) == 5


def hidden(width, height):
    alpha = np.zeros((height, width, 3), dtype=np.uint8)
    alpha[:, : width // 2] = 255
    return alpha


@pytest.mark.parametrize(("kind", "name"), KINDS)
@pytest.mark.parametrize("in_tiles", [False, True])
def test_what_a_picture_hides_is_not_shown(tmp_path, kind, name, in_tiles):
    heif = Heif(kind)
    add = heif.add_grid if in_tiles else heif.add_picture
    heif.primary = add(np.full((128, 192, 3), (250, 0, 250), dtype=np.uint8))
    alpha = add(hidden(192, 128), ALPHA)
    heif.references.append((b"auxl", alpha, [heif.primary]))
    path = heif.write(tmp_path / name)

    frame = decode_frames(path, [0.0])[0].astype(int)

    assert np.abs(frame[:, :90] - (250, 0, 250)).max() <= 10
    assert np.abs(frame[:, 102:] - GROUND).max() <= 6


def test_pillow_s_avif_with_alpha_hides_what_it_hides(tmp_path):
    pixels = np.full((64, 96, 4), (250, 0, 250, 255), dtype=np.uint8)
    pixels[:, 48:, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "v.avif")

    frame = decode_frames(tmp_path / "v.avif", [0.0])[0].astype(int)

    assert np.abs(frame[:, :40] - (250, 0, 250)).max() <= 10
    assert np.abs(frame[:, 56:] - GROUND).max() <= 6


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_held_as_pillow_holds_it(tmp_path, orientation, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(cell_frame(3)).convert(mode)
    if mode == "RGBA":
        picture.putpixel((0, 0), (0, 0, 0, 254))  # so that the transparency is kept
    picture.save(tmp_path / "v.avif", exif=exif)

    frame = decode_frames(tmp_path / "v.avif", [0.0])[0]

    with Image.open(tmp_path / "v.avif") as opened:
        wanted = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert frame.shape == wanted.shape
    assert np.abs(frame.astype(int) - wanted).mean() < 4


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_picture_that_lacks_a_tile_is_refused(tmp_path, kind, name):
    heif = Heif(kind)
    heif.primary = heif.add_grid(cell_frame(5, 128, 128))
    heif.references[0][2].pop()

    with pytest.raises(VideoError):
        probe_video(heif.write(tmp_path / name))


def test_a_grid_whose_tiles_are_not_named_is_refused(tmp_path):
    heif = Heif(b"av01")
    heif.primary = heif.add_grid(cell_frame(5, 128, 128))
    heif.references.clear()

    with pytest.raises(UnsupportedMedia, match=r"v\.avif has an index of pictures"):
        probe_video(heif.write(tmp_path / "v.avif"))


def test_a_picture_over_the_limit_is_refused_before_it_is_put_together(tmp_path):
    heif = Heif(b"av01")
    heif.primary = heif.add_grid(cell_frame(5, 192, 128))
    path = heif.write(tmp_path / "v.avif")

    with pytest.raises(VideoError) as raised:
        probe_video(path, limits=MediaLimits(max_pixels=191 * 128))

    assert raised.value.code == "media_too_large"


def test_an_overlay_is_refused_by_name(tmp_path):
    heif = Heif(b"av01")
    heif.add_picture(cell_frame(5, 64, 64))
    heif.primary = heif.add_grid(cell_frame(5, 128, 128))
    _, payload, owned = heif.items[-1]
    heif.items[-1] = (b"iovl", payload, owned)

    with pytest.raises(VideoError, match="iovl"):
        probe_video(heif.write(tmp_path / "v.avif"))
