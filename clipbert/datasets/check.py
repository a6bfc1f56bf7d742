"""Find what is wrong with a data set before anyone trains on it."""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clipbert.datasets.annotation_files import (
    MOST_ERRORS_KEPT,
    Annotation,
    AnnotationKind,
    scan_annotations,
)
from clipbert.datasets.answers import answers_of, count_unknown_answers
from clipbert.datasets.check_report import (
    AnswerReport,
    BadLine,
    BrokenVideo,
    DataReport,
    LineReport,
    MediaReport,
)
from clipbert.datasets.equal_choices import equal_choices_of
from clipbert.datasets.found_names import as_found
from clipbert.datasets.media_folder import MediaFolder
from clipbert.datasets.same_answers import fold, merge_counts, untrained_answers
from clipbert.errors import AmbiguousMedia, MediaNotFound, VideoError
from clipbert.video.probe_process import probe_in_subprocess
from clipbert.video.probed_video import VideoProbe

if TYPE_CHECKING:
    from clipbert.model.text import TextTokenizer

TRAIN = "train"
MOST_LINES_NAMED = 20
MOST_ANSWERS_NAMED = 10
_LINES_AT_ONCE = 1000

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class TextLimit:
    """How long a text may be before a model cuts it: the model's tokenizer and tokens in all."""

    tokenizer: "TextTokenizer"
    max_tokens: int


