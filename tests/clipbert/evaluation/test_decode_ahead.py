import threading

from PIL import Image
from videos import counting_frame, cut, frame_number, write_counting_video

from clipbert.datasets.annotation import WHOLE, Span
from clipbert.evaluation.decode_ahead import decode_ahead
from clipbert.sampling.plan import SamplingPlan

PLAN = SamplingPlan("segments", num_clips=2)


def test_frames_of_the_authors_plan_arrive_whole(tmp_path):
    path = write_counting_video(tmp_path / "v.mp4", num_frames=30)  # 96 x 64

    def shapes(plan):
        decoded = decode_ahead([(path, WHOLE)], plan, max_side_px=48, num_threads=1)
        return [[clip.shape for clip in video.frames] for video in decoded]

    assert shapes(SamplingPlan("authors", num_clips=2)) == [[(1, 64, 96, 3)] * 2]
    assert shapes(SamplingPlan("segments", num_clips=2)) == [[(1, 32, 48, 3)] * 2]


def test_videos_are_decoded_in_order_and_errors_take_their_place(tmp_path):
    write_counting_video(tmp_path / "a.mp4", num_frames=30)
    cut(tmp_path / "a.mp4", tmp_path / "b.mp4", share=0.3)
    wanted = [(tmp_path / "b.mp4", WHOLE), *[(tmp_path / "a.mp4", WHOLE)] * 4]

    decoded = list(decode_ahead(wanted, PLAN, max_side_px=96, num_threads=2))

    assert len(decoded) == 5
    assert decoded[0].code == "truncated_media"
    assert [video.places for video in decoded[1:]] == [(0.25, 0.75)] * 4


def test_a_picture_is_one_clip(tmp_path):
    path = tmp_path / "p.png"
    Image.fromarray(counting_frame(5)).save(path)

    (video,) = decode_ahead([(path, WHOLE)], PLAN, max_side_px=96, num_threads=1)

    assert [clip.shape for clip in video.frames] == [(1, 64, 96, 3)]
    assert video.places == (0.5,)


def test_decoding_ends_when_nobody_reads_on(tmp_path):
    path = write_counting_video(tmp_path / "v.mp4", num_frames=30)

    decoded = decode_ahead([(path, WHOLE)] * 1000, PLAN, max_side_px=96, num_threads=2)
    next(decoded)
    decoded.close()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_only_the_part_that_is_asked_for_is_decoded(tmp_path):
    path = write_counting_video(tmp_path / "v.mp4", num_frames=50, fps=10)

    (video,) = decode_ahead([(path, Span(2.0, 3.0))], PLAN, max_side_px=96, num_threads=1)

    assert [frame_number(clip[0]) for clip in video.frames] == [22, 27]
    assert video.places == (0.45, 0.55)
