import numpy as np
import pytest
from PIL import Image

from clipbert.inference.clips import read_clips
from clipbert.sampling.plan import SamplingPlan

AUTHORS = SamplingPlan("authors", num_clips=1, frames_per_clip=1, strategy="middle")


def write_photo(path, *, orientation=None):
    """Colours that change from pixel to pixel: there decoders of halved colours differ."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(noise).save(path, quality=90, subsampling="4:2:0", exif=exif)
    return path


def test_a_jpeg_of_the_authors_plan_is_pillows_to_the_bit(tmp_path):
    path = write_photo(tmp_path / "a.jpg")

    (authors,) = read_clips(path, AUTHORS, max_side_px=128).frames
    (ours,) = read_clips(path, SamplingPlan(num_clips=1), max_side_px=128).frames

    expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(authors[0], expected)
    assert (ours[0] != expected).any()  # FFmpeg's differs, or this test would say nothing


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_it_is_held_as_its_notes_say(tmp_path, orientation, turns):
    path = write_photo(tmp_path / "a.jpg", orientation=orientation)

    (frames,) = read_clips(path, AUTHORS, max_side_px=128).frames

    expected = np.rot90(np.asarray(Image.open(path).convert("RGB")), turns)
    np.testing.assert_array_equal(frames[0], expected)