def check_data(
    path: Path,
    *,
    videos: Path,
    kind: AnnotationKind | None = None,
    probe: bool = True,
    answers: Sequence[str] | None = None,
    text_limit: TextLimit | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Read an annotation file and look at every video that it names.

    Args:
        path: the annotation file.
        videos: folder of the videos or pictures.
        kind: the file's form; None: told from its first line.
        probe: open each video, in a process with limits, as many side by side as there are cores;
            a quarter of a second each. Otherwise only look whether there is a file.
        answers: vocabulary of open-ended questions.
        text_limit: of a model; None leaves the length of texts out.
        progress: called with the number of videos probed so far and in all.

    Raises:
        AnnotationError: the file cannot be read, or no line of it.
        MediaNotFound: videos is not a folder.
        ClipBertError: a video could not be probed, for no fault of its own.
    """
    scan = scan_annotations(path, kind=kind)
    media = MediaFolder(videos)
    annotations = as_found(scan.file, media.canonical_name).annotations
    doubts = {each.line: equal_choices_of(each, scan.file.kind) for each in annotations}
    bad = [BadLine(error.line, error.field, error.reason) for error in scan.errors]
    in_doubt = [BadLine(line, None, doubt) for line, doubt in doubts.items() if doubt is not None]
    annotations = tuple(each for each in annotations if doubts[each.line] is None)
    return DataReport(
        path=path,
        kind=scan.file.kind,
        task=scan.file.task,
        num_bad_lines=scan.num_errors + len(in_doubt),
        bad_lines=tuple(sorted(bad + in_doubt, key=lambda each: each.line or 0)[:MOST_ERRORS_KEPT]),
        lines=_check_lines(
            annotations,
            answers=_check_answers(annotations, answers) if scan.file.task == "qa" else None,
            num_long_texts=None if text_limit is None else _count_long(annotations, text_limit),
        ),
        media=_check_media(annotations, media, probe=probe, progress=progress),
    )


def _check_lines(
    annotations: Sequence[Annotation], *, answers: AnswerReport | None, num_long_texts: int | None
) -> LineReport:
    pairs = list(_doubled(annotations))
    doubled = [(one.line, before.line) for one, before in pairs]
    contradicting = [(one.line, before.line) for one, before in pairs if _contradict(one, before)]
    across = [(one.line, before.line) for one, before in pairs if one.split != before.split]
    return LineReport(
        num_lines=len(annotations),
        answer_types=_count(annotation.answer_type for annotation in annotations),
        choices=_count(len(annotation.choices) or None for annotation in annotations),
        splits=_count(annotation.split for annotation in annotations),
        answers=answers,
        num_doubled=len(doubled),
        doubled=tuple(doubled[:MOST_LINES_NAMED]),
        num_contradicting=len(contradicting),
        contradicting=tuple(contradicting[:MOST_LINES_NAMED]),
        num_across_splits=len(across),
        across_splits=tuple(across[:MOST_LINES_NAMED]),
        only_answers=_only_answers(annotations),
        untrained_answers=_untrained_answers(annotations),
        num_long_texts=num_long_texts,
    )


def _count(values: Iterable[_Key | None]) -> dict[_Key, int]:
    counts = Counter(value for value in values if value is not None)
    return dict(counts.most_common())


def _doubled(annotations: Iterable[Annotation]) -> Iterator[tuple[Annotation, Annotation]]:
    """Yield each line that asks or says what a line before it does, with the first such line."""
    first: dict[Hashable, Annotation] = {}
    for one in annotations:
        choices = tuple(sorted(map(fold, one.choices)))
        said = (one.video, fold(one.text), choices, one.start_seconds, one.end_seconds)
        before = first.setdefault(said, one)
        if before is not one:
            yield one, before


def _contradict(one: Annotation, other: Annotation) -> bool:
    return _meant(one) != _meant(other)


def _meant(annotation: Annotation) -> frozenset[str] | int | None:
    """Reduce what a line says is right to what can be compared; of captions that is nothing."""
    if annotation.right_choice is not None:
        return frozenset({fold(annotation.choices[annotation.right_choice])})
    if annotation.count is not None:
        return annotation.count
    return frozenset(map(fold, answers_of(annotation)))


def _only_answers(annotations: Sequence[Annotation]) -> dict[str, str]:
    """Find the splits in which every question has one and the same answer."""
    answers: dict[str, Counter[str]] = {}
    for annotation in annotations:
        answers.setdefault(annotation.split or "", Counter()).update(answers_of(annotation))
    merged = {split: merge_counts(counts.items()) for split, counts in answers.items()}
    return {
        split: counts[0][0]
        for split, counts in merged.items()
        if len(counts) == 1 and counts[0][1] > 1
    }


def _untrained_answers(annotations: Sequence[Annotation]) -> dict[str, list[tuple[str, int]]]:
    """Find by split the answers that cannot be learned; of lines without a split who knows."""
    counts: dict[str, Counter[str]] = {}
    for annotation in annotations:
        counts.setdefault(annotation.split or "", Counter()).update(answers_of(annotation))
    if not counts.get(TRAIN):
        return {}
    trained = [*counts.pop(TRAIN), *counts.pop("", ())]
    missed = {
        split: untrained_answers(of_split.items(), trained) for split, of_split in counts.items()
    }
    return {split: answers for split, answers in missed.items() if answers}


def _check_answers(
    annotations: Sequence[Annotation], vocabulary: Sequence[str] | None
) -> AnswerReport:
    typed = Counter(answer for annotation in annotations for answer in answers_of(annotation))
    counts = merge_counts(typed.items())
    unknown: Counter[str] = Counter()
    if vocabulary is not None:
        unknown = count_unknown_answers(annotations, vocabulary)
    return AnswerReport(
        num_distinct=len(counts),
        most_common=tuple(counts[:MOST_ANSWERS_NAMED]),
        num_forms=len(typed),
        num_unanswered=sum(not any(answers_of(annotation)) for annotation in annotations),
        num_unknown=None if vocabulary is None else unknown.total(),
        unknown=tuple(unknown.most_common(MOST_ANSWERS_NAMED)),
    )


def _count_long(annotations: Sequence[Annotation], limit: TextLimit) -> int:
    num_long = 0
    for first in range(0, len(annotations), _LINES_AT_ONCE):
        texts = [
            f"{annotation.text} {choice}".strip()  # as the model reads a question and a choice
            for annotation in annotations[first : first + _LINES_AT_ONCE]
            for choice in annotation.choices or ("",)
        ]
        _, mask = limit.tokenizer.encode(texts, max_length=limit.max_tokens + 1)  # (N, L)
        num_long += int((mask.sum(dim=1) > limit.max_tokens).sum())
    return num_long


def _check_media(
    annotations: Sequence[Annotation],
    media: MediaFolder,
    *,
    probe: bool,
    progress: Callable[[int, int], None] | None,
) -> MediaReport:
    num_lines = Counter(annotation.video for annotation in annotations)
    found: dict[str, Path] = {}
    used: set[Path] = set()
    missing: dict[str, int] = {}
    errors: dict[str, VideoError] = {}
    for name in num_lines:
        try:
            found[name] = media.find(name)
            used.add(found[name])
        except MediaNotFound:
            missing[name] = num_lines[name]
        except AmbiguousMedia as error:
            errors[name] = error
            used.update(error.paths)
    durations: dict[str, float] = {}
    for name, outcome in _probe_all(found, progress) if probe else ():
        if isinstance(outcome, VideoProbe):
            durations[name] = outcome.duration_seconds
        else:
            errors[name] = outcome
    late = [one.line for one in annotations if _is_late(one, durations.get(one.video))]
    return MediaReport(
        folder=media.folder,
        num_named=len(num_lines),
        missing=missing,
        broken=tuple(
            BrokenVideo(name, error.code, str(error), num_lines[name])
            for name, error in sorted(errors.items())
        ),
        num_probed=len(found) if probe else 0,
        num_unused_files=len(media) - len(used),
        num_late=len(late),
        late=tuple(late[:MOST_LINES_NAMED]),
    )


def _probe_all(
    paths: Mapping[str, Path], progress: Callable[[int, int], None] | None
) -> Iterator[tuple[str, VideoProbe | VideoError]]:
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        names = {pool.submit(_probe, path): name for name, path in paths.items()}
        for done, future in enumerate(as_completed(names), start=1):
            if progress is not None:
                progress(done, len(names))
            yield names[future], future.result()
    finally:  # after Ctrl-C too: those that wait are not begun
        pool.shutdown(cancel_futures=True)


def _probe(path: Path) -> VideoProbe | VideoError:
    try:
        return probe_in_subprocess(path)
    except VideoError as error:
        return error


def _is_late(annotation: Annotation, duration_seconds: float | None) -> bool:
    if not annotation.start_seconds or duration_seconds is None:
        return False
    return annotation.start_seconds >= duration_seconds
