import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipbert.checkpoints.folder import VISUAL_PREFIXES
from clipbert.model.config import ClipBertConfig
from store.models.folders import hash_visual_side

PIXELS = {
    "max_side_px": 64,
    "mean": [1.0, 2.0, 3.0],
    "std": [1.0, 1.0, 1.0],
    "channel_order": "rgb",
    "backbone": {"name": "resnet50"},
    "grid_encoder": {"kind": "conv"},
    "frame_positions": 0,
}
VISUAL = {"backbone.conv": torch.tensor([1.0, 2.0]), "grid_encoder.conv": torch.ones(1, 2)}
TEXT = {"cross_encoder.dense": torch.ones(2)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PIXELS | {"num_layers": 2}))
    save_file(VISUAL | TEXT, tmp_path / "model.safetensors")
    return tmp_path


def test_the_visual_fingerprint_is_of_pixel_settings_and_the_bytes_of_the_cnn(folder):
    digest = hashlib.sha256(json.dumps(PIXELS, sort_keys=True).encode())
    digest.update(b"backbone.conv F32 [2]" + VISUAL["backbone.conv"].numpy().tobytes())
    digest.update(b"grid_encoder.conv F32 [1, 2]" + VISUAL["grid_encoder.conv"].numpy().tobytes())

    assert hash_visual_side(folder) == digest.hexdigest()


def test_the_visual_fingerprint_is_blind_to_the_text_side(folder):
    before = hash_visual_side(folder)

    (folder / "config.json").write_text(json.dumps(PIXELS | {"num_layers": 4, "answers": ["a"]}))
    save_file(VISUAL | {"cross_encoder.dense": torch.zeros(2)}, folder / "model.safetensors")

    assert hash_visual_side(folder) == before


@pytest.mark.parametrize("name", VISUAL)
@pytest.mark.parametrize("change", [torch.zeros_like, torch.Tensor.half])
def test_the_visual_fingerprint_sees_every_change_of_the_cnn(folder, name, change):
    before = hash_visual_side(folder)
    state = load_file(folder / "model.safetensors")

    changed = change(state[name])
    save_file(state | {name: changed}, folder / "model.safetensors")

    assert hash_visual_side(folder) != before


@pytest.mark.parametrize("field", PIXELS)
def test_the_visual_fingerprint_sees_every_change_of_the_pixels(folder, field):
    before = hash_visual_side(folder)

    (folder / "config.json").write_text(json.dumps(PIXELS | {field: None}))

    assert hash_visual_side(folder) != before


def test_the_store_calls_the_visual_side_what_the_library_calls_it():
    settings = ClipBertConfig.preset("clipbert-tiny").to_json()

    assert settings.keys() >= PIXELS.keys()
    assert {f"{name.partition('.')[0]}." for name in VISUAL} == set(VISUAL_PREFIXES)
