"""The film is the stream that a player shows."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from odd_frames import ODD, add_cells, as_frame, cell_frame, cell_number, write_cells
from videos import counting_frame, frame_number

from clipbert.errors import MediaTooLarge, NoVideoStream, UnsupportedMedia
from clipbert.video.decode import decode_frames, probe_video

FILM = 100  # the number of the film's first frame


def write_streams(path, *streams, seconds=2):
    """Write streams of (codec, size, fps, first number, disposition or None, frames or None)."""
    with av.open(str(path), "w") as output:
        made = []
        for codec, size, fps, first, disposition, count in streams:
            pixel_format = "yuvj420p" if codec == "mjpeg" else "rgb24" if codec == "png" else None
            stream = add_cells(output, codec, size, fps=fps, pixel_format=pixel_format or "yuv420p")
            if disposition is not None:
                stream.disposition = disposition
            made.append((stream, size, fps, first, seconds * fps if count is None else count))
        timed = [
            (Fraction(number, fps), stream, cell_frame(first + number, *size), number, fps)
            for stream, size, fps, first, count in made
            for number in range(count)
        ]
        packets = []
        for _, stream, pixels, number, fps in sorted(timed, key=lambda each: each[0]):
            packets += stream.encode(as_frame(pixels, number, fps))
        for stream, *_ in made:
            packets += stream.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return path


def assert_is_the_film(path, size, *, fps=10):
    probe = probe_video(path)
    frame = decode_frames(path, [5 / fps])[0]

    assert (probe.width, probe.height) == size
    assert cell_number(frame) == FILM + 5


SMALL, LARGE = (80, 48), (160, 96)


@pytest.mark.parametrize("name", ["preview_first.mkv", "cover_first.mp4"])
def test_the_film_of_the_odd_files_is_found(name):
    probe = probe_video(ODD / name)
    frames = decode_frames(ODD / name, [0.0, 3.3, 5.9])

    assert (probe.width, probe.height, probe.num_frames) == (160, 96, 60)
    assert probe.duration_seconds == pytest.approx(6.0)
    assert [cell_number(frame) for frame in frames] == [0, 33, 59]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".ts", ".avi"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_small_preview_is_not_the_film(tmp_path, suffix, is_first):
    preview = ("libx264", SMALL, 10, 0, None, None)
    film = ("libx264", LARGE, 10, FILM, None, None)
    streams = [preview, film] if is_first else [film, preview]

    assert_is_the_film(write_streams(tmp_path / f"v{suffix}", *streams), LARGE)


@pytest.mark.parametrize(("suffix", "default"), [(".mkv", 0), (".mkv", 1), (".mp4", 1)])
def test_the_default_stream_goes_before_a_larger_one(tmp_path, suffix, default):
    streams = [
        ("libx264", SMALL if default == index else LARGE, 10, FILM if default == index else 0)
        for index in (0, 1)
    ]
    flags = [Disposition.default if default == index else Disposition(0) for index in (0, 1)]
    path = write_streams(
        tmp_path / "v.mkv",
        *[(*each, flag, None) for each, flag in zip(streams, flags, strict=True)],
    )

    assert_is_the_film(path, SMALL)


def test_of_streams_alike_the_first_is_the_film(tmp_path):
    streams = [("libx264", LARGE, 10, first, None, None) for first in (FILM, 0)]

    assert_is_the_film(write_streams(tmp_path / "v.mp4", *streams), LARGE)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mkv", "mjpeg"), (".mov", "mjpeg"), (".mov", "png"), (".avi", "png")]
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_cover_that_is_not_marked_as_one_is_not_the_film(tmp_path, suffix, codec, is_first):
    cover = (codec, (320, 320), 10, 7, None, 1)
    film = ("libx264", LARGE, 10, FILM, None, None)
    streams = [cover, film] if is_first else [film, cover]

    assert_is_the_film(write_streams(tmp_path / f"v{suffix}", *streams), LARGE)


def test_a_film_in_motion_jpeg_beside_a_small_preview_stays_the_film(tmp_path):
    film = ("mjpeg", LARGE, 10, FILM, None, None)
    preview = ("libx264", SMALL, 10, 0, None, None)

    assert_is_the_film(write_streams(tmp_path / "v.mkv", preview, film), LARGE)


def test_a_stream_that_cannot_be_decoded_is_passed_over(tmp_path):
    unread = ("zmbv", (320, 240), 10, 0, None, None)
    film = ("libx264", LARGE, 10, FILM, None, None)
    with av.open(str(tmp_path / "v.avi"), "w") as output:
        streams = [
            add_cells(output, codec, size, pixel_format=pixel_format)
            for (codec, size, *_), pixel_format in ((unread, "bgr0"), (film, "yuv420p"))
        ]
        for number in range(20):
            for stream, size, first in ((streams[0], unread[1], 0), (streams[1], LARGE, FILM)):
                output.mux(stream.encode(as_frame(cell_frame(first + number, *size), number, 10)))
        for stream in streams:
            output.mux(stream.encode())

    assert_is_the_film(tmp_path / "v.avi", LARGE)


def test_a_file_of_streams_that_cannot_be_decoded_names_the_codec(tmp_path):
    path = write_cells(tmp_path / "v.avi", 3, codec="zmbv", pixel_format="bgr0")

    with pytest.raises(UnsupportedMedia, match="zmbv"):
        probe_video(path)


def test_sound_with_a_cover_has_no_film(tmp_path):
    with av.open(str(tmp_path / "v.mp4"), "w") as output:
        sound = output.add_stream("aac", rate=44_100, layout="mono")
        cover = add_cells(output, "mjpeg", LARGE, pixel_format="yuvj420p")
        cover.disposition = Disposition.attached_pic
        output.mux(cover.encode(as_frame(cell_frame(0), 0, 10)))
        output.mux(cover.encode())
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.float32), "fltp", "mono")
        wave.sample_rate = 44_100
        output.mux(sound.encode(wave))
        output.mux(sound.encode())

    with pytest.raises(NoVideoStream, match="cover picture only"):
        probe_video(tmp_path / "v.mp4")


@pytest.mark.parametrize(("num_sounds", "is_read"), [(30, True), (300, False)])
def test_a_film_with_many_languages_is_read(num_sounds, is_read, tmp_path):
    """Each language has sound and subtitles of its own, and each font of these is a stream too."""
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        film = container.add_stream("mjpeg", rate=25)
        film.width, film.height, film.pix_fmt = 96, 64, "yuvj420p"
        for _ in range(num_sounds):
            container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(counting_frame(number), format="rgb24")
            container.mux(film.encode(frame))
        container.mux(film.encode())

    if is_read:
        assert frame_number(decode_frames(path, [0.1])[0]) == 2
    else:
        with pytest.raises(MediaTooLarge, match=r"v\.mkv has 300 streams beside video"):
            decode_frames(path, [0.1])
