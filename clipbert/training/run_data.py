"""The data of a run: which lines of which videos it learns from, and its answers."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbert.datasets.annotation import Annotation
from clipbert.datasets.annotation_files import AnnotationFile, read_annotations
from clipbert.datasets.answers import answer_vocabulary, in_words_of, read_answer_labels
from clipbert.datasets.found_names import found_names, with_names
from clipbert.datasets.selection import of_split, select_annotations
from clipbert.datasets.token_index import StoredVideo
from clipbert.errors import AnnotationError, ConfigError, OutsideVideo
from clipbert.training.dataset import Example, group_by_video
from clipbert.training.processes import Processes
from clipbert.training.recipe import Recipe
from clipbert.training.usable_videos import UnusableVideo, VideoSet, VideoSource

_MOST_VIDEOS_NAMED = 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """Annotations whose videos can be used.

    Attributes:
        file: where they stand.
        annotations: that can be learned from, in the file's order.
        left_out: number of the other lines, by what is wrong with them.
        answers: qa: the vocabulary; otherwise empty.
        examples: the annotations, by video.
        videos: of the examples, by name.
        unusable: videos that are missing or broken.
    """

    file: AnnotationFile
    annotations: Sequence[Annotation]
    left_out: Mapping[str, int]
    answers: Sequence[str]
    examples: Sequence[Example]
    videos: Mapping[str, VideoSource | StoredVideo]
    unusable: Sequence[UnusableVideo]


def read_run_data(
    path: Path,
    recipe: Recipe,
    *,
    name: Callable[[str], str],
    find: Callable[[Sequence[str]], VideoSet],
    processes: Processes,
    answers: Sequence[str],
    split: str | None,
) -> RunData:
    """Read an annotation file and look at its videos.

    What cannot be used is counted, and logged as a warning.

    Args:
        path: the annotation file.
        recipe: what can be learned from, and how texts are grouped.
        name: returns the name under which a video goes; raises VideoError if there is none.
        find: looks at the videos of these names.
        processes: the main one looks at the videos, for all.
        answers: qa: the vocabulary.
        split: take only the lines of this split.

    Raises:
        AnnotationError: as select_annotations; or none of the videos can be used.
    """
    file = read_annotations(path)
    written = {each.video for each in file.annotations}
    file = with_names(file, processes.from_main(lambda: found_names(written, name)))
    if recipe.task == "qa":
        spoken = in_words_of(file.annotations, answers, same=recipe.same_answers)
        file = dataclasses.replace(file, annotations=spoken)
    selection = select_annotations(file, recipe.task, answers=answers, split=split)
    names = [annotation.video for annotation in selection.annotations]
    videos = processes.from_main(lambda: find(names))
    found = [each for each in selection.annotations if each.video in videos.usable]
    usable = [each for each in found if not _is_late(each, videos)]
    left_out = Counter(selection.left_out)
    left_out["of videos that cannot be used"] = len(selection.annotations) - len(found)
    left_out["that hold only after their video's end"] = len(found) - len(usable)
    if processes.is_main:
        _tell(path, +left_out, videos.unusable)
    if not found:
        reason = f"none of its {len(videos.unusable)} videos can be used; the first: "
        raise AnnotationError(path, reason + videos.unusable[0].reason)
    if not usable:
        raise AnnotationError(path, "has only lines that hold after their video's end")
    return RunData(
        file=file,
        annotations=usable,
        left_out=+left_out,
        answers=answers,
        examples=group_by_video(usable, texts_per_video=recipe.texts_per_video),
        videos=videos.usable,
        unusable=videos.unusable,
    )


def choose_answers(
    recipe: Recipe,
    data: Path,
    *,
    labels: Path | None,
    split: str | None,
    known: Sequence[str],
) -> tuple[str, ...]:
    """Choose the vocabulary of a run; empty for other tasks than qa.

    Args:
        recipe: task and size of the vocabulary.
        data: annotation file, whose answers are taken without a file of labels.
        labels: an ans2label file, or None.
        split: of the data.
        known: answers of the model to start from; their order is kept if they are the same.

    Raises:
        AnnotationError: a file cannot be read, or has no answers.
        ConfigError: there are labels, and the task needs none.
    """
    if recipe.task != "qa":
        if labels is not None:
            raise ConfigError(f"task is {recipe.task!r}: it has no use for answers ({labels})")
        return ()
    if labels is not None:
        return read_answer_labels(labels)
    annotations = of_split(read_annotations(data), split)
    answers = answer_vocabulary(
        annotations, max_answers=recipe.max_answers, same=recipe.same_answers
    )
    if not answers:
        raise AnnotationError(data, "has no answers to learn from")
    return tuple(known) if set(known) == set(answers) else answers


def _is_late(annotation: Annotation, videos: VideoSet) -> bool:
    try:
        annotation.span.window_in(videos.usable[annotation.video].duration_seconds)
    except OutsideVideo:
        return True
    return False


def _tell(path: Path, left_out: Mapping[str, int], unusable: Sequence[UnusableVideo]) -> None:
    for reason, count in left_out.items():
        log.warning("%s: %d lines %s are left out", path, count, reason)
    for video in unusable[:_MOST_VIDEOS_NAMED]:
        log.warning("%s cannot be used: %s", video.video, video.reason)
    if len(unusable) > _MOST_VIDEOS_NAMED:
        log.warning("and %d more videos", len(unusable) - _MOST_VIDEOS_NAMED)
