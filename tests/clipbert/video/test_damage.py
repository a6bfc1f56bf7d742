"""Damaged and cut files: what is sound is there, and nothing else."""

import random
from pathlib import Path

import av
import numpy as np
import pytest
from videos import (
    counting_frame,
    cut,
    decode_sound_clips,
    frame_number,
    remux,
    rubbish_in,
    write_counting_video,
    write_video,
)

from clipbert.errors import DecodeFailed, FrameDamaged, TruncatedMedia
from clipbert.inference.clips import decode_clips, stream_clips
from clipbert.sampling.plan import INDEX_PLAN, Clip
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import decode_frames, probe_video
from clipbert.video.holes import has_hole
from clipbert.video.probe_process import probe_in_subprocess

FPS = 25
NUM_FRAMES = 72
GOP = 12
SCENE_CUT = 32  # all stripes change, and x264 begins a group of its own
FAST_VPX = {"deadline": "realtime", "cpu-used": "8"}
FORMATS = {
    "h264.mp4": {},
    "h264_b_frames.mp4": {"b_frames": 2},
    "h264_b_frames.mkv": {"b_frames": 2},
    "h264_open_gop.mp4": {"b_frames": 2, "options": {"x264-params": "open-gop=1"}},
    "hevc.mp4": {"codec": "libx265", "b_frames": 2, "options": {"x265-params": "log-level=none"}},
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": FAST_VPX},
    "vp8.webm": {"codec": "libvpx", "options": FAST_VPX},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "keyint=12"}},
    "mjpeg.mov": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "ffv1.mkv": {"codec": "ffv1"},
}
NO_WORD = ("av1.mp4", 0)


def looks(num_frames: int = NUM_FRAMES) -> list[Clip]:
    middles = [(number + 0.5) / FPS for number in range(num_frames)]
    return [Clip(number, at, at, (at,)) for number, at in enumerate(middles)]


@pytest.mark.parametrize(
    ("name", "number"),
    # Dav1d decodes rubbish in the first packet of an AV1 video without a word.
    [(name, number) for name in FORMATS for number in (0, 13, 30) if (name, number) != NO_WORD],
)
def test_one_damaged_frame_costs_no_more_than_its_group_and_nothing_wrong_is_shown(
    name, number, tmp_path
):
    source = write_counting_video(tmp_path / f"s_{name}", NUM_FRAMES, gop=GOP, **FORMATS[name])
    path = rubbish_in(source, tmp_path / name, number)

    sound = decode_sound_clips(path, looks())

    wrong = [
        clip.index
        for clip, frames in zip(sound.clips, sound.frames, strict=True)
        if frame_number(frames[0]) != clip.index
    ]
    assert wrong == []
    lost = {clip.index for clip in looks()} - {clip.index for clip in sound.clips}
    # Frames of the next group that are decoded from this one are lost too (open groups).
    begin = number // GOP * GOP - 3
    assert lost <= set(range(max(0, begin), begin + 3 + 2 * GOP))
    for index in lost:
        assert any(start <= (index + 0.5) / FPS <= end for start, end in sound.damaged_spans)


@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_single_frames_around_damage_are_right_or_refused(num_threads, tmp_path):
    source = write_counting_video(tmp_path / "s.mp4", NUM_FRAMES, gop=GOP, b_frames=2)
    path = rubbish_in(source, tmp_path / "v.mp4", 30)

    refused = []
    for number in range(24, 48):
        try:
            frame = decode_frames(path, [(number + 0.5) / FPS], num_threads=num_threads)[0]
        except FrameDamaged:
            refused.append(number)
        else:
            assert frame_number(frame) == number
    assert refused
    assert max(refused) < 36


def test_a_span_of_damage_ends_with_the_next_keyframe(tmp_path):
    source = write_counting_video(tmp_path / "s.mp4", NUM_FRAMES, gop=GOP)
    path = rubbish_in(source, tmp_path / "v.mp4", 30)

    sound = decode_sound_clips(path, looks())

    ((start, end),) = sound.damaged_spans
    assert (start, end) == (pytest.approx(30 / FPS), pytest.approx(SCENE_CUT / FPS))
    with pytest.raises(FrameDamaged, match=r"v\.mp4 from 1\.200 s to 1\.280 s are damaged"):
        decode_clips(path, looks())


