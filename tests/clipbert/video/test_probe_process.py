"""Bad files are told apart, hostile ones stopped; thumbnails."""

import errno
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import can_mount
from PIL import Image
from videos import (
    claim_duration,
    cut,
    damage,
    remux,
    write_counting_video,
    write_sound,
    write_titled,
    write_video,
)

from clipbert.errors import (
    ClipBertError,
    DecodeFailed,
    EmptyFile,
    ExtremeAspectRatio,
    FrameNotFound,
    MediaNotFound,
    MediaTooLarge,
    NoVideoStream,
    ProbeTimeout,
    TruncatedMedia,
    UnsupportedMedia,
    VideoError,
)
from clipbert.runs.fork_client import ForkClient
from clipbert.video.containers import sniff_format
from clipbert.video.decode import probe_video
from clipbert.video.probe_process import probe_in_subprocess
from clipbert.video.probed_video import MediaLimits
from clipbert.video.thumbnails import choose_poster, strip_instants
from clipbert.video.truncation import is_truncated

SAMPLES = Path(__file__).parents[3] / "samples"
CLIPS = sorted(path for path in SAMPLES.iterdir() if path.suffix != ".md")


@pytest.fixture
def video(tmp_path) -> Path:
    return write_counting_video(tmp_path / "source.mp4", 60)


def test_a_missing_file(tmp_path):
    with pytest.raises(MediaNotFound):
        probe_video(tmp_path / "none.mp4")
    with pytest.raises(MediaNotFound):
        probe_video(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)

    with pytest.raises(MediaNotFound):
        probe_video(path)


def test_an_empty_file(tmp_path):
    path = tmp_path / "v.mp4"
    path.touch()

    with pytest.raises(EmptyFile):
        probe_video(path)


