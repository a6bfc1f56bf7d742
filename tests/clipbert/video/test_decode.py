"""Frames at instants, compared with what decoding the whole file gives."""

import bisect
import functools
import gc
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.codec.context import Flags
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image
from videos import (
    FRAME_HEIGHT,
    FRAME_WIDTH,
    corner_picture,
    counting_frame,
    cut,
    damage,
    frame_number,
    remux,
    write_counting_video,
    write_video,
)

from clipbert.errors import DecodeFailed, FrameNotFound, MediaTooLarge
from clipbert.inference.clips import decode_clips, stream_clips
from clipbert.sampling.plan import INDEX_PLAN, Clip, SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import decode_frames, probe_video
from clipbert.video.probed_video import MediaLimits
from clipbert.video.reader import FrameReader

SAMPLES = Path(__file__).parents[3] / "samples"
CLIPS = sorted(path for path in SAMPLES.iterdir() if path.suffix != ".md")


def decode_all(path: Path, *, side: int) -> tuple[list[float], np.ndarray]:
    """Decode every frame in order: seconds of each, and the frames."""
    seconds, frames = [], []
    averaging = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.flags |= Flags.unaligned
        for frame in container.decode(stream):
            seconds.append(float(frame.pts * stream.time_base))
            height = int(side * (frame.height / frame.width))
            # HD whose file does not say how its colours are coded is BT.709, as players take it.
            is_hd = frame.colorspace == 2 and frame.width >= 1280
            frames.append(
                frame.to_ndarray(
                    format="rgb24",
                    width=side,
                    height=height,
                    src_colorspace=Colorspace.ITU709 if is_hd else None,
                    interpolation=averaging,
                )
            )
    return [second - seconds[0] for second in seconds], np.stack(frames)


@functools.cache
def decode_sample(path: Path) -> tuple[list[float], np.ndarray]:
    return decode_all(path, side=64)


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_every_sample_gives_the_frames_that_decoding_it_whole_gives(path):
    probe = probe_video(path)
    seconds, frames = decode_sample(path)
    generator = random.Random(0)  # noqa: S311
    instants = [generator.uniform(0, probe.last_frame_seconds) for _ in range(6)]
    instants += [generator.choice(seconds) for _ in range(6)]

    decoded = decode_frames(path, instants, max_side_px=64)

    wanted = [bisect.bisect_right(seconds, instant + 1e-6) - 1 for instant in instants]
    np.testing.assert_array_equal(decoded, frames[wanted])


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_every_sample_is_probed_as_decoding_it_whole_shows(path):
    probe = probe_video(path)
    seconds, frames = decode_sample(path)

    assert probe.num_frames == len(frames)
    assert probe.last_frame_seconds == pytest.approx(seconds[-1])
    stamps = (probe.frame_pts - probe.start_pts) * float(probe.time_base)
    np.testing.assert_allclose(stamps, seconds, atol=1e-9)
    assert probe.duration_seconds > probe.last_frame_seconds
    assert not probe.is_still
    assert set(probe.keyframe_seconds) <= set(stamps.tolist())


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_every_sample_can_be_indexed(path):
    clips = plan_clips(probe_video(path), INDEX_PLAN)

    frames = decode_clips(path, clips, max_side_px=448)

    assert len(frames) == len(clips) >= 4
    assert {clip.shape for clip in frames} == {frames[0].shape}
    assert max(frames[0].shape[1:3]) <= 448
    assert all(clip.std() > 5 for clip in frames)


