"""The visual tokens of the moving shapes, made once for all trainings."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.learning.moving_shapes import DURATION_SECONDS, Script
from benchmarks.learning.shape_corpus import ShapeCorpus, video_name
from clipbert import ClipBert, SamplingPlan
from clipbert.stored_tokens import INDEX_FILE

# The videos are small, so the CNN sees them a fifth as large as clipbert-mini does by default: a
# clip is 3 x 3 tokens, and costs a fifth.
MAX_SIDE_PX = 192
NUM_CLIPS = 16
PLAN = SamplingPlan("segments", num_clips=NUM_CLIPS, frames_per_clip=1)


def make_base(mini: Path, folder: Path) -> Path:
    """Write clipbert-mini for small frames: the same weights."""
    if not (folder / "model.safetensors").is_file():
        model = ClipBert.from_pretrained(mini)
        model.config = dataclasses.replace(model.config, max_side_px=MAX_SIDE_PX, plan=PLAN)
        model.save_pretrained(folder)
    return folder


def index_corpus(
    corpus: ShapeCorpus,
    base: Path,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Path:
    """Look at every video's clips once, and write a token folder; those that are there stay."""
    folder = corpus.folder / "tokens"
    folder.mkdir(exist_ok=True)
    scripts = [*corpus.holdout, *corpus.train]
    lines = [_line(folder, script) for script in scripts]
    missing = [script for script in scripts if not _path(folder, script).is_file()]
    if missing:
        _encode(missing, corpus.videos, folder, base, progress)
    index = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / INDEX_FILE).write_text(index, encoding="utf-8")
    return folder


def _encode(
    scripts: Sequence[Script],
    videos: Path,
    folder: Path,
    base: Path,
    progress: Callable[[int, int], None],
) -> None:
    model = ClipBert.from_pretrained(base)
    model.fold_batch_norm()
    model.to(memory_format=torch.channels_last)  # three times as fast
    for done, script in enumerate(scripts, start=1):
        tokens = model.encode_video(videos / f"{video_name(script)}.mp4").tokens
        unfinished = _path(folder, script).with_suffix(".part")
        save_file({"tokens": tokens.contiguous()}, unfinished)
        unfinished.replace(_path(folder, script))
        progress(done, len(scripts))


def _path(folder: Path, script: Script) -> Path:
    return folder / f"{video_name(script)}.safetensors"


def _line(folder: Path, script: Script) -> dict[str, object]:
    seconds = DURATION_SECONDS / NUM_CLIPS
    clips = [[index * seconds, (index + 1) * seconds] for index in range(NUM_CLIPS)]
    return {
        "video": video_name(script),
        "file": _path(folder, script).name,
        "clips": clips,
        "duration_seconds": DURATION_SECONDS,
    }
