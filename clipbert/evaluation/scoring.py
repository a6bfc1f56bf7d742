"""Score each annotation of a split by itself, so that two models are compared line by line."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from clipbert.datasets.annotation_files import read_annotations
from clipbert.datasets.found_names import as_found
from clipbert.datasets.media_folder import MediaFolder
from clipbert.datasets.selection import of_split
from clipbert.datasets.token_folder import TokenFolder
from clipbert.evaluation.clips import ClipSource, MediaClips, TokenClips
from clipbert.evaluation.evaluate import EvaluationProgress, choose_plan, evaluate_clips
from clipbert.evaluation.evaluator_builder import build_evaluator
from clipbert.evaluation.evaluators import Evaluator, RetrievalReport
from clipbert.evaluation.line_scores import Scores, check_task
from clipbert.evaluation.metrics import RetrievalMetrics
from clipbert.evaluation.recall_scores import read_vectors, score_by_recall
from clipbert.inference.clipbert import ClipBert
from clipbert.model.head_names import HeadName

_MOST_CLIPS = 16
# Every caption meets every video. With so many pairs of a caption and a clip a CPU of two cores is
# busy for some twenty minutes; with more videos fewer clips of each are looked at.
_MOST_PAIRS, _MOST_RETRIEVAL_CLIPS = 200_000, 8

Tell = Callable[[int, int], None]


def score_model(
    model: ClipBert,
    data: Path,
    *,
    task: HeadName,
    split: str | None,
    media: TokenFolder | MediaFolder,
    num_clips: int | None = None,
    tell: Tell = lambda _done, _total: None,
) -> Scores:
    """Put the annotations of a split to a model.

    Args:
        model: that is asked.
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
    file = as_found(read_annotations(data), media.canonical_name)
    evaluator = build_evaluator(file, config=model.config, task=task, split=split)
    num_clips = num_clips or _count_clips(evaluator, task)
    evaluation = evaluate_clips(
        model,
        evaluator,
        source=_source(model, media, evaluator, num_clips),
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


def score_recall(
    model: ClipBert,
    data: Path,
    *,
    task: HeadName,
    split: str | None,
    tokens: TokenFolder,
    tell: Tell = lambda _done, _total: None,
) -> Scores:
    """Answer by the similarity of stored recall vectors alone, as score_by_recall.

    Args:
        model: that makes recall vectors of texts as the stored ones were made of clips.
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
    file = as_found(read_annotations(data), tokens.canonical_name)
    check_task(file, task)
    annotations = of_split(file, split)
    vectors, lost = read_vectors(tokens, annotations)
    tell(0, len(annotations))
    found = score_by_recall(model, task, annotations=annotations, vectors=vectors)
    tell(len(annotations), len(annotations))
    return Scores(
        task=task,
        of_line={each.line: found.of_line.get(each.line, 0.0) for each in annotations},
        unusable=Counter(lost[each.moment] for each in annotations if each.moment in lost),
        figures={} if found.ranks is None else _ranks(found.ranks),
        num_clips=None,
    )


def _count_clips(evaluator: Evaluator, task: HeadName) -> int:
    if task != "retrieval":
        return _MOST_CLIPS
    moments = {each.moment for each in evaluator.annotations}
    num_pairs = len(evaluator.annotations) * len(moments)
    return max(1, min(_MOST_RETRIEVAL_CLIPS, _MOST_PAIRS // num_pairs))


def _source(
    model: ClipBert,
    media: TokenFolder | MediaFolder,
    evaluator: Evaluator,
    num_clips: int,
) -> ClipSource:
    if isinstance(media, TokenFolder):
        return TokenClips(media, num_clips=num_clips, plan="segments")
    plan = choose_plan(model.config, head=evaluator.head, num_clips=num_clips)
    return MediaClips(media, plan)


def _tell(progress: EvaluationProgress, tell: Tell) -> None:
    tell(progress.done_texts, progress.total_texts)


def _ranks(metrics: RetrievalMetrics) -> dict[str, float]:
    return {
        "r5": metrics.recall_at_5 / 100,
        "r10": metrics.recall_at_10 / 100,
        "median_rank": metrics.median_rank,
        "mean_rank": metrics.mean_rank,
    }
