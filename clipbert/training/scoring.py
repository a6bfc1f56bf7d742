"""Score each annotation of a split by itself, so that two models are compared line by line."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert.assessment_builder import build_assessment
from clipbert.assessments import Assessment, RetrievalReport
from clipbert.clip_sources import ClipSource, MediaClips, TokenClips
from clipbert.errors import AnnotationError
from clipbert.evaluation import Progress, choose_plan, evaluate_clips
from clipbert.inference import Predictor
from clipbert.metrics import RetrievalMetrics
from clipbert.stored_tokens import TokenFolder
from clipbert.training.annotation import Task
from clipbert.training.annotations import AnnotationFile, read_annotations
from clipbert.training.answers import answer_vocabulary, answers_of, in_words_of
from clipbert.training.media_folder import MediaFolder
from clipbert.training.recall_scores import read_vectors, score_by_recall
from clipbert.training.selection import of_split

TRAINING_SPLIT = "train"
_MOST_CLIPS = 16
# Every caption meets every video. With so many pairs of a caption and a clip a CPU of two cores is
# busy for some twenty minutes; with more videos fewer clips of each are looked at.
_MOST_PAIRS, _MOST_RETRIEVAL_CLIPS = 200_000, 8
_METRICS: Mapping[Task, str] = {
    "retrieval": "r1",
    "qa": "accuracy",
    "multiple_choice": "accuracy",
    "count": "accuracy",
}

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Scores:
    """How right every annotation of a split was answered.

    Attributes:
        task: that was asked.
        of_line: 0 to 1 by line, in the order of the lines; retrieval: 1 if the right video comes
            first of all. A line whose video cannot be used has 0.
        unusable: number of lines whose video cannot be used, by the code of what is wrong.
        figures: of the lines whose video can be used: further measures.
        num_clips: K that was looked at, at the most; None where none was.
    """

    task: Task
    of_line: Mapping[int, float]
    unusable: Mapping[str, int]
    figures: Mapping[str, float]
    num_clips: int | None

    def to_json(self) -> dict[str, Any]:
        """Give the form of a file of scores; all measures but ranks are 0 to 1."""
        metric = _METRICS[self.task]
        mean = sum(self.of_line.values()) / len(self.of_line)
        return {
            "task": self.task,
            "metric": metric,
            "metrics": {**self.figures, metric: mean},
            "examples": [{"line": line, "score": score} for line, score in self.of_line.items()],
            "num_examples": len(self.of_line),
            "num_clips": self.num_clips,
            "unusable": sum(self.unusable.values()),
            "unusable_by_code": dict(self.unusable),
        }


def score_model(
    predictor: Predictor,
    data: Path,
    *,
    task: Task,
    split: str | None,
    media: TokenFolder | MediaFolder,
    num_clips: int | None = None,
    tell: Tell = lambda _done, _total: None,
) -> Scores:
    """Put the annotations of a split to a model.

    Args:
        predictor: the model.
        data: annotation file.
        task: what is asked.
        split: of the file; None takes all lines.
        media: the videos, or their stored tokens, of which clips are taken as evaluations do: the
            middle one of each of K groups.
        num_clips: K; None takes up to 16, and for retrieval up to 8, or as many as keep the number
            of pairs within bounds.
        tell: called with how many texts were scored, and of how many.

    Raises:
        AnnotationError: the file cannot be read, or has no line of the split.
        CheckpointError: the model gives numbers that are not finite.
        MissingHead: the model has no head for the task.
        NothingToEvaluate: none of the videos can be used.
    """
    file = read_annotations(data)
    assessment = build_assessment(file, config=predictor.config, task=task, split=split)
    num_clips = num_clips or _count_clips(assessment, task)
    evaluation = evaluate_clips(
        predictor,
        assessment,
        _source(predictor, media, assessment, num_clips),
        progress=lambda done: _tell(done, tell),
    )
    lines = [each.line for each in of_split(file, split)]
    unusable: Counter[str] = Counter()
    for video in evaluation.unusable:
        unusable[video.code] += video.num_annotations
    return Scores(
        task=task,
        of_line={line: evaluation.line_scores.get(line, 0.0) for line in lines},
        unusable=unusable,
        figures=(
            _ranks(evaluation.metrics.text_to_video)
            if isinstance(evaluation.metrics, RetrievalReport)
            else {}
        ),
        num_clips=num_clips,
    )


def score_majority(data: Path, *, split: str | None, training: Path | None = None) -> Scores:
    """Answer every question with the most frequent answer of a training split.

    Args:
        data: annotation file with the questions.
        split: of it; None takes all lines.
        training: annotation file with the training split; None is the same one.

    Raises:
        AnnotationError: a file cannot be read, has no line of its split, or no answers.
    """
    file, learned = read_annotations(data), training or data
    _check_task(file, "qa")
    answers = answer_vocabulary(of_split(read_annotations(learned), TRAINING_SPLIT), max_answers=1)
    if not answers:
        raise AnnotationError(learned, f"has no answers in the split {TRAINING_SPLIT!r}")
    scores = {
        each.line: each.answer_scores.get(answers[0], float(answers[0] in answers_of(each)))
        for each in in_words_of(of_split(file, split), answers)
    }
    return Scores("qa", scores, {}, {}, None)


def score_recall(
    predictor: Predictor,
    data: Path,
    *,
    task: Task,
    split: str | None,
    tokens: TokenFolder,
    tell: Tell = lambda _done, _total: None,
) -> Scores:
    """Answer by the similarity of stored recall vectors alone, as score_by_recall.

    Args:
        predictor: that makes recall vectors of texts as the stored ones were made of clips.
        data: annotation file.
        task: retrieval or multiple_choice.
        split: of the file; None takes all lines.
        tokens: with recall vectors.
        tell: called with how many texts were scored, and of how many.

    Raises:
        AnnotationError: the file cannot be read, or has no line of the split.
        ConfigError: another task.
        MissingHead: the model makes no recall vectors.
        NothingToEvaluate: no video has vectors.
    """
    file = read_annotations(data)
    _check_task(file, task)
    annotations = of_split(file, split)
    vectors, lost = read_vectors(tokens, annotations)
    tell(0, len(annotations))
    found = score_by_recall(predictor, task, annotations, vectors)
    tell(len(annotations), len(annotations))
    return Scores(
        task=task,
        of_line={each.line: found.of_line.get(each.line, 0.0) for each in annotations},
        unusable=Counter(lost[each.moment] for each in annotations if each.moment in lost),
        figures={} if found.ranks is None else _ranks(found.ranks),
        num_clips=None,
    )


def _check_task(file: AnnotationFile, task: Task) -> None:
    if file.task != task:
        raise AnnotationError(file.path, f"is for {file.task}, the scores are for {task}")


def _count_clips(assessment: Assessment, task: Task) -> int:
    if task != "retrieval":
        return _MOST_CLIPS
    moments = {each.moment for each in assessment.annotations}
    num_pairs = len(assessment.annotations) * len(moments)
    return max(1, min(_MOST_RETRIEVAL_CLIPS, _MOST_PAIRS // num_pairs))


def _source(
    predictor: Predictor,
    media: TokenFolder | MediaFolder,
    assessment: Assessment,
    num_clips: int,
) -> ClipSource:
    if isinstance(media, TokenFolder):
        return TokenClips(media, num_clips=num_clips, plan="segments")
    plan = choose_plan(predictor.config, head=assessment.head, num_clips=num_clips)
    return MediaClips(media, plan)


def _tell(progress: Progress, tell: Tell) -> None:
    tell(progress.done_texts, progress.total_texts)


def _ranks(metrics: RetrievalMetrics) -> dict[str, float]:
    return {
        "r5": metrics.recall_at_5 / 100,
        "r10": metrics.recall_at_10 / 100,
        "median_rank": metrics.median_rank,
        "mean_rank": metrics.mean_rank,
    }
