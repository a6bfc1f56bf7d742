import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clipbert.errors import ExtremeAspectRatio
from clipbert.model.pixels import clips_to_pixels, to_pixels
from clipbert.video.resizing import fitted_size, shrunk_size

PARITY = Path(__file__).parents[2] / "parity"
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "channel_order": "rgb"}
AUTHORS_MEAN = (123.675, 116.28, 103.53)


def resize_cases():
    tensors = load_file(PARITY / "resize.safetensors")
    rows = sorted({name.split(".")[0] for name in tensors})
    return [(tensors[f"{row}.frames_uint8"], tensors[f"{row}.resized_and_padded"]) for row in rows]


@pytest.mark.parametrize("case", range(3))
def test_to_pixels_resizes_and_pads_as_the_authors_do(case):
    frames, expected = resize_cases()[case]

    pixels = to_pixels(frames.permute(0, 2, 3, 1).numpy(), max_side_px=64, **RAW)

    torch.testing.assert_close(pixels, expected, atol=1e-3, rtol=0)


def test_to_pixels_normalises_as_the_authors_do():
    tensors = load_file(PARITY / "retrieval.safetensors")
    expected = tensors["visual_inputs_norm"]  # (B, K*T, 3, S, S)

    for video in range(2):
        frames = tensors[f"raw_frames_u8.{video}"].permute(0, 2, 3, 1).numpy()
        pixels = to_pixels(
            frames, max_side_px=128, mean=AUTHORS_MEAN, std=(1, 1, 1), channel_order="rgb"
        )
        torch.testing.assert_close(pixels, expected[video], atol=1e-3, rtol=0)


def test_fitted_size_is_the_authors_size():
    for case in json.loads((PARITY / "resize_sizes.json").read_text()):
        for side in (448, 768):
            assert fitted_size(case["h"], case["w"], side) == tuple(case[f"size_{side}"])


def test_shrunk_size_never_enlarges():
    assert shrunk_size(240, 320, 448) == (240, 320)
    assert shrunk_size(1080, 1920, 448) == (252, 448)


def test_padding_is_black_and_so_is_a_black_pixel():
    frames = np.zeros((1, 4, 8, 3), dtype=np.uint8)

    pixels = to_pixels(
        frames, max_side_px=8, mean=AUTHORS_MEAN, std=(2.0, 2.0, 2.0), channel_order="rgb"
    )

    expected = -torch.tensor(AUTHORS_MEAN) / 2
    torch.testing.assert_close(pixels, expected[None, :, None, None].expand(1, 3, 8, 8))


def test_bgr_reverses_the_channels_and_their_means():
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    settings = {"max_side_px": 8, "mean": (1.0, 2.0, 3.0), "std": (1.0, 2.0, 4.0)}

    rgb = to_pixels(frames, channel_order="rgb", **settings)
    bgr = to_pixels(frames, channel_order="bgr", **settings)

    torch.testing.assert_close(bgr, rgb.flip(1))


def test_a_batch_of_differently_sized_clips_equals_its_clips():
    generator = np.random.default_rng(0)
    clips = [
        generator.integers(0, 256, (2, *size, 3), dtype=np.uint8)
        for size in ((30, 64), (64, 30), (20, 20), (100, 90))
    ]

    batch = clips_to_pixels(clips, max_side_px=64, **RAW)

    assert batch.shape == (4, 2, 3, 64, 64)
    assert batch.dtype == torch.float32
    for row, clip in zip(batch, clips, strict=True):
        torch.testing.assert_close(row, to_pixels(clip, max_side_px=64, **RAW))


def test_frames_longer_than_five_to_one_are_refused():
    to_pixels(np.zeros((1, 10, 50, 3), dtype=np.uint8), max_side_px=64, **RAW)

    with pytest.raises(ExtremeAspectRatio):
        to_pixels(np.zeros((1, 10, 51, 3), dtype=np.uint8), max_side_px=64, **RAW)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 8, 8, 3), dtype=np.float32),
        np.zeros((8, 8, 3), dtype=np.uint8),
        np.zeros((1, 3, 8, 8), dtype=np.uint8),
        np.zeros((0, 8, 8, 3), dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused(frames):
    with pytest.raises(ValueError, match="need"):
        to_pixels(frames, max_side_px=8, **RAW)


@pytest.mark.parametrize("size", [(200, 1000), (100, 499), (1500, 300)])
def test_a_frame_of_five_to_one_is_fitted_however_it_was_shrunk(size):
    height, width = shrunk_size(*size, 448)
    frames = np.zeros((1, height, width, 3), dtype=np.uint8)

    pixels = to_pixels(frames, max_side_px=448, mean=(0, 0, 0), std=(1, 1, 1), channel_order="rgb")

    assert pixels.shape == (1, 3, 448, 448)
