import os

import numpy as np
import pytest

from clipbert.evaluation.score_store import ScoreStore

INPUTS = {"model_sha256": "ab", "plan": {"name": "segments", "num_clips": 2}}
ARRAY = np.array([0.25, 0.5], dtype=np.float32)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def folder(tmp_path, video):
    folder = tmp_path / "out" / "scores"
    ScoreStore(folder, INPUTS, resume=True).write("v", video, ARRAY)
    return folder


def test_what_was_written_is_read_by_a_later_store(folder, video):
    store = ScoreStore(folder, INPUTS, resume=True)

    assert store.read("v", video).tolist() == ARRAY.tolist()
    assert store.read("v", video).dtype == ARRAY.dtype
    assert (store.num_found, store.changed) == (1, ())
    assert store.read("another name of the file", video) is None


@pytest.mark.parametrize(
    ("inputs", "changed"),
    [
        ({**INPUTS, "plan": {"name": "segments", "num_clips": 3}}, ("plan",)),
        ({"model_sha256": "cd", "limit": 5}, ("limit", "model_sha256", "plan")),
    ],
)
def test_other_inputs_start_afresh_and_are_named(folder, video, inputs, changed):
    store = ScoreStore(folder, inputs, resume=True)

    assert store.changed == changed
    assert store.num_found == 0
    assert store.read("v", video) is None


def test_without_resuming_nothing_is_kept(folder, video):
    store = ScoreStore(folder, INPUTS, resume=False)

    assert store.read("v", video) is None
    assert store.changed == ()


def test_a_replaced_video_is_not_known(folder, video):
    store = ScoreStore(folder, INPUTS, resume=True)
    video.write_bytes(b"two")
    os.utime(video, ns=(1, 1))

    assert store.read("v", video) is None


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_a_damaged_array_counts_as_absent(folder, video, content):
    (stored,) = folder.glob("*.npy")
    stored.write_bytes(content)

    assert ScoreStore(folder, INPUTS, resume=True).read("v", video) is None


def test_only_files_of_a_store_are_removed(folder, video):
    for name in ("mine.npy", "notes.txt", "0" * 32 + ".part"):
        (folder / name).write_bytes(b"x")

    ScoreStore(folder, {}, resume=True)

    assert sorted(path.name for path in folder.iterdir()) == [
        "inputs.json",
        "mine.npy",
        "notes.txt",
    ]
