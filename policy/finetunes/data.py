"""Whether there is enough to finetune on: labels to learn from and to judge by, videos to look at.

Never imports torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from clipbert.datasets.same_answers import merge_counts, untrained_answers
from clipbert.training.recipe import Recipe
from policy.finetunes.request import FinetuneRefused
from store.labels.datasets import DatasetRepository
from store.labels.records import DisputedQuestion
from store.labels.tables import Dataset, Split
from store.models.generation_coverage import dataset_videos_without_clips
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Model
from store.table_base import Task
from store.videos.repository import VideoRepository

_LEAST_ANSWERS: Final = 2
_LEAST_VIDEOS: Final = 2
_NUM_LISTED: Final = 5


def check_enough(session: Session, dataset: Dataset) -> None:
    """Refuse labels that nothing can be learnt from, or that leave nothing to judge by.

    Raises:
        FinetuneRefused: no_labels, train_empty, one_answer, one_video, choices_differ or
            holdout_empty.
    """
    num_labels = dataset.num_train + dataset.num_holdout
    labels = count_of(num_labels, "label")
    counts = {"num_train": dataset.num_train, "num_holdout": dataset.num_holdout}
    if num_labels == 0:
        raise FinetuneRefused("no_labels", f"data set {dataset.id} has no labels", **counts)
    if dataset.num_train == 0:
        raise FinetuneRefused(
            "train_empty",
            f"all {labels} are in the holdout and none is left to train from: label more videos, "
            'or give some the split "train"',
            **counts,
        )
    if dataset.task == Task.QA and len(dataset.answers) < _LEAST_ANSWERS:
        only = f": all are {dataset.answers[0]!r}" if dataset.answers else ""
        raise FinetuneRefused(
            "one_answer",
            f"the {count_of(dataset.num_train, 'label')} to train from need at least two different "
            f"answers{only}",
            answers=list(dataset.answers),
            **counts,
        )
    if dataset.task == Task.RETRIEVAL:
        labels_to_train = DatasetRepository(session).labels(dataset.id, Split.TRAIN)
        trained = (label.video_id for label in labels_to_train)
        if len(_first_different(trained, _LEAST_VIDEOS)) < _LEAST_VIDEOS:
            raise FinetuneRefused(
                "one_video",
                "all captions to train from are of one video: a caption is told from those of "
                "other videos, so at least two are needed",
                **counts,
            )
    if dataset.task == Task.MULTIPLE_CHOICE:
        sizes = DatasetRepository(session).numbers_of_choices(dataset.id, Split.TRAIN)
        if len(sizes) > 1:
            raise FinetuneRefused(
                "choices_differ",
                f"the questions to train from have {', '.join(map(str, sizes))} choices: all of "
                "them must have as many, for they are compared in one batch",
                num_choices=list(sizes),
                **counts,
            )
    if dataset.num_holdout == 0:
        raise FinetuneRefused(
            "holdout_empty",
            f"none of the {labels} is in the holdout, by which the model is judged: about one "
            "video in five falls into it, and these are of "
            f"{count_of(dataset.num_videos, 'video')}; label more videos, or give the labels of "
            'some the split "holdout"',
            num_videos=dataset.num_videos,
            **counts,
        )


def doubts_about(session: Session, dataset: Dataset) -> list[str]:
    """Describe what may be wrong with labels that a model can be trained from, as sentences."""
    datasets = DatasetRepository(session)
    found = []
    disputed = contradictions(datasets.disputed(dataset.id))
    if disputed:
        found.append(
            f"{count_of(len(disputed), 'question')} of one video with contradicting answers: "
            f"{describe_contradictions(disputed)}"
        )
    if dataset.task == Task.QA:
        held_out = merge_counts(datasets.answer_counts(dataset.id, Split.HOLDOUT))
        if len(held_out) == 1 and held_out[0][1] > 1:
            found.append(
                f"all {held_out[0][1]} labels of the holdout have the answer {held_out[0][0]!r}: "
                "a model that gives no other is always right by them"
            )
        missed = untrained_answers(held_out, dataset.answers)
        if missed:
            found.append(describe_untrained(missed, dataset.num_holdout))
    return found


def describe_untrained(missed: Sequence[tuple[str, int]], num_holdout: int) -> str:
    """Say which answers of the holdout no model can learn, and how many labels have them."""
    listed = ", ".join(f"{answer!r} ({count})" for answer, count in missed[:_NUM_LISTED])
    more = len(missed) - _NUM_LISTED
    return (
        f"{sum(count for _, count in missed)} of {count_of(num_holdout, 'label')} of the holdout "
        f"have an answer that no label to train from has: {listed}"
        f"{f', and {more} more' if more > 0 else ''}: a model cannot give it, so they count as "
        "wrong"
    )


def contradictions(disputed: Iterable[DisputedQuestion]) -> list[DisputedQuestion]:
    """Keep the questions whose answers differ in more than spelling, each answer in one form."""
    found = []
    for question in disputed:
        answers = [answer for answer, _ in merge_counts((each, 1) for each in question.answers)]
        if len(answers) > 1:
            found.append(replace(question, answers=answers))
    return found


def describe_contradictions(disputed: Sequence[DisputedQuestion]) -> str:
    """Name the first few contradictions, each with its video, question and answers."""
    shown = [
        f"{each.text!r} of video {each.video_id}: {', '.join(map(repr, each.answers))}"
        for each in disputed[:_NUM_LISTED]
    ]
    more = len(disputed) - _NUM_LISTED
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def check_videos(session: Session, dataset: Dataset, recipe: Recipe, base: Model) -> None:
    """Refuse labels of videos that cannot be trained from.

    Raises:
        FinetuneRefused: video_deleted, video_not_ready, no_active_generation, visual_side_differs
            or tokens_missing.
    """
    missing = DatasetRepository(session).missing_videos(dataset.id)
    there = VideoRepository(session).existing(missing)
    deleted = [video_id for video_id in missing if video_id not in there]
    if deleted:
        raise _missing(
            "video_deleted",
            deleted,
            "of these labels were deleted",
            "leave dataset_id out, to use the labels that are left",
        )
    if recipe.visual != "frozen":
        if missing:
            what, remedy = "of these labels are not ready", "wait for them, or leave them out"
            raise _missing("video_not_ready", missing, what, remedy)
        return
    active = GenerationRepository(session).active()
    if active is None:
        raise no_active_generation("there are no visual tokens to train from")
    own = ModelRepository(session).get(active.model_id)
    if own.visual_sha256 != base.visual_sha256:
        raise FinetuneRefused(
            "visual_side_differs",
            f"{base.name} {base.version} reads pixels differently from {own.name} {own.version}, "
            "which made the tokens of the index: take that as base, or set recipe.visual to "
            '"trained"',
            field="base_model_id",
        )
    without = dataset_videos_without_clips(session, dataset.id, generation_id=active.id)
    if without:
        raise _missing(
            "tokens_missing",
            without,
            "of these labels are not indexed",
            'wait for them, leave them out, or set recipe.visual to "trained"',
        )


def no_active_generation(why: str) -> FinetuneRefused:
    """Make the refusal of what needs an index before there is one."""
    return FinetuneRefused("no_active_generation", f"nothing is indexed yet: {why}")


def count_of(number: int, noun: str) -> str:
    """Write a count with its noun: `1 label`, `2 labels`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _missing(code: str, video_ids: Sequence[UUID], what: str, remedy: str) -> FinetuneRefused:
    listed = ", ".join(str(video_id) for video_id in video_ids[:_NUM_LISTED])
    more = ", ..." if len(video_ids) > _NUM_LISTED else ""
    return FinetuneRefused(
        code,
        f"{count_of(len(video_ids), 'video')} {what}: {listed}{more}; {remedy}",
        num_videos=len(video_ids),
        video_ids=[str(video_id) for video_id in video_ids[:_NUM_LISTED]],
    )


def _first_different(values: Iterable[UUID], count: int) -> set[UUID]:
    seen: set[UUID] = set()
    for value in values:
        seen.add(value)
        if len(seen) == count:
            break
    return seen