PLAYLIST = """#EXTM3U
#EXT-X-TARGETDURATION:10
#EXTINF:10,
file://{}
#EXT-X-ENDLIST
"""
MANIFEST = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S">
<Period><AdaptationSet contentType="video"><Representation id="0" mimeType="video/mp4">
<BaseURL>file://{}</BaseURL></Representation></AdaptationSet></Period></MPD>
"""


@pytest.mark.parametrize(
    "text",
    [
        "just some words\n" * 100,
        PLAYLIST,
        MANIFEST,
        "ffconcat version 1.0\nfile '{}'\n",
        '<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{}"/></svg>',
        "G",
    ],
    ids=["words", "hls", "dash", "ffconcat", "svg", "one byte"],
)
@pytest.mark.parametrize("name", ["v.mp4", "v.ts", "v.m3u8", "v.jpg"])
def test_text_that_is_named_like_a_video(text, name, video, tmp_path):
    path = tmp_path / name
    path.write_text(text.format(video))

    with pytest.raises(UnsupportedMedia):
        probe_video(path)


def test_a_playlist_inside_a_real_container_reads_no_other_file(video, tmp_path):
    # HLS hidden after an AVI header leaked files of converters in 2016.
    path = tmp_path / "v.avi"
    header = b"RIFF" + struct.pack("<I", 2000) + b"AVI LIST"
    path.write_bytes(header + PLAYLIST.format(video).encode() + bytes(2000))

    with pytest.raises(VideoError):
        probe_video(path)


def test_a_kind_of_video_that_is_not_read_here(tmp_path):
    path = write_counting_video(tmp_path / "v.nut", 10, codec="flv")

    with pytest.raises(UnsupportedMedia):
        probe_video(path)


def test_a_codec_that_is_not_read_here(tmp_path):
    path = write_counting_video(tmp_path / "v.avi", 10, codec="zmbv", pixel_format="bgr0")

    with pytest.raises(UnsupportedMedia, match="zmbv"):
        probe_video(path)


def test_an_animated_webp(tmp_path):
    pictures = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    path = tmp_path / "v.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)

    with pytest.raises(UnsupportedMedia, match="animated"):
        probe_video(path)


def test_a_webp_that_ends_in_its_header(tmp_path):
    path = tmp_path / "v.webp"
    path.write_bytes(b"RIFF\x20\0\0\0WEBPVP8X")

    with pytest.raises(TruncatedMedia):
        probe_video(path)


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mov", "mkv"])
def test_a_title_in_an_old_encoding_does_no_harm(suffix, tmp_path):
    path = write_titled(tmp_path / f"v.{suffix}", "Été n° 1".encode("latin-1"))

    assert probe_in_subprocess(path) == probe_video(path)
    assert probe_video(path).num_frames == 1


def test_sound_alone_is_no_video(tmp_path):
    with pytest.raises(NoVideoStream):
        probe_video(write_sound(tmp_path / "v.mp4"))


def test_a_cover_picture_is_no_video(tmp_path):
    with pytest.raises(NoVideoStream):
        probe_video(write_sound(tmp_path / "v.mp4", cover=True))


def test_the_video_is_found_after_a_sound_stream():
    probe = probe_video(SAMPLES / "coin_and_pen.mov")

    assert (probe.width, probe.height, probe.codec) == (568, 320, "h264")


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_no_sample_is_taken_for_truncated(path):
    assert not is_truncated(path, sniff_format(path))


# City_night is MPEG-PS, which states no sizes: a cut one is a shorter one.
@pytest.mark.parametrize(
    "path", [path for path in CLIPS if path.suffix != ".mpg"], ids=lambda path: path.name
)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_truncated_sample(path, share, tmp_path):
    with pytest.raises(TruncatedMedia):
        probe_video(cut(path, tmp_path / path.name, share=share))


@pytest.mark.parametrize("name", ["v.mkv", "v.webm", "v.avi", "faststart.mp4", "fragments.mp4"])
def test_a_truncated_container(name, video, tmp_path):
    options = {
        "faststart.mp4": {"movflags": "faststart"},
        "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"},
    }.get(name, {})
    if name == "v.webm":
        speed = {"deadline": "realtime", "cpu-used": "8"}
        whole = write_counting_video(tmp_path / name, 60, codec="libvpx-vp9", options=speed)
    elif name == "v.avi":
        whole = write_counting_video(tmp_path / name, 60, codec="mpeg4")
    else:
        whole = remux(video, tmp_path / name, options=options)
    probe_video(whole)

    for share in (0.3, 0.6, 0.8):
        with pytest.raises(TruncatedMedia):
            probe_video(cut(whole, tmp_path / f"cut.{name}", share=share))


def test_a_container_that_is_cut_in_the_header_of_a_fragment(video, tmp_path):
    options = {"movflags": "frag_keyframe+empty_moov"}
    data = remux(video, tmp_path / "whole.mp4", options=options).read_bytes()
    path = tmp_path / "v.mp4"
    path.write_bytes(data[: data.rindex(b"mdat")])

    with pytest.raises(TruncatedMedia):
        probe_video(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_truncated_picture(suffix, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(noise).save(whole)
    probe_video(whole)

    with pytest.raises(TruncatedMedia):
        probe_video(cut(whole, tmp_path / f"cut.{suffix}", share=0.7))


def test_a_photograph_that_is_cut_after_the_preview_in_its_notes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path, preview = tmp_path / "v.jpg", tmp_path / "preview.jpg"
    Image.fromarray(noise[:16, :16]).save(preview)
    Image.fromarray(noise).save(path)
    notes = b"Exif\0\0" + preview.read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(notes) + 2) + notes
    data = path.read_bytes()
    path.write_bytes(data[:2] + segment + data[2:])
    probe_video(path)

    for share in (0.1, 0.5, 0.9):
        with pytest.raises(TruncatedMedia):
            probe_video(cut(path, tmp_path / "cut.jpg", share=share))


def test_a_photograph_with_a_film_appended_is_whole(tmp_path):
    path = tmp_path / "v.jpg"
    Image.new("RGB", (64, 64), "red").save(path)
    path.write_bytes(path.read_bytes() + b"film" * 30_000)

    assert probe_video(path).num_frames == 1


@pytest.mark.parametrize("options", [{}, {"live": "1"}], ids=["closed", "live"])
def test_a_matroska_with_words_appended_is_whole(options, video, tmp_path):
    path = remux(video, tmp_path / "v.mkv", options=options)
    path.write_bytes(path.read_bytes() + b"hello world, " * 10)

    assert probe_video(path).num_frames == 60


def test_a_damaged_file(tmp_path):
    path = damage(SAMPLES / "bunny_tree.mp4", tmp_path / "v.mp4", skip=1000, keep_end=4000)

    with pytest.raises(DecodeFailed):
        probe_video(path)


def test_random_damage_is_always_a_video_error_or_a_probe(tmp_path):
    for name in ("potted_plant.mp4", "bicycle.avi", "grand_prix_1906.ogv"):
        for seed in range(8):
            path = damage(SAMPLES / name, tmp_path / name, skip=16, one_in=300, seed=seed)
            with suppress(VideoError):
                probe_video(path)


def test_a_header_that_claims_100_hours_is_not_believed(video, tmp_path):
    path = claim_duration(video, tmp_path / "v.mp4", hours=100)

    started = time.process_time()  # not the time of others on this machine
    probe = probe_video(path)

    assert time.process_time() - started < 2
    assert probe.duration_seconds == pytest.approx(2.4)


def test_frames_longer_than_five_to_one(tmp_path):
    path = write_video(tmp_path / "v.mp4", [np.zeros((32, 170, 3), np.uint8)] * 3)

    with pytest.raises(ExtremeAspectRatio):
        probe_video(path)


@pytest.mark.parametrize(
    "limits",
    [
        MediaLimits(max_pixels=96 * 64 - 1),
        MediaLimits(max_duration_seconds=2.3),
        MediaLimits(max_frames=59),
        MediaLimits(max_streams=0),
    ],
)
def test_limits_are_kept(limits, video):
    with pytest.raises(MediaTooLarge):
        probe_video(video, limits=limits)


@pytest.mark.parametrize(
    ("suffix", "place", "size"),
    [
        ("png", 16, struct.pack(">II", 2**31 - 1, 2**31 - 1)),
        ("gif", 6, struct.pack("<HH", 65_535, 65_535)),
        ("jpg", None, struct.pack(">HH", 65_000, 65_000)),
    ],
)
def test_a_picture_that_claims_to_be_huge(suffix, place, size, tmp_path):
    path = tmp_path / f"v.{suffix}"
    Image.new("RGB", (64, 32), "red").save(path)
    data = bytearray(path.read_bytes())
    if place is None:
        place = data.index(b"\xff\xc0") + 5
    data[place : place + len(size)] = size
    path.write_bytes(data)

    with pytest.raises(MediaTooLarge, match=r"frames of \d+x\d+ are over"):
        probe_video(path)


def test_a_video_at_its_limits_is_taken(video):
    limits = MediaLimits(max_pixels=96 * 64, max_duration_seconds=2.4, max_frames=60, max_streams=1)

    assert probe_video(video, limits=limits).num_frames == 60


def test_errors_cross_a_process_boundary():
    error = VideoError.from_code("truncated_media", "it ends too early")

    assert isinstance(error, TruncatedMedia)
    assert str(error) == "it ends too early"
    assert isinstance(VideoError.from_code("frame_not_found", "none"), FrameNotFound)
    assert type(VideoError.from_code("of a newer writer", "what")) is VideoError


def test_the_subprocess_gives_the_same_probe(video):
    assert probe_in_subprocess(video) == probe_video(video)


def test_the_subprocess_gives_the_same_error(video, tmp_path):
    path = cut(video, tmp_path / "cut.mp4", share=0.5)

    with pytest.raises(TruncatedMedia, match=r"cut\.mp4 ends before its header says"):
        probe_in_subprocess(path)


@pytest.mark.parametrize("name", ["-v.mp4", "--help"])
def test_a_name_that_looks_like_an_option_is_a_name(tmp_path, name):
    (tmp_path / "v").touch()

    with pytest.raises(EmptyFile, match=f"^{name} is empty"):
        probe_in_subprocess(tmp_path / "v", name=name)


def test_the_subprocess_makes_a_poster_and_a_strip(tmp_path):
    poster, strip = tmp_path / "poster.jpg", tmp_path / "strip.jpg"

    probe_in_subprocess(SAMPLES / "city_night.mpg", poster=poster, strip=strip)

    with Image.open(poster) as picture:
        assert picture.size == (640, 360)
    with Image.open(strip) as picture:
        assert picture.size == (8 * 160, 90)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["poster.jpg", "strip.jpg"]


def test_a_full_disk_is_not_the_files_fault(tmp_path):
    if not can_mount():
        pytest.skip("this machine does not let us mount a small disk (unshare --mount)")
    program = (
        "from pathlib import Path\n"
        "from clipbert.video.probe_process import probe_in_subprocess\n"
        f"path = Path({str(SAMPLES / 'city_night.mpg')!r})\n"
        "try: probe_in_subprocess(path, poster=Path('poster.jpg'))\n"
        "except OSError as error: print(error.errno)\n"
    )
    small_disk = 'mount -t tmpfs -o size=4k tmpfs . && cd "$PWD" && exec "$@"'

    said = subprocess.run(
        ["unshare", "--mount", "sh", "-c", small_disk, "sh", sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SAMPLES.parent)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert said == f"{errno.ENOSPC}\n"


def test_a_still_picture_has_a_poster_and_a_strip_of_one(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (1000, 500), "red").save(path)

    probe_in_subprocess(path, poster=tmp_path / "poster.jpg", strip=tmp_path / "strip.jpg")

    with Image.open(tmp_path / "poster.jpg") as picture:
        assert picture.size == (640, 320)
    with Image.open(tmp_path / "strip.jpg") as picture:
        assert picture.size == (160, 80)


def test_a_short_video_has_a_short_strip(tmp_path):
    path = write_counting_video(tmp_path / "v.mp4", 3)

    probe_in_subprocess(path, strip=tmp_path / "strip.jpg")

    with Image.open(tmp_path / "strip.jpg") as picture:
        assert picture.size[0] == 3 * 160


def test_strip_instants_are_spread_and_prefer_keyframes():
    probe = probe_video(SAMPLES / "coin_and_pen.mov")  # a keyframe each second for 8 seconds

    instants = strip_instants(probe)

    assert instants == pytest.approx(range(8), abs=1.01)
    assert set(instants) <= set(probe.keyframe_seconds)


def test_a_poster_is_not_black(video):
    probe = probe_video(video)
    frames = np.zeros((8, 32, 48, 3), dtype=np.uint8)
    frames[5, :16] = 200

    assert choose_poster(frames, [i * 0.3 for i in range(8)], probe) == 5


def test_the_subprocess_is_killed_when_its_time_is_over(video):
    before = set(psutil.Process().children())

    with pytest.raises(ProbeTimeout):
        probe_in_subprocess(video, timeout_seconds=0.02)

    assert set(psutil.Process().children()) <= before


def test_the_subprocess_is_held_to_its_memory(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (5600, 5600)).save(path)  # 90 MB in memory
    probe_in_subprocess(path)

    with pytest.raises(MediaTooLarge, match="memory"):
        probe_in_subprocess(path, memory_bytes=260 << 20)


def test_too_little_memory_to_start_is_no_fault_of_the_file(video):
    with pytest.raises(ClipBertError) as caught:
        probe_in_subprocess(video, memory_bytes=60 << 20)

    assert not isinstance(caught.value, VideoError)


def test_the_subprocess_has_no_secrets_and_does_not_load_torch(video, tmp_path, monkeypatch):
    monkeypatch.setenv("STORE_DATABASE_URL", "postgresql://secret")
    code = (
        "import os, sys, runpy, json\n"
        "sys.argv = ['probe', sys.argv[1]]\n"
        "from clipbert.video import probe_process as probe\n"
        "assert probe._environment().keys() >= {'PYTHONPATH'}\n"
        "assert 'STORE_DATABASE_URL' not in probe._environment()\n"
        "probe.main(sys.argv[1:])\n"
        "assert 'torch' not in sys.modules\n"
    )

    run = subprocess.run(
        [sys.executable, "-c", code, str(video)], check=True, capture_output=True, text=True
    )

    assert json.loads(run.stdout)["probe"]["num_frames"] == 60


def test_the_command_prints_one_line_of_json(video, tmp_path):
    def answer(path):
        command = [sys.executable, "-m", "clipbert.video.probe_process", str(path)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert output.count("\n") == 1
        return json.loads(output)

    assert answer(video)["probe"]["codec"] == "h264"
    assert answer(tmp_path / "none.mp4")["error"]["code"] == "media_not_found"


def test_the_subprocess_dies_with_the_one_that_waits_for_it(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (5600, 5600)).save(path)
    code = (
        "import sys; from pathlib import Path\n"
        "from clipbert.video.probe_process import probe_in_subprocess\n"
        "probe_in_subprocess(Path(sys.argv[1]))"
    )
    waiting = subprocess.Popen([sys.executable, "-c", code, path])
    try:
        probing = _child_under_limits(waiting.pid)
        probing.suspend()  # it would end by itself before long
    finally:
        waiting.kill()
        waiting.wait()

    ends_at = time.monotonic() + 120
    while probing.is_running() and probing.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < ends_at, probing.status()
        time.sleep(0.01)


def test_the_process_that_all_are_forked_from_may_end_at_any_time(video):
    probe_in_subprocess(video)
    (server,) = servers_of_probes()
    server.kill()

    assert probe_in_subprocess(video).num_frames == 60
    (other,) = servers_of_probes()
    assert other.pid != server.pid


def test_a_probe_that_loses_it_is_begun_again(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (5600, 5600)).save(path)
    probe_in_subprocess(path)
    (server,) = servers_of_probes()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(probe_in_subprocess, path)
        probing = _child_under_limits(server.pid)
        probing.suspend()
        server.kill()

        assert answer.result().width == 5600


def test_a_probe_that_ends_it_each_time_is_no_fault_of_the_file(video, monkeypatch):
    fork_bare = ForkClient.fork_bare

    def doomed(client, *arguments, **options):
        fork = fork_bare(client, *arguments, **options)
        os.kill(fork.pid, signal.SIGKILL)
        return fork

    monkeypatch.setattr(ForkClient, "fork_bare", doomed)

    with pytest.raises(ClipBertError, match="lost the process that it was forked from") as caught:
        probe_in_subprocess(video)
    assert not isinstance(caught.value, VideoError)


def servers_of_probes():
    """List the processes that probes of this one are forked from."""
    return [
        child
        for child in psutil.Process().children()
        if "clipbert.video.thumbnails" in child.cmdline()
    ]


def _child_under_limits(pid):
    ends_at = time.monotonic() + 120
    while time.monotonic() < ends_at:
        for child in psutil.Process(pid).children(recursive=True):
            limits = Path(f"/proc/{child.pid}/limits").read_text()
            # They are set after the wish to die with the parent.
            if re.search(r"Max open files +64 ", limits):
                return child
    raise AssertionError("no subprocess under limits")


def test_the_subprocess_reads_an_open_file_whatever_lies_at_its_place(video, tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(video.read_bytes())
    with path.open("rb") as file:
        path.unlink()
        path.write_text("no video")

        probe = probe_in_subprocess(
            Path(f"/proc/self/fd/{file.fileno()}"), pass_fds=(file.fileno(),)
        )

    assert probe.num_frames == 60