FORMATS = {
    "h264.mp4": {},
    "h264_b_frames.mp4": {"b_frames": 3},
    "h264_b_frames.mkv": {"b_frames": 3},
    "h264_b_frames.ts": {"b_frames": 3},
    "h264_b_frames.avi": {"b_frames": 3},
    "h264_open_gop.mp4": {"b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "h264_open_gop.ts": {"b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "h264_intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1"}},
    "hevc.mp4": {"codec": "libx265", "b_frames": 2, "options": {"x265-params": "log-level=none"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "keyint=12"}},
    "av1.webm": {"codec": "libsvtav1", "options": {"preset": "12"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "h264_b_frames.mpg": {"b_frames": 3},
    "hevc.mpg": {"codec": "libx265", "b_frames": 2, "options": {"x265-params": "log-level=none"}},
    "mpeg4.mpg": {"codec": "mpeg4"},
    "mpeg2.ts": {"codec": "mpeg2video", "b_frames": 2},
    "ffv1.mkv": {"codec": "ffv1"},
}


@pytest.fixture(scope="module")
def counting_videos(tmp_path_factory) -> dict[str, Path]:
    """A video of 120 frames at 25 a second in each format."""
    folder = tmp_path_factory.mktemp("formats")
    return {
        name: write_counting_video(folder / name, 120, **settings)
        for name, settings in FORMATS.items()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_frame_on_screen_at_each_instant(name, counting_videos):
    numbers = [0, 1, 11, 12, 13, 47, 63, 64, 95, 118, 119]
    # From just after a frame begins to just before the next one does.
    instants = [(number + share) / 25 for number in numbers for share in (0, 0.3, 0.98)]

    frames = decode_frames(counting_videos[name], instants)

    assert frames.shape == (33, FRAME_HEIGHT, FRAME_WIDTH, 3)
    assert [frame_number(frame) for frame in frames] == [n for n in numbers for _ in range(3)]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_any_single_frame(name, counting_videos):
    for number in (0, 29, 30, 77, 119):
        frames = decode_frames(counting_videos[name], [number / 25])

        assert frame_number(frames[0]) == number


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_counted(name, counting_videos):
    probe = probe_video(counting_videos[name])

    assert probe.num_frames == 120
    assert probe.duration_seconds == pytest.approx(4.8, abs=0.002)
    assert (probe.width, probe.height) == (FRAME_WIDTH, FRAME_HEIGHT)


def test_instants_may_come_in_any_order_and_more_than_once(counting_videos):
    frames = decode_frames(counting_videos["h264_b_frames.mp4"], [3.0, 0.0, 3.0, 1.0, 3.01])

    assert [frame_number(frame) for frame in frames] == [75, 0, 75, 25, 75]


def test_planned_instants_are_exact_frames_ten_hours_into_a_video(tmp_path):
    fps = Fraction(30_000, 1001)
    time_base = Fraction(1, 30_000)
    hours = 36_000 * 30_000
    stamps = [0, *range(hours, hours + 60 * 1001, 1001)]
    path = write_counting_video(
        tmp_path / "v.mp4", len(stamps), fps=fps, timestamps=stamps, time_base=time_base
    )

    probe = probe_video(path)
    seconds = (probe.frame_pts - probe.start_pts) * float(probe.time_base)
    frames = decode_frames(path, seconds.tolist())

    assert [frame_number(frame) for frame in frames] == list(range(61))


def test_variable_frame_rate_is_followed(tmp_path):
    # Frames at 0, 10, 20, 500, 2000, 2010 and 5000 ms.
    stamps = [0, 10, 20, 500, 2000, 2010, 5000]
    path = write_counting_video(
        tmp_path / "v.mkv", 7, timestamps=stamps, time_base=Fraction(1, 1000), b_frames=2
    )

    frames = decode_frames(path, [0.0, 0.005, 0.019, 0.499, 0.5, 1.999, 2.005, 4.9, 5.0])

    assert [frame_number(frame) for frame in frames] == [0, 0, 1, 2, 3, 3, 4, 5, 6]


def test_a_long_pause_in_a_long_group_of_pictures_is_followed(tmp_path):
    # Frames that no other needs are skipped on the way; the one before the pause must not be.
    stamps = [*range(0, 4000, 40), 60_000, 60_040, 60_080]
    path = write_counting_video(
        tmp_path / "v.mkv",
        len(stamps),
        timestamps=stamps,
        time_base=Fraction(1, 1000),
        b_frames=3,
        gop=500,
    )

    frames = decode_frames(path, [3.5, 30.0, 60.05])

    assert [frame_number(frame) for frame in frames] == [87, 99, 101]


def test_ntsc_planned_clips_are_the_planned_frames(tmp_path):
    path = write_counting_video(tmp_path / "v.mp4", 300, fps=Fraction(30_000, 1001), b_frames=2)
    plan = SamplingPlan("keyframes", num_clips=6)
    clips = plan_clips(probe_video(path), plan)

    frames = decode_clips(path, clips)

    wanted = [clip.instants[0] * 30_000 / 1001 for clip in clips]
    assert [frame_number(clip[0]) for clip in frames] == pytest.approx(wanted)
    assert len(set(wanted)) == 6


def test_an_instant_within_a_frame_past_the_end_gives_the_last_frame(counting_videos):
    path = counting_videos["h264.mp4"]  # ends at 4.8 s

    assert frame_number(decode_frames(path, [4.83])[0]) == 119
    with pytest.raises(FrameNotFound, match=r"no frame at 4\.900 s: video ends at 4\.800 s"):
        decode_frames(path, [1.0, 4.9])


def test_frames_hidden_by_an_edit_list_are_not_counted(tmp_path):
    # Copying from between keyframes hides the frames before the cut, as editors do.
    probe = probe_video(SAMPLES / "squirrel.mp4")

    assert probe.header_num_frames == 337
    assert probe.num_frames == 241
    assert probe.start_pts == 0


def test_decoded_frames_are_let_go_at_once(counting_videos):
    gc.collect()
    gc.disable()
    try:
        decode_frames(counting_videos["h264.mp4"], [0.0, 1.0, 2.0])
        left = [thing for thing in gc.get_objects() if type(thing) is av.VideoFrame]
    finally:
        gc.enable()

    assert [frame for frame in left if frame.width == FRAME_WIDTH] == []


def test_frames_are_shrunk_to_the_authors_size_and_never_enlarged(tmp_path):
    path = write_video(tmp_path / "v.mp4", [np.zeros((270, 482, 3), dtype=np.uint8)] * 3)

    assert decode_frames(path, [0.0], max_side_px=448).shape == (1, 250, 448, 3)
    assert decode_frames(path, [0.0], max_side_px=600).shape == (1, 270, 482, 3)


def test_shrinking_averages_what_it_leaves_out(tmp_path):
    stripes = np.zeros((64, 512, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    path = write_video(tmp_path / "v.mkv", [stripes], codec="ffv1", pixel_format="bgr0")

    frame = decode_frames(path, [0.0], max_side_px=64)[0]

    assert abs(frame.astype(int) - 127).max() <= 2


def test_shrinking_keeps_colours(tmp_path):
    colour = (200, 60, 30)
    path = write_video(tmp_path / "v.mp4", [np.full((128, 192, 3), colour, np.uint8)] * 2)

    frame = decode_frames(path, [0.0], max_side_px=48)[0]

    assert np.abs(frame.astype(int) - colour).max() <= 1


def test_shrinking_does_not_blur_colours(tmp_path):
    stripes = np.full((64, 192, 3), (255, 0, 0), np.uint8)
    stripes[:, np.arange(192) % 8 < 4] = (0, 0, 255)
    path = write_video(tmp_path / "v.mkv", [stripes], codec="ffv1")

    frame = decode_frames(path, [0.0], max_side_px=48)[0]

    assert np.abs(frame.astype(int) - stripes[::4, ::4]).max() <= 3


def test_the_frames_of_clips_are_decoded_once_each(counting_videos):
    clips = [Clip(0, 0, 1, (0.0, 1.0)), Clip(1, 1, 2, (1.0, 2.0))]

    frames = decode_clips(counting_videos["vp9.webm"], clips)

    assert [[frame_number(frame) for frame in clip] for clip in frames] == [[0, 25], [25, 50]]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_still_picture_is_a_video_of_one_frame(suffix, tmp_path):
    pixels = np.zeros((100, 200, 3), dtype=np.uint8)
    pixels[:, :100] = (250, 10, 10)
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(pixels).save(path)

    probe = probe_video(path)
    clips = plan_clips(probe, INDEX_PLAN)
    frames = decode_clips(path, clips)

    assert probe.is_still
    assert (probe.num_frames, probe.duration_seconds) == (1, 0)
    assert [clip.instants for clip in clips] == [(0.0,)]
    assert np.abs(frames[0][0].astype(int) - pixels).mean() < 5


@pytest.mark.parametrize("appended", ["newline", "preview"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_what_is_appended_to_a_still_picture_is_no_frame(suffix, appended, tmp_path):
    path, preview = tmp_path / f"picture.{suffix}", tmp_path / f"preview.{suffix}"
    Image.fromarray(corner_picture()).save(path)
    Image.new("RGB", (48, 32), "red").save(preview)
    path.write_bytes(path.read_bytes() + (b"\n" if appended == "newline" else preview.read_bytes()))

    probe = probe_video(path)
    uniform = SamplingPlan("authors", num_clips=1, frames_per_clip=2, strategy="uniform")

    assert (probe.num_frames, probe.duration_seconds) == (1, 0)
    assert probe.keyframe_seconds == (0.0,)
    for plan in (INDEX_PLAN, uniform):
        clips = decode_clips(path, plan_clips(probe, plan))
        assert len(clips) == 1
        assert np.abs(clips[0].astype(int) - corner_picture()).mean() < 5


def test_a_gif_is_a_video(tmp_path):
    pictures = [Image.fromarray(counting_frame(number)) for number in range(10)]
    path = tmp_path / "v.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, loop=0)

    frames = decode_frames(path, [0.0, 0.55, 0.99])

    assert probe_video(path).num_frames == 10
    assert [frame_number(frame) for frame in frames] == [0, 5, 9]


def test_a_picture_that_grows_midway_is_refused_unseen(tmp_path):
    small = write_video(tmp_path / "small.ts", [np.zeros((16, 16, 3), np.uint8)] * 10)
    large = write_video(tmp_path / "large.ts", [np.zeros((512, 512, 3), np.uint8)] * 3)
    path = tmp_path / "v.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())

    with pytest.raises(MediaTooLarge, match="512x512"):
        decode_frames(path, [1.0], limits=MediaLimits(max_pixels=256 * 256))


def test_a_picture_that_changes_size_midway_is_shown_at_one_size(tmp_path):
    first = write_counting_video(tmp_path / "first.ts", 25, b_frames=0)
    big = [counting_frame(25 + i).repeat(2, axis=0).repeat(2, axis=1) for i in range(25)]
    second = write_video(tmp_path / "second.ts", big)
    later = remux(second, tmp_path / "later.ts", options={"output_ts_offset": "1"})
    path = tmp_path / "v.ts"
    path.write_bytes(first.read_bytes() + later.read_bytes())

    frames = decode_frames(path, [0.4, 1.4])

    assert frames.shape[1:] == (FRAME_HEIGHT, FRAME_WIDTH, 3)
    assert [frame_number(frame) for frame in frames] == [10, 35]


def test_a_damaged_frame_fails_rather_than_being_shown(tmp_path):
    path = damage(SAMPLES / "potted_plant.mp4", tmp_path / "v.mp4", skip=4000, one_in=2000)

    with pytest.raises(DecodeFailed):
        decode_frames(path, [i / 30 for i in range(30)])


def test_a_file_cut_in_the_middle_ends_where_it_ends(tmp_path):
    source = write_counting_video(tmp_path / "v.ts", 120)
    path = cut(source, tmp_path / "cut.ts", share=0.5)

    assert frame_number(decode_frames(path, [0.5])[0]) == 12
    with pytest.raises(FrameNotFound):
        decode_frames(path, [4.0])


@pytest.mark.parametrize("instants", [[], [-0.1], [float("nan")], [float("inf")]])
def test_instants_out_of_range_are_refused(instants, counting_videos):
    with pytest.raises(ValueError, match="instant"):
        decode_frames(counting_videos["h264.mp4"], instants)


def test_clips_come_out_one_by_one_and_as_all_at_once(tmp_path):
    path = write_counting_video(tmp_path / "v.mp4", 60, fps=10, gop=60)
    clips = plan_clips(probe_video(path), SamplingPlan(num_clips=6, frames_per_clip=2))

    streamed = list(stream_clips(path, clips, max_side_px=64))

    assert [clip.index for clip, _ in streamed] == list(range(6))
    for (_, frames), at_once in zip(
        streamed, decode_clips(path, clips, max_side_px=64), strict=True
    ):
        assert np.array_equal(frames, at_once)


def test_a_stream_of_clips_hands_over_each_before_it_decodes_the_next(tmp_path):
    whole = write_counting_video(tmp_path / "v.mp4", 60, fps=10, gop=60)
    clips = plan_clips(probe_video(whole), SamplingPlan(num_clips=6))
    stream = stream_clips(whole, clips)

    first, frames = next(stream)
    whole.unlink()  # stays open
    second, _ = next(stream)
    stream.close()

    assert (first.index, second.index) == (0, 1)
    assert frame_number(frames[0]) == 5


def test_a_stream_passes_a_video_with_one_keyframe_once(tmp_path, monkeypatch):
    path = write_counting_video(tmp_path / "v.mp4", 200, fps=10, gop=200)
    clips = plan_clips(probe_video(path), SamplingPlan(num_clips=50))
    decoded = []
    real = FrameReader._decoded

    def count(self, **settings):
        for each in real(self, **settings):
            decoded.append(each[0])
            yield each

    monkeypatch.setattr(FrameReader, "_decoded", count)

    assert len(list(stream_clips(path, clips))) == 50
    assert len(decoded) <= 200
