"""The moving shapes on disk: pictures and videos, questions and captions, train and holdout."""

import itertools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.learning.moving_shapes import (
    SIDE_PX,
    Picture,
    Script,
    take_picture,
    write_picture,
    write_script,
    write_video,
)
from benchmarks.learning.shape_questions import Question, ask, ask_picture

SEED = 2021
FIRST_PICTURE = 1_000_000
"""The number of the first picture: no video has so high a one."""

_MADE_BY_FILE = "made_by.json"
_VERSION = 2  # raise it when the code makes other videos or questions


@dataclass(frozen=True)
class ShapeCorpus:
    """Where the corpus lies, and what is in it.

    Attributes:
        folder: of everything.
        pictures: to learn from before any video.
        train: scripts to learn from.
        holdout: scripts to measure with.
    """

    folder: Path
    pictures: Sequence[Picture]
    train: Sequence[Script]
    holdout: Sequence[Script]

    @property
    def videos(self) -> Path:
        """Folder of the MP4 files."""
        return self.folder / "videos"

    @property
    def stills(self) -> Path:
        """Folder of the PNG files."""
        return self.folder / "pictures"

    @property
    def picture_questions_path(self) -> Path:
        """Labels file of the questions about pictures."""
        return self.folder / "picture_questions.jsonl"

    @property
    def questions_path(self) -> Path:
        """Labels file of the questions."""
        return self.folder / "questions.jsonl"

    @property
    def captions_path(self) -> Path:
        """Labels file of the captions."""
        return self.folder / "captions.jsonl"

    def questions_of(self, scripts: Sequence[Script]) -> list[Question]:
        """List the questions of some videos."""
        return [question for script in scripts for question in ask(script, seed=SEED)]


def plan_corpus(
    folder: Path, *, num_pictures: int, num_train: int, num_holdout: int
) -> ShapeCorpus:
    """Write the scripts of a corpus. No two videos of the holdout have the same caption.

    plan_corpus(folder, num_pictures=6000, num_train=1500, num_holdout=200)
    """
    holdout: dict[str, Script] = {}  # by caption
    for number in itertools.count():
        if len(holdout) == num_holdout:
            break
        script = write_script(number, seed=SEED)
        holdout.setdefault(script.caption, script)
    train = [write_script(each, seed=SEED) for each in range(number, number + num_train)]
    pictures = [take_picture(FIRST_PICTURE + each, seed=SEED) for each in range(num_pictures)]
    return ShapeCorpus(folder, pictures, train, list(holdout.values()))


def make_corpus(
    corpus: ShapeCorpus, *, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> None:
    """Write what is missing of a corpus; files that are there already stay."""
    made_by = {"version": _VERSION, "seed": SEED, "side_px": SIDE_PX}
    stamp = corpus.folder / _MADE_BY_FILE
    if corpus.folder.exists() and (not stamp.is_file() or json.loads(stamp.read_text()) != made_by):
        raise SystemExit(f"{corpus.folder} was made by another version: remove it")
    for folder in (corpus.videos, corpus.stills):
        folder.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps(made_by) + "\n")
    scripts = [*corpus.holdout, *corpus.train]
    missing = [script for script in scripts if not _path(corpus, script).is_file()]
    for picture in corpus.pictures:
        if not (path := corpus.stills / f"{picture_name(picture)}.png").is_file():
            _replace(path, partial(write_picture, picture, seed=SEED))
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        written = processes.map(partial(_write, corpus.videos), missing, chunksize=8)
        for done, _ in enumerate(written, start=1):
            progress(done, len(missing))
    pictured = [line for picture in corpus.pictures for line in _asked_of(picture)]
    _write_lines(corpus.picture_questions_path, pictured)
    _write_lines(corpus.questions_path, [line for s in _splits(corpus) for line in _asked(*s)])
    _write_lines(corpus.captions_path, [line for s in _splits(corpus) for line in _told(*s)])


def video_name(script: Script) -> str:
    """Name a video, as in the labels files."""
    return f"shapes-{script.number:05}"


def picture_name(picture: Picture) -> str:
    """Name a picture, as in the labels files."""
    return f"picture-{picture.script.number - FIRST_PICTURE:05}"


def _path(corpus: ShapeCorpus, script: Script) -> Path:
    return corpus.videos / f"{video_name(script)}.mp4"


def _write(videos: Path, script: Script) -> None:
    _replace(videos / f"{video_name(script)}.mp4", partial(write_video, script, seed=SEED))


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    unfinished = path.with_name(f".{path.name}.part{path.suffix}")
    write(unfinished)
    unfinished.replace(path)


def _splits(corpus: ShapeCorpus) -> list[tuple[str, Sequence[Script]]]:
    return [("train", corpus.train), ("holdout", corpus.holdout)]


def _asked(split: str, scripts: Sequence[Script]) -> list[dict[str, str]]:
    return [
        _label(video_name(script), question, split)
        for script in scripts
        for question in ask(script, seed=SEED)
    ]


def _asked_of(picture: Picture) -> list[dict[str, str]]:
    questions = ask_picture(picture, seed=SEED)
    return [_label(picture_name(picture), question, "train") for question in questions]


def _label(video: str, question: Question, split: str) -> dict[str, str]:
    return {"video": video, "question": question.text, "answer": question.answer, "split": split}


def _told(split: str, scripts: Sequence[Script]) -> list[dict[str, str]]:
    return [
        {"video": video_name(script), "caption": script.caption, "split": split}
        for script in scripts
    ]


def _write_lines(path: Path, lines: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
