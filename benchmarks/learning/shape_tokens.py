"""The visual tokens of the pictures and videos, made once for all trainings."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.learning.moving_shapes import DURATION_SECONDS
from benchmarks.learning.shape_corpus import ShapeCorpus, picture_name, video_name
from clipbert import ClipBert, SamplingPlan
from clipbert.datasets.token_index import INDEX_FILE

# The frames are small, so the CNN sees them a third as large as clipbert-mini does by default: a
# clip is 4 x 4 tokens, and costs a third.
MAX_SIDE_PX = 256
NUM_CLIPS = 16
PLAN = SamplingPlan("segments", num_clips=NUM_CLIPS, frames_per_clip=1)
_ONE_LOOK = SamplingPlan("segments", num_clips=1, frames_per_clip=1)

Progress = Callable[[int, int], None]


def make_base(mini: Path, folder: Path) -> Path:
    """Write clipbert-mini for small frames: the same weights."""
    if not (folder / "model.safetensors").is_file():
        model = ClipBert.from_pretrained(mini)
        network = model.network
        network.config = dataclasses.replace(network.config, max_side_px=MAX_SIDE_PX, plan=PLAN)
        model.save_pretrained(folder)
    return folder


def index_videos(corpus: ShapeCorpus, base: Path, *, progress: Progress) -> Path:
    """Look at every video's clips once, and write a token folder; those that are there stay."""
    seconds = DURATION_SECONDS / NUM_CLIPS
    clips = [[index * seconds, (index + 1) * seconds] for index in range(NUM_CLIPS)]
    lines = {
        corpus.videos / f"{name}.mp4": _line(name, clips, DURATION_SECONDS)
        for name in map(video_name, (*corpus.holdout, *corpus.train))
    }
    return _index(corpus.folder / "tokens", lines, base, PLAN, progress=progress)


def index_pictures(corpus: ShapeCorpus, base: Path, *, progress: Progress) -> Path:
    """Look at every picture once, and write a token folder; those that are there stay."""
    lines = {
        corpus.stills / f"{name}.png": _line(name, [[0.0, 0.0]], 0.0)
        for name in map(picture_name, corpus.pictures)
    }
    return _index(corpus.folder / "picture-tokens", lines, base, _ONE_LOOK, progress=progress)


def _index(
    folder: Path,
    lines: Mapping[Path, dict[str, object]],
    base: Path,
    plan: SamplingPlan,
    *,
    progress: Progress,
) -> Path:
    folder.mkdir(exist_ok=True)
    missing = [file for file in lines if not _tokens_path(folder, file).is_file()]
    if missing:
        model = ClipBert.for_serving(base, dtype=torch.float32)  # three times as fast
        for done, file in enumerate(missing, start=1):
            tokens = model.encode_video(file, plan).tokens.half()  # as the service stores them
            unfinished = _tokens_path(folder, file).with_suffix(".part")
            save_file({"tokens": tokens.contiguous()}, unfinished)
            unfinished.replace(_tokens_path(folder, file))
            progress(done, len(missing))
    index = "".join(json.dumps(line) + "\n" for line in lines.values())
    (folder / INDEX_FILE).write_text(index, encoding="utf-8")
    return folder


def _tokens_path(folder: Path, file: Path) -> Path:
    return folder / f"{file.stem}.safetensors"


def _line(name: str, clips: list[list[float]], duration_seconds: float) -> dict[str, object]:
    return {
        "video": name,
        "file": f"{name}.safetensors",
        "clips": clips,
        "duration_seconds": duration_seconds,
    }
