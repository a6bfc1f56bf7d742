"""The moving-shapes benchmark: corpus, baselines, at most six trainings, tables as in the paper."""

import dataclasses
import time
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
from benchmarks.learning.shape_tokens import index_corpus, make_base
from benchmarks.learning.trainings import Training, run_training
from clipbert import ClipBert
from clipbert.config import Aggregation
from clipbert.stored_tokens import TokenFolder
from clipbert.training.recipe import Recipe

TEST_CLIPS = (1, 2, 4, 8, 16)
RETRIEVAL_TEST_CLIPS = (1, 2, 4, 8)
REFERENCE = "4 clips, lse"

_AGGREGATIONS: tuple[Aggregation, ...] = ("lse", "mean", "max")

QUESTIONS = Recipe(
    "qa",
    visual="frozen",
    plan="segments",
    clips=4,
    frames_per_clip=1,
    inference_clips=8,
    head_std=0.12,
    learning_rate=3e-4,
    epochs=4,
    videos_per_step=64,
    videos_per_forward=32,
    precision="auto",
    checkpoint_seconds=120,
)
CAPTIONS = dataclasses.replace(
    QUESTIONS,
    task="retrieval",
    negatives=3,
    epochs=16,
    videos_per_step=16,
    videos_per_forward=16,
)
# Five of questions and one of captions. Each row of a table changes one thing of the reference.
TRAININGS: dict[str, Recipe] = {
    "1 clip": dataclasses.replace(QUESTIONS, clips=1),
    REFERENCE: QUESTIONS,
    "4 clips, mean": dataclasses.replace(QUESTIONS, aggregation="mean"),
    "4 clips, max": dataclasses.replace(QUESTIONS, aggregation="max"),
    "4 clips, lse, fixed": dataclasses.replace(QUESTIONS, random_clips=False),
    "captions": CAPTIONS,
}


@dataclass(frozen=True)
class Size:
    """How much is made and trained.

    Attributes:
        num_train, num_holdout: videos.
        changes: fields of every recipe that are otherwise.
        trainings: names of those that are done.
    """

    num_train: int = 1500
    num_holdout: int = 200
    changes: Mapping[str, Any] = field(default_factory=dict)
    trainings: tuple[str, ...] = tuple(TRAININGS)


QUICK = Size(
    num_train=6,
    num_holdout=4,
    changes={"steps": 2, "videos_per_step": 2, "videos_per_forward": 2},
    trainings=(REFERENCE, "captions"),
)


def run(folder: Path, mini: Path, size: Size) -> dict[str, Any]:
    """Do everything that is not done yet in a folder; give all figures."""
    corpus = plan_corpus(folder / "corpus", num_train=size.num_train, num_holdout=size.num_holdout)
    make_corpus(corpus, progress=_counter("writing videos"))
    base = make_base(mini, folder / "base")
    begun = time.monotonic()
    tokens = index_corpus(corpus, base, progress=_counter("looking at videos"))
    index_seconds = round(time.monotonic() - begun, 1)
    train = corpus.questions_of(corpus.train)
    holdout = corpus.questions_of(corpus.holdout)
    result: dict[str, Any] = {
        "num_train_videos": len(corpus.train),
        "num_holdout_videos": len(corpus.holdout),
        "num_train_questions": len(train),
        "num_holdout_questions": len(holdout),
        "index_seconds": index_seconds,
        "baselines": {
            "question only": question_only_accuracy(train, holdout),
            "perfect look at the middle frame": middle_frame_accuracy(train, holdout),
        },
        "trainings": {},
    }
    for name in size.trainings:
        recipe = dataclasses.replace(TRAININGS[name], **size.changes)
        training = run_training(
            name,
            recipe,
            base=base,
            tokens=tokens,
            data=corpus.captions_path if recipe.task == "retrieval" else corpus.questions_path,
            out=folder / "runs" / name.replace(" ", "-").replace(",", ""),
        )
        measure = _measure_captions if recipe.task == "retrieval" else _measure_questions
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