def test_clips_stream_on_after_damage(tmp_path):
    source = write_counting_video(tmp_path / "s.mp4", NUM_FRAMES, gop=GOP)
    path = rubbish_in(source, tmp_path / "v.mp4", 30)

    found = {clip.index: frames for clip, frames in stream_clips(path, looks())}

    assert len(found) == NUM_FRAMES
    damaged = [index for index, frames in found.items() if isinstance(frames, FrameDamaged)]
    assert damaged == list(range(30, SCENE_CUT))


@pytest.mark.parametrize("name", ["h264.mp4", "h264_b_frames.mkv", "vp9.webm"])
def test_a_video_with_a_damaged_beginning_has_a_poster(name, tmp_path):
    source = write_counting_video(tmp_path / f"s_{name}", NUM_FRAMES, gop=GOP, **FORMATS[name])
    path = rubbish_in(source, tmp_path / name, 0)

    probe = probe_in_subprocess(path, poster=tmp_path / "p.jpg", strip=tmp_path / "s.jpg")

    assert probe.num_frames == NUM_FRAMES
    assert (tmp_path / "p.jpg").exists()
    assert (tmp_path / "s.jpg").exists()


def test_a_file_of_which_nothing_can_be_decoded_is_refused_in_our_words(tmp_path):
    source = write_counting_video(tmp_path / "s.mp4", NUM_FRAMES, gop=GOP)
    path = source
    for number in range(NUM_FRAMES):
        path = rubbish_in(path, tmp_path / "v.mp4", number)

    with pytest.raises(DecodeFailed, match=r"no frame of film\.mp4 can be decoded"):
        probe_video(path, name="film.mp4")


CUT = {
    "faststart.mp4": {"movflags": "faststart"},
    "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "v.mkv": {},
    "v.avi": {},
    "v.ts": {},
}


@pytest.mark.parametrize("share", [0.6, 0.75])
@pytest.mark.parametrize("name", CUT)
def test_of_a_cut_file_what_is_there_is_read(name, share, tmp_path):
    codec = "mpeg4" if name == "v.avi" else "libx264"
    source = write_counting_video(tmp_path / "s.mp4", NUM_FRAMES, gop=GOP, codec=codec)
    whole = remux(source, tmp_path / name, options=CUT[name])
    path = cut(whole, tmp_path / f"cut_{name}", share=share)

    probe = probe_video(path, strict=False)
    clips = plan_clips(probe, INDEX_PLAN)
    sound = decode_sound_clips(path, clips)

    assert len(sound.clips) >= 1
    for clip, frames in zip(sound.clips, sound.frames, strict=True):
        assert frame_number(frames[0]) == int(clip.instants[0] * FPS + 1e-6)
    if name == "v.ts":  # states no sizes
        return
    with pytest.raises(TruncatedMedia):
        probe_video(path)
    ((start, end),) = probe.damaged_spans
    assert 0 < start <= end
    if name != "fragments.mp4":  # says nowhere how long all of it is
        assert end == pytest.approx(NUM_FRAMES / FPS, abs=0.1)
    assert probe_in_subprocess(path, strict=False, poster=tmp_path / "p.jpg") == probe


def without_cues(source: Path, target: Path) -> Path:
    """Copy a Matroska file whose index is overwritten with nothing, and no block is a keyframe."""
    data = bytearray(source.read_bytes())
    cues = data.index(b"\x1c\x53\xbb\x6b")
    data[cues] = 0x16  # an element of no known kind
    at = data.index(b"\x1f\x43\xb6\x75")
    while (at := data.find(b"\xa3", at + 1)) >= 0:
        length = 9 - data[at + 1].bit_length()
        if length <= 4 and data[at + 1 + length] == 0x81 and data[at + 4 + length] == 0x80:
            data[at + 4 + length] = 0x00
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("codec", ["libx264", "libvpx"])
def test_a_matroska_without_an_index_or_keyframes_is_decoded_from_its_start(codec, tmp_path):
    options = FAST_VPX if codec == "libvpx" else {}
    source = write_counting_video(tmp_path / "s.mkv", 60, gop=60, codec=codec, options=options)
    path = without_cues(source, tmp_path / "v.mkv")

    probe = probe_video(path)
    frames = decode_frames(path, [(number + 0.5) / FPS for number in range(60)])

    assert probe.num_frames == 60
    assert [frame_number(frame) for frame in frames] == list(range(60))
    for number in (0, 1, 31, 59):
        assert frame_number(decode_frames(path, [(number + 0.5) / FPS])[0]) == number


