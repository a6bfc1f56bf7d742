"""Stills are whole, held and sized as Pillow says; their pixels are FFmpeg's."""

import io

import numpy as np
import pytest
from odd_frames import cell_frame, cell_number, corner_error
from PIL import Image, ImageOps

from clipbert.errors import TruncatedMedia, VideoError
from clipbert.video.decode import decode_frames, probe_video


def saved(form, mode="RGB", **settings):
    content = io.BytesIO()
    picture = Image.fromarray(cell_frame(5, 320, 192)).convert(mode)
    if form == "MPO":
        settings |= {"save_all": True, "append_images": [picture]}
    picture.save(content, form, **settings)
    return content.getvalue()


def turned(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


STILLS = {
    "plain.jpg": lambda: saved("JPEG"),
    "progressive.jpg": lambda: saved("JPEG", progressive=True),
    "cmyk.jpg": lambda: saved("JPEG", "CMYK"),
    "grey.jpg": lambda: saved("JPEG", "L"),
    "phone.jpg": lambda: saved("MPO"),
    "plain.png": lambda: saved("PNG"),
    "palette.png": lambda: saved("PNG", "P"),
    "grey16.png": lambda: saved("PNG", "I;16"),
    "lossy.webp": lambda: saved("WEBP"),
    "lossless.webp": lambda: saved("WEBP", lossless=True),
    "plain.avif": lambda: saved("AVIF"),
    "one.gif": lambda: saved("GIF"),
}


def pillow_reads(content):
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    except (OSError, SyntaxError, EOFError):
        return False
    return True


@pytest.mark.parametrize("name", STILLS)
def test_a_still_that_pillow_finds_cut_off_is_refused(tmp_path, name):
    content = STILLS[name]()
    path = tmp_path / name

    path.write_bytes(content)
    assert pillow_reads(content)
    assert probe_video(path).is_still

    for share in (0.1, 0.3, 0.6, 0.9, 0.98):
        path.write_bytes(content[: int(len(content) * share)])
        if not pillow_reads(path.read_bytes()):
            with pytest.raises(VideoError):
                decode_frames(path, [probe_video(path).last_frame_seconds])


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_gif_that_was_cut_is_named_as_that(tmp_path, share):
    content = saved("GIF")
    (tmp_path / "v.gif").write_bytes(content[: int(len(content) * share)])

    with pytest.raises(TruncatedMedia, match=r"v\.gif ends before"):
        probe_video(tmp_path / "v.gif")


def test_a_gif_without_an_end_mark_is_whole(tmp_path):
    (tmp_path / "v.gif").write_bytes(saved("GIF").removesuffix(b";"))

    assert cell_number(decode_frames(tmp_path / "v.gif", [0.0])[0]) == 5


@pytest.mark.parametrize("name", [name for name in STILLS if "16" not in name])
def test_a_still_has_pillow_s_size_and_colours(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(STILLS[name]())

    probe, frame = probe_video(path), decode_frames(path, [0.0])[0]

    with Image.open(path) as picture:
        assert (probe.width, probe.height) == picture.size
        wanted = np.asarray(picture.convert("RGB"))
    assert np.abs(frame.astype(int) - wanted).mean() < 3
    assert cell_number(frame) == 5


@pytest.mark.parametrize("value", range(9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_still_is_held_as_its_exif_notes_say(tmp_path, form, value):
    path = tmp_path / f"v.{form.lower()}"
    path.write_bytes(saved(form, exif=turned(value)))

    frame = decode_frames(path, [0.0])[0]

    with Image.open(path) as picture:
        wanted = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    assert frame.shape == wanted.shape
    assert np.abs(frame.astype(int) - wanted).mean() < 3


def test_a_photograph_keeps_its_full_range(tmp_path):
    path = tmp_path / "v.jpg"
    path.write_bytes(saved("JPEG", quality=95))

    assert corner_error(decode_frames(path, [0.0])[0]) <= 8
