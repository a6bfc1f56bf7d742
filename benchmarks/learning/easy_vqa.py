"""easy-vqa: 48,248 questions about 5,000 pictures of one coloured shape each.

The data set comes as a wheel of PyPI (MIT licence), of which only the data files are read.
Source: Victor Zhou, https://github.com/vzhou842/easy-VQA.
"""

import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbert.checkpoints.mini.wheels import Wheel, fetch_wheel

WHEEL = Wheel(
    project="easy-vqa",
    version="1.0",
    file_name="easy_vqa-1.0-py3-none-any.whl",
    sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
)
SPLITS = {"train": "train", "test": "holdout"}  # the data set's name -> ours

_DATA = "easy_vqa/data"


@dataclass(frozen=True)
class EasyVqa:
    """The data set on disk.

    Attributes:
        pictures: PNG files, named for their split and number.
        labels: lines as `POST /v1/labels` takes them.
    """

    pictures: Sequence[Path]
    labels: Sequence[dict[str, str]]


def unpack(cache: Path, folder: Path, *, pictures_per_split: int | None = None) -> EasyVqa:
    """Fetch the wheel, if need be, and unpack its pictures.

    Args:
        cache: where downloaded wheels are kept.
        folder: of the pictures; those that are there already stay.
        pictures_per_split: only the first ones; None takes all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures, labels = [], []
    with zipfile.ZipFile(fetch_wheel(WHEEL, cache, progress=print)) as wheel:
        for theirs, ours in SPLITS.items():
            asked = json.loads(wheel.read(f"{_DATA}/{theirs}/questions.json"))
            numbers = sorted({number for _, _, number in asked})[:pictures_per_split]
            for number in numbers:
                path = folder / f"{theirs}-{number}.png"
                if not path.is_file():
                    with wheel.open(f"{_DATA}/{theirs}/images/{number}.png") as packed:
                        _write(path, packed.read())
                pictures.append(path)
            kept = set(numbers)
            labels += [
                {
                    "video": f"{theirs}-{number}.png",
                    "question": question,
                    "answer": answer,
                    "split": ours,
                }
                for question, answer, number in asked
                if number in kept
            ]
    return EasyVqa(pictures, labels)


def question_only_accuracy(labels: Sequence[dict[str, str]]) -> float:
    """Answer each held-out question as it is most often answered in train."""
    answers: dict[str, Counter[str]] = {}
    for label in labels:
        if label["split"] == "train":
            answers.setdefault(label["question"], Counter())[label["answer"]] += 1
    held = [label for label in labels if label["split"] == "holdout"]
    guesses = {text: counts.most_common(1)[0][0] for text, counts in answers.items()}
    return sum(guesses.get(each["question"]) == each["answer"] for each in held) / len(held)


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(content)
    shutil.move(unfinished, path)