def test_a_file_of_which_the_cut_left_nothing_to_read_is_called_cut(tmp_path):
    whole = write_counting_video(tmp_path / "v.mp4", 30)  # its index comes last
    path = cut(whole, tmp_path / "cut.mp4", share=0.5)

    with pytest.raises(TruncatedMedia, match=r"cut\.mp4 ends before its header says"):
        probe_video(path, strict=False)


def noisy_frame(number: int) -> np.ndarray:
    """Paint a number above noise, so that no frame is a few bytes only."""
    frame = counting_frame(number)
    noise = np.random.default_rng(number).integers(0, 255, (32, 12, 3), dtype=np.uint8)
    frame[32:] = np.repeat(noise, 8, axis=1)
    return frame


def with_piece(source: Path, target: Path, piece: bytes, *, number: int) -> Path:
    """Copy a file with other bytes in the middle of one of its packets."""
    with av.open(str(source)) as container:
        places = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    position, size = places[number]
    assert size > 3 * len(piece)
    data = bytearray(source.read_bytes())
    at = position + (size - len(piece)) // 2
    data[at : at + len(piece)] = piece
    target.write_bytes(data)
    return target


LOSSES = {
    "zeros": ("h264.mp4", "hevc.mp4", "vp9.webm", "vp8.webm", "av1.mp4", "mpeg4.avi", "wmv2.avi"),
    "rubbish": ("vp9.webm", "mpeg4.mp4", "wmv2.avi", "msmpeg4.avi"),
}
ENCODERS = FORMATS | {"wmv2.avi": {"codec": "wmv2"}, "msmpeg4.avi": {"codec": "msmpeg4"}}


@pytest.mark.parametrize(("what", "name"), [(w, name) for w in LOSSES for name in LOSSES[w]])
def test_a_piece_that_is_lost_within_a_frame_is_noticed(what, name, tmp_path):
    """FFmpeg says nothing of most of these, and the picture is rubbish up to the next keyframe."""
    frames = [noisy_frame(number) for number in range(24)]
    source = write_video(tmp_path / f"s_{name}", frames, gop=GOP, **ENCODERS[name])
    whole = decode_frames(source, [look.instants[0] for look in looks(24)])
    for number in (3, 13):
        piece = bytes(64) if what == "zeros" else random.Random(number).randbytes(64)  # noqa: S311
        path = with_piece(source, tmp_path / name, piece, number=number)

        sound = decode_sound_clips(path, looks(24))

        assert sound.clips
        assert sound.damaged_spans
        for clip, shown in zip(sound.clips, sound.frames, strict=True):
            difference = np.abs(shown[0].astype(int) - whole[clip.index])
            assert difference.mean() < 4, clip.index


def test_a_writer_that_breaks_a_rule_in_every_frame_does_no_damage(tmp_path):
    """Frames with bytes after their end are against the rules, and decode all the same."""
    source = write_counting_video(tmp_path / "s.avi", 24, gop=GOP, codec="wmv2")
    path = tmp_path / "v.avi"
    with av.open(str(source)) as reader, av.open(str(path), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(reader.streams.video[0]):
            if packet.size:
                padded = av.Packet(bytes(packet) + b"\x55" * 40)
                padded.stream, padded.pts, padded.dts = stream, packet.pts, packet.dts
                padded.time_base, padded.is_keyframe = packet.time_base, packet.is_keyframe
                writer.mux(padded)

    sound = decode_sound_clips(path, looks(24))

    assert not sound.damaged_spans
    assert [frame_number(frames[0]) for frames in sound.frames] == list(range(24))


@pytest.mark.parametrize(
    ("content", "is_hole"),
    [
        (b"\1" * 50 + bytes(64) + b"\2" * 50, True),
        (b"\1" * 50 + bytes(16) + b"\2" * 50, False),
        (b"\1" * 50 + bytes(64), False),
        (b"\1" * 50 + bytes(64) + b"\1\xb3" + b"\2" * 50, False),
        (b"\1" * 50 + bytes(64) + b"\1\xb3" + bytes(64) + b"\2", True),
    ],
)
def test_zeros_are_a_hole_unless_they_fill_up_what_is_before_a_code(content, is_hole):
    packet = av.Packet(content)
    with av.open("/dev/null", "w", format="null") as container:
        packet.stream = container.add_stream("mpeg2video", rate=25)

        assert has_hole(packet) is is_hole
