"""Frames are shown as a player shows them: their shape, their colours, nothing that is hidden."""

from fractions import Fraction

import av
import numpy as np
import pytest
from odd_frames import (
    CORNERS,
    ODD,
    as_frame,
    cell_frame,
    cell_number,
    corner_error,
    write_cells,
)
from PIL import Image
from videos import show_mp4_by, turn_mp4

from clipbert.video.colour import GROUND, RgbConverter
from clipbert.video.decode import decode_frames, probe_video
from clipbert.video.orientation import square_pixels_size

WHITE_NITS = 203
# BT.2087: linear RGB of BT.709 in BT.2020.
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def srgb_light(code):
    code = np.asarray(code, dtype=float) / 255
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def pq(nits):
    """SMPTE 2084, inverse EOTF."""
    power = (nits / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(nits):
    """BT.2100: light of a screen of 1,000 nits and gamma 1.2 -> signal."""
    shown = nits / 1000
    luminance = np.maximum(shown @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)
    scene = np.maximum(shown * luminance[..., None] ** (1 / 1.2 - 1), 0)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def hdr_frame(signal, *, trc, full_range=False, primaries=9, matrix=9, bits=10):
    """Code BT.2020 RGB signals (N, 3) as flat patches, 16 x 16 pixels each, side by side."""
    red, green, blue = signal.T
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    chroma = ((blue - luma) / 1.8814, (red - luma) / 1.4746)
    unit = 1 << (bits - 8)
    top = (1 << bits) - 1
    if full_range:
        planes = (luma * top, *(each * top + 128 * unit for each in chroma))
    else:
        planes = (
            16 * unit + 219 * unit * luma,
            *(128 * unit + 224 * unit * each for each in chroma),
        )
    frame = av.VideoFrame(16 * len(signal), 16, f"yuv444p{bits}le")
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((16, plane.line_size // 2), dtype=np.uint16)
        rows[:, : 16 * len(signal)] = np.repeat(np.round(values).astype(np.uint16), 16)
        plane.update(rows.tobytes())
    frame.color_trc, frame.color_primaries, frame.colorspace = trc, primaries, matrix
    frame.color_range = 2 if full_range else 1
    return frame


def shown(frame, *, height=None, width=None, is_still=False):
    converter = RgbConverter(name="v.mp4", is_still=is_still)
    return converter.to_rgb(frame, height or frame.height, width or frame.width)


def patches(pixels):
    return pixels[8, 8::16].astype(float)


# --- shape


def test_pixels_that_are_not_square_make_a_wider_picture():
    path = ODD / "sar.mp4"  # 720 x 576, pixels of 64:45

    probe, frames = probe_video(path), decode_frames(path, [0.0, 0.5])

    assert (probe.width, probe.height) == (1024, 576)
    assert frames.shape == (2, 576, 1024, 3)
    assert [cell_number(frame) for frame in frames] == [0, 12]
    assert max(corner_error(frame) for frame in frames) < 10


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mpg", ".avi", ".mov", ".asf", ".flv"])
@pytest.mark.parametrize(("aspect", "wanted"), [("16/11", (256, 144)), ("8/9", (176, 162))])
def test_the_shape_of_pixels_is_read_from_each_container_or_its_codec(
    tmp_path, suffix, aspect, wanted
):
    codec = "mpeg2video" if suffix == ".mpg" else "libx264"
    if suffix == ".mpg":  # MPEG-2 states the shape of the picture, 4:3, 16:9 or 2.21:1
        aspect, wanted = "16/11", (256, 144)
    path = write_cells(
        tmp_path / f"v{suffix}", 12, codec=codec, size=(176, 144), pixel_aspect=Fraction(aspect)
    )

    probe = probe_video(path)
    small = decode_frames(path, [0.5], max_side_px=96)[0]

    assert (probe.width, probe.height) == wanted
    # Shrunk, but for the pixel that the paper's code cuts off.
    assert max(small.shape) == 96
    assert small.shape[1] / small.shape[0] == pytest.approx(wanted[0] / wanted[1], rel=0.02)
    assert cell_number(small) == 5


@pytest.mark.parametrize("clockwise_degrees", [90, 180, 270])
def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path, clockwise_degrees):
    source = write_cells(tmp_path / "s.mp4", 3, size=(176, 144), pixel_aspect=Fraction(16, 11))
    path = turn_mp4(source, tmp_path / "v.mp4", clockwise_degrees=clockwise_degrees)

    probe, frame = probe_video(path), decode_frames(path, [0.1])[0]

    upright = np.rot90(frame, clockwise_degrees // 90)
    wanted = (256, 144) if clockwise_degrees == 180 else (144, 256)
    assert (probe.width, probe.height) == wanted == frame.shape[1::-1]
    assert cell_number(upright) == 1
    assert corner_error(upright) < 10


def test_pixels_are_made_square_in_a_mirrored_picture_too(tmp_path):
    source = write_cells(tmp_path / "s.mp4", 3, size=(176, 144), pixel_aspect=Fraction(16, 11))
    path = show_mp4_by(source, tmp_path / "v.mp4", (-1, 0, 0, 1))

    frame = decode_frames(path, [0.2])[0]

    assert frame.shape == (144, 256, 3)
    assert cell_number(frame[:, ::-1]) == 2


@pytest.mark.parametrize(
    ("aspect", "wanted"),
    [
        (Fraction(64, 45), (1024, 576)),
        (Fraction(8, 9), (720, 648)),
        (Fraction(1, 2), (720, 1152)),
        (Fraction(1), (720, 576)),
        (None, (720, 576)),
        (Fraction(0), (720, 576)),
        (Fraction(1000), (720, 576)),
        (Fraction(1, 1000), (720, 576)),
        (Fraction(-1), (720, 576)),
    ],
)
def test_one_side_is_drawn_out_and_absurd_pixels_are_taken_for_square(aspect, wanted):
    assert square_pixels_size(720, 576, aspect) == wanted


def test_the_resolution_of_a_print_does_not_change_the_shape_of_a_photograph(tmp_path):
    Image.fromarray(cell_frame(3)).save(tmp_path / "p.jpg", dpi=(300, 150))

    probe = probe_video(tmp_path / "p.jpg")

    assert (probe.width, probe.height) == (160, 96)


# --- HDR


def test_a_hdr_file_shows_the_colours_of_its_sdr_original():
    frames = decode_frames(ODD / "hdr_pq.mp4", [index / 10 for index in range(10)])

    assert [cell_number(frame) for frame in frames] == list(range(10))
    assert max(corner_error(frame) for frame in frames) <= 10


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize(("trc", "code"), [(16, pq), (18, hlg)])
def test_hdr_up_to_diffuse_white_is_within_10_of_255_of_its_sdr_original(
    trc, code, bits, full_range
):
    steps = np.array([0, 16, 64, 128, 192, 235, 255])
    grey = np.stack([steps] * 3, axis=1)
    mixed = np.array([*CORNERS, (200, 120, 90), (60, 90, 140), (250, 250, 40), (30, 60, 30)])
    original = np.concatenate([grey, mixed])
    light = srgb_light(original) @ TO_BT2020.T

    pixels = shown(hdr_frame(code(WHITE_NITS * light), trc=trc, bits=bits, full_range=full_range))

    assert np.abs(patches(pixels) - original).max() <= 10


def test_three_quarters_of_a_hlg_signal_are_diffuse_white():
    pixels = patches(shown(hdr_frame(np.full((1, 3), 0.75), trc=18)))

    assert pixels.min() >= 245


@pytest.mark.parametrize(("trc", "code"), [(16, pq), (18, hlg)])
def test_highlights_roll_off_and_keep_their_hue(trc, code):
    colour = np.array([1.0, 0.4, 0.1])  # light, an orange
    nits = np.array([100.0, 203.0, 400.0, 700.0])
    light = (nits[:, None] * colour) @ TO_BT2020.T

    pixels = patches(shown(hdr_frame(code(light), trc=trc, bits=12)))

    assert (np.diff(pixels[:, 0]) >= 0).all()
    light_shown = srgb_light(pixels)
    for brighter in light_shown[1:]:
        assert brighter / brighter[0] == pytest.approx(colour, abs=0.03)


@pytest.mark.parametrize(("primaries", "matrix"), [(2, 9), (2, 2), (0, 3)])
def test_hdr_that_does_not_state_its_primaries_is_taken_for_bt2020(primaries, matrix):
    original = np.array(CORNERS)
    signal = pq(WHITE_NITS * (srgb_light(original) @ TO_BT2020.T))

    pixels = shown(hdr_frame(signal, trc=16, primaries=primaries, matrix=matrix))

    assert np.abs(patches(pixels) - original).max() <= 10


def test_wide_colours_without_hdr_are_brought_into_srgb_too():
    original = np.array([*CORNERS, (128, 128, 128), (255, 255, 255)])
    light = np.maximum(srgb_light(original) @ TO_BT2020.T, 0)
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)

    pixels = shown(hdr_frame(signal, trc=14))

    assert np.abs(patches(pixels) - original).max() <= 10


def test_hdr_is_shown_as_sdr_when_it_is_shrunk():
    signal = pq(WHITE_NITS * (srgb_light([CORNERS[0]] * 4) @ TO_BT2020.T))

    pixels = shown(hdr_frame(signal, trc=16), height=7, width=29)

    assert pixels.shape == (7, 29, 3)
    assert np.abs(pixels - np.array(CORNERS[0], dtype=float)).max() <= 10


# --- SDR


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "yuv444p", "yuv422p10le"])
@pytest.mark.parametrize("color_range", ["tv", "pc"])
@pytest.mark.parametrize(("matrix", "number"), [("bt709", 1), ("smpte170m", 6), ("bt470bg", 5)])
def test_each_matrix_range_and_depth_gives_the_colours_that_were_coded(
    pixel_format, color_range, matrix, number
):
    frame = coded(pixel_format, color_range, matrix)
    frame.colorspace, frame.color_range = number, 2 if color_range == "pc" else 1

    pixels = shown(frame)

    assert corner_error(pixels) <= 4


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((160, 96), "smpte170m"), ((720, 576), "smpte170m"), ((1280, 720), "bt709")],
)
def test_a_matrix_that_is_not_stated_goes_by_the_size_as_in_players(size, matrix):
    frame = coded("yuv420p", "tv", matrix, size=size)
    frame.colorspace = 2

    assert corner_error(shown(frame)) <= 4


