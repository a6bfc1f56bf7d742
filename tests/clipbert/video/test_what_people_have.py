"""A file of each kind that people have is read: every frame by its number, at its time."""

import shutil

import pytest
from format_samples import SAMPLES
from odd_frames import ODD, cell_number, corner_error, write_cells

from clipbert.errors import VideoError
from clipbert.video.decode import decode_frames, probe_video
from clipbert.video.probe_process import probe_in_subprocess

NUM_FRAMES = 15
# These draw with few colours, or (DNxHD) claim another matrix than these files were made with.
ROUGH = {"gif", "msvideo1", "cinepak", "svq1", "rv10", "rv20", "h261", "h263", "wmv1", "wmv2"}
ROUGH |= {"dnxhd"}


@pytest.mark.parametrize("kind", SAMPLES, ids=str)
def test_each_frame_of_each_kind_is_found_at_its_time(tmp_path, kind):
    path = kind.write(tmp_path, NUM_FRAMES)

    probe = probe_video(path)
    frames = decode_frames(path, [(number + 0.1) / kind.fps for number in range(NUM_FRAMES)])
    late = decode_frames(path, [11.1 / kind.fps], max_side_px=96)

    assert probe.container == kind.demuxer
    assert probe.num_frames == NUM_FRAMES
    assert probe.duration_seconds == pytest.approx(NUM_FRAMES / kind.fps, abs=0.002)
    assert not probe.is_still
    assert [cell_number(frame) for frame in frames] == list(range(NUM_FRAMES))
    assert cell_number(late[0]) == 11
    assert corner_error(frames[3]) < (60 if kind.codec in ROUGH else 12)


@pytest.mark.parametrize("kind", SAMPLES, ids=str)
def test_what_a_file_is_goes_by_its_content_and_not_by_its_name(tmp_path, kind):
    path = kind.write(tmp_path, 3)
    renamed = tmp_path / "v.jpg"
    shutil.move(path, renamed)

    assert probe_video(renamed).container == kind.demuxer


@pytest.mark.parametrize(("name", "num_frames"), [("other.flv", 50), ("other.wmv", 50)])
def test_the_odd_files_of_other_containers_are_read(name, num_frames):
    frames = decode_frames(ODD / name, [0.04 * number + 0.001 for number in range(num_frames)])

    assert [cell_number(frame) for frame in frames] == list(range(num_frames))


def test_a_strip_and_a_poster_are_made_of_a_flv(tmp_path):
    poster, strip = tmp_path / "p.jpg", tmp_path / "s.jpg"

    probe = probe_in_subprocess(ODD / "other.flv", poster=poster, strip=strip)

    assert (probe.num_frames, probe.width, probe.height) == (50, 160, 96)
    assert poster.stat().st_size > 0
    assert strip.stat().st_size > 0


@pytest.mark.parametrize("fps", [10, 24, 30])
@pytest.mark.parametrize(("name", "codec"), [("v.h264", "libx264"), ("v.m4v", "mpeg4")])
def test_an_elementary_stream_runs_at_the_rate_that_it_states(tmp_path, name, codec, fps):
    container = "m4v" if codec == "mpeg4" else None
    path = write_cells(tmp_path / name, 12, codec=codec, fps=fps, container=container, b_frames=2)

    probe = probe_video(path)

    assert probe.average_fps == pytest.approx(fps)
    assert probe.duration_seconds == pytest.approx(12 / fps)
    assert cell_number(decode_frames(path, [7.5 / fps])[0]) == 7


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\n{film}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{film}'\n",
    "asx": "<asx version='3.0'><entry><ref href='{film}'/></entry></asx>",
    "asf reference": "[Reference]\nRef1={film}\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
    "smil": "<smil><body><video src='{film}'/></body></smil>",
}


@pytest.mark.parametrize("extension", [".mp4", ".flv", ".wmv", ".mxf", ".rm", ".dv", ".h264"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_list_of_other_files_is_refused_whatever_it_is_called(tmp_path, kind, extension):
    film = ODD / "other.flv"
    path = tmp_path / f"v{extension}"
    path.write_text(PLAYLISTS[kind].format(film=film))

    with pytest.raises(VideoError) as raised:
        probe_video(path)

    assert raised.value.code == "unsupported_media"
    assert str(film) not in str(raised.value)
