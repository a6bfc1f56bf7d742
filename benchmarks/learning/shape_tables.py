"""The moving-shapes benchmark: corpus, baselines, at most six trainings, tables as in the paper."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.learning.shape_corpus import ShapeCorpus, make_corpus, plan_corpus
from benchmarks.learning.shape_measures import (
    accuracies,
    caption_logits,
    question_logits,
    retrieval_recalls,
)
from benchmarks.learning.shape_questions import middle_frame_accuracy, question_only_accuracy
from benchmarks.learning.shape_tokens import index_pictures, index_videos, make_base
from benchmarks.learning.trainings import Training, run_training
from clipbert import ClipBert
from clipbert.datasets.token_folder import TokenFolder
from clipbert.model.config import Aggregation
from clipbert.training.recipe import Recipe

TEST_CLIPS = (1, 2, 4, 8, 16)
RETRIEVAL_TEST_CLIPS = (1, 2, 4, 8)
PICTURES = "pictures alone"
REFERENCE = "4 clips, lse"
CAPTIONS = "captions"

_AGGREGATIONS: tuple[Aggregation, ...] = ("lse", "mean", "max")

_OF_PICTURES = Recipe(
    "qa",
    visual="frozen",
    plan="segments",
    clips=1,
    frames_per_clip=1,
    inference_clips=8,
    head_std=0.1,
    dropout=0.0,
    learning_rate=3e-4,
    epochs=5,
    videos_per_step=128,
    videos_per_forward=128,
    precision="auto",
    checkpoint_seconds=120,
)
_OF_QUESTIONS = dataclasses.replace(
    _OF_PICTURES, clips=4, epochs=3, videos_per_step=64, videos_per_forward=64
)
# A clip with a shape that a caption does not name speaks against it whatever the others show: one
# clip of each of many videos teaches more than several clips of few, and their mean adds up what
# each says.
_OF_CAPTIONS = dataclasses.replace(
    _OF_QUESTIONS, task="retrieval", negatives=3, aggregation="mean", clips=1, epochs=22
)
# The first learns from pictures, as CLIPBERT does before it sees videos: what four clips show is
# too weak a hint of what a colour is. All others start from it, the captions' from the reference.
# Each row of a table changes one thing of the reference.
TRAININGS: dict[str, Recipe] = {
    PICTURES: _OF_PICTURES,
    REFERENCE: _OF_QUESTIONS,
    CAPTIONS: _OF_CAPTIONS,
    "1 clip": dataclasses.replace(_OF_QUESTIONS, clips=1),
    "4 clips, mean": dataclasses.replace(_OF_QUESTIONS, aggregation="mean"),
    "4 clips, lse, fixed": dataclasses.replace(_OF_QUESTIONS, random_clips=False),
}


@dataclass(frozen=True)
class Size:
    """How much is made and trained.

    Attributes:
        num_pictures: to learn from first.
        num_train, num_holdout: videos.
        changes: fields of every recipe that are otherwise.
        trainings: names of those that are done.
    """

    num_pictures: int = 6000
    num_train: int = 1500
    num_holdout: int = 200
    changes: Mapping[str, Any] = field(default_factory=dict)
    trainings: tuple[str, ...] = tuple(TRAININGS)


QUICK = Size(
    num_pictures=6,
    num_train=6,
    num_holdout=4,
    changes={"steps": 2, "videos_per_step": 2, "videos_per_forward": 2},
    trainings=(PICTURES, REFERENCE, CAPTIONS),
)


def run(folder: Path, mini: Path, size: Size) -> dict[str, Any]:
    """Do everything that is not done yet in a folder; give all figures."""
    corpus = plan_corpus(
        folder / "corpus",
        num_pictures=size.num_pictures,
        num_train=size.num_train,
        num_holdout=size.num_holdout,
    )
    make_corpus(corpus, progress=_counter("writing videos"))
    base = make_base(mini, folder / "base")
    pictures = index_pictures(corpus, base, progress=_counter("looking at pictures"))
    tokens = index_videos(corpus, base, progress=_counter("looking at videos"))
    train = corpus.questions_of(corpus.train)
    holdout = corpus.questions_of(corpus.holdout)
    result: dict[str, Any] = {
        "num_pictures": len(corpus.pictures),
        "num_train_videos": len(corpus.train),
        "num_holdout_videos": len(corpus.holdout),
        "num_train_questions": len(train),
        "num_holdout_questions": len(holdout),
        "baselines": {
            "question only": question_only_accuracy(train, holdout),
            "perfect look at the middle frame": middle_frame_accuracy(train, holdout),
        },
        "trainings": {},
    }
    models = {name: folder / "runs" / name.replace(" ", "-").replace(",", "") for name in TRAININGS}
    starts = {PICTURES: base, CAPTIONS: models[REFERENCE]}
    labels = {PICTURES: corpus.picture_questions_path, CAPTIONS: corpus.captions_path}
    for name in size.trainings:
        recipe = dataclasses.replace(TRAININGS[name], **size.changes)
        training = run_training(
            name,
            recipe,
            base=starts.get(name, models[PICTURES]),
            tokens=pictures if name == PICTURES else tokens,
            data=labels.get(name, corpus.questions_path),
            out=models[name],
        )
        measure = _measure_captions if name == CAPTIONS else _measure_questions
        result["trainings"][name] = {
            "seconds": training.seconds,
            "cpu_seconds": training.cpu_seconds,
            "recipe": recipe.to_toml(),
            **measure(training, corpus, tokens),
        }
    return result


def _measure_questions(training: Training, corpus: ShapeCorpus, tokens: Path) -> dict[str, Any]:
    config = ClipBert.from_pretrained(training.folder).config
    questions = corpus.questions_of(corpus.holdout)
    logits = question_logits(training.folder, TokenFolder(tokens), questions)
    return {
        "aggregation": config.aggregation,
        "accuracy": {
            how: {
                str(num_clips): accuracies(
                    logits, questions, config.answers, num_clips=num_clips, how=how
                )
                for num_clips in TEST_CLIPS
            }
            for how in _AGGREGATIONS
        },
    }


def _measure_captions(training: Training, corpus: ShapeCorpus, tokens: Path) -> dict[str, Any]:
    config = ClipBert.from_pretrained(training.folder).config
    logits = caption_logits(training.folder, TokenFolder(tokens), corpus.holdout)
    return {
        "aggregation": config.aggregation,
        "recall": {
            str(num_clips): retrieval_recalls(logits, num_clips=num_clips, how=config.aggregation)
            for num_clips in RETRIEVAL_TEST_CLIPS
        },
    }


def _counter(what: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        print(f"\r{what}: {done} of {total}   ", end="\n" if done == total else "", flush=True)

    return show