def test_a_large_photograph_is_not_taken_for_hd_video():
    frame = coded("yuv420p", "pc", "smpte170m", size=(1280, 720))
    frame.colorspace, frame.color_range = 2, 2

    assert corner_error(shown(frame, is_still=True)) <= 4


def coded(pixel_format, color_range, matrix, size=(160, 96)):
    names = {"bt709": "ITU709", "smpte170m": "ITU601", "bt470bg": "ITU601"}
    return as_frame(cell_frame(5, *size), 0, 1).reformat(
        format=pixel_format,
        dst_colorspace=names[matrix],
        dst_color_range="JPEG" if color_range == "pc" else "MPEG",
    )


# --- alpha


HIDDEN, SEEN = (255, 0, 255), (10, 200, 30)


def half_hidden(mode="RGBA"):
    """The left half is seen, the right half is transparent and has a colour that nobody meant."""
    pixels = np.zeros((64, 96, 4), dtype=np.uint8)
    pixels[:, :48] = (*SEEN, 255)
    pixels[:, 48:] = (*HIDDEN, 0)
    return Image.fromarray(pixels).convert(mode)


def assert_hidden_half_is_ground(frame, seen=SEEN):
    width = frame.shape[1]
    assert np.abs(frame[:, : 7 * width // 16] - np.array(seen, dtype=float)).max() <= 12
    assert np.abs(frame[:, 9 * width // 16 :] - float(GROUND)).max() <= 3


def test_hidden_colours_of_the_odd_file_are_not_shown():
    source = np.asarray(Image.open(ODD / "transparent.png").convert("RGBA")).astype(float)
    alpha = source[:, :, 3:] / 255
    wanted = source[:, :, :3] * alpha + GROUND * (1 - alpha)

    frame = decode_frames(ODD / "transparent.png", [0.0])[0]

    assert np.abs(frame - wanted).max() <= 1


@pytest.mark.parametrize("max_side_px", [None, 40])
@pytest.mark.parametrize(
    "name",
    ["rgba.png", "grey.png", "palette.png", "key.png", "lossless.webp", "lossy.webp", "v.gif"],
)
def test_what_is_hidden_behind_alpha_never_shows(tmp_path, name, max_side_px):
    path, seen = tmp_path / name, SEEN
    if name == "grey.png":
        half_hidden("LA").save(path)
        seen = (np.asarray(half_hidden("LA"))[0, 0, 0],) * 3
    elif name in ("palette.png", "v.gif"):
        palette = Image.fromarray(
            np.repeat([[0] * 48 + [1] * 48], 64, axis=0).astype(np.uint8), "P"
        )
        palette.putpalette([*SEEN, *HIDDEN])
        palette.save(path, transparency=1)
    elif name == "key.png":
        half_hidden("RGBA").convert("RGB").save(path, transparency=HIDDEN)
    elif name == "lossy.webp":
        half_hidden().save(path, quality=90, exact=True)
    else:
        half_hidden().save(path, **({"lossless": True, "exact": True} if "webp" in name else {}))

    frame = decode_frames(path, [0.0], max_side_px=max_side_px)[0]

    assert_hidden_half_is_ground(frame, seen)


def test_a_png_of_16_bits_hides_what_it_hides(tmp_path):
    frame = as_frame(np.asarray(half_hidden()), 0, 1).reformat(format="rgba64be")
    with av.open(str(tmp_path / "v.png"), "w", format="image2") as output:
        stream = output.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "rgba64be"
        output.mux(stream.encode(frame))
        output.mux(stream.encode())

    assert_hidden_half_is_ground(decode_frames(tmp_path / "v.png", [0.0])[0])


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format"),
    [
        (".mov", "prores_ks", "yuva444p10le"),
        (".mov", "png", "rgba"),
        (".mov", "qtrle", "argb"),
        (".avi", "png", "rgba"),
        (".mkv", "ffv1", "yuva420p"),
        (".webm", "libvpx", "yuva420p"),
        (".webm", "libvpx-vp9", "yuva420p"),
        (".mkv", "libvpx-vp9", "yuva420p"),
    ],
)
def test_a_video_with_alpha_hides_what_it_hides(tmp_path, suffix, codec, pixel_format):
    path = write_cells(
        tmp_path / f"v{suffix}",
        20,
        codec=codec,
        size=(96, 64),
        pixel_format=pixel_format,
        options={"auto-alt-ref": "0"} if "vpx" in codec else None,
        paint=lambda *_: np.asarray(half_hidden()),
    )

    for frame in decode_frames(path, [0.0, 0.9, 1.9], max_side_px=48):
        assert_hidden_half_is_ground(frame)


def test_what_is_half_transparent_is_mixed_with_the_ground(tmp_path):
    Image.fromarray(np.full((8, 8, 4), (100, 0, 200, 128), dtype=np.uint8)).save(tmp_path / "v.png")

    pixel = decode_frames(tmp_path / "v.png", [0.0])[0, 0, 0]

    share = 128 / 255
    wanted = np.array([100, 0, 200]) * share + GROUND * (1 - share)
    assert np.abs(pixel - wanted).max() <= 1


# --- fields


def woven(number, width, height):
    """A bar that moves between the two fields, as it does before a camera of 50 fields a second."""
    frame = np.full((height, width, 3), 30, dtype=np.uint8)
    for field in (0, 1):
        left = 20 + 8 * (2 * number + field)
        frame[field::2, left : left + 30] = 220
    return frame


def comb(frame):
    """How much neighbouring lines differ, more than lines of one field do."""
    grey = frame.mean(axis=2)
    neighbours = np.abs(np.diff(grey, axis=0)).mean()
    return neighbours - np.abs(grey[2:] - grey[:-2]).mean()


def test_an_interlaced_film_has_no_combs():
    path = ODD / "interlaced_moving.mpg"

    probe = probe_video(path)
    frames = decode_frames(path, [0.2, 0.52, 0.92, 1.3])

    assert frames.shape[1:3] == (probe.height, probe.width)
    assert max(comb(frame) for frame in frames) < 0.5


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mpg", "mpeg2video", {"flags": "+ildct+ilme"}),
        (".mxf", "mpeg2video", {"flags": "+ildct+ilme"}),
        (".ts", "libx264", {"flags": "+ildct+ilme", "x264-params": "interlaced=1:tff=1"}),
        (".mkv", "libx264", {"flags": "+ildct+ilme", "x264-params": "interlaced=1:bff=1"}),
        (".dv", "dvvideo", {}),
    ],
)
def test_fields_of_each_codec_are_shown_apart_and_at_their_time(tmp_path, suffix, codec, options):
    size = (720, 576) if codec == "dvvideo" else (320, 192)
    path = write_cells(
        tmp_path / f"v{suffix}", 8, codec=codec, size=size, fps=25, options=options, paint=woven
    )

    for max_side_px in (None, 150):
        frames = decode_frames(path, [0.01, 0.13, 0.25], max_side_px=max_side_px)

        assert max(comb(frame) for frame in frames) < 1.0
        for frame, number in zip(frames, (0, 3, 6), strict=True):
            row = frame[frame.shape[0] // 2].mean(axis=1)
            left = np.flatnonzero(row > 125)[0] * size[0] / frame.shape[1]
            # The bar of either field of this frame, and no other frame's.
            assert 20 + 16 * number - 5 <= left <= 20 + 16 * number + 8 + 5


def test_a_progressive_film_keeps_all_its_lines(tmp_path):
    def lines(number, width, height):
        frame = np.zeros((height, width, 3), dtype=np.uint8)
        frame[::2] = 255
        return frame

    path = write_cells(
        tmp_path / "v.mp4", 2, pixel_format="yuv444p", options={"qp": "1"}, paint=lines
    )

    frame = decode_frames(path, [0.0])[0]

    assert np.abs(np.diff(frame.mean(axis=2), axis=0)).min() > 200
