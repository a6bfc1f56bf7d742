"""What recall vectors alone say: the baseline of a model that was trained for the task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbert.datasets.annotation import Annotation
from clipbert.datasets.token_folder import TokenFolder
from clipbert.errors import ConfigError, NothingToEvaluate, VideoError
from clipbert.evaluation.metrics import RetrievalMetrics, text_to_video, text_to_video_ranks
from clipbert.inference.clipbert import ClipBert
from clipbert.model.head_names import HeadName


@dataclass(frozen=True)
class RecallScores:
    """How right each annotation was answered.

    Attributes:
        of_line: 0 or 1 by line, of moments that have vectors.
        ranks: retrieval: of all of them.
    """

    of_line: Mapping[int, float]
    ranks: RetrievalMetrics | None = None


def read_vectors(
    tokens: TokenFolder, annotations: Sequence[Annotation]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the recall vectors of all moments, (K, R) of each, and what is wrong with the others.

    Raises:
        NothingToEvaluate: none has any.
    """
    vectors: dict[str, Tensor] = {}
    errors: dict[str, VideoError] = {}
    for moment, each in {each.moment: each for each in annotations}.items():
        try:
            rows = tokens.find(each.video).clips_in(each.span)
            vectors[moment] = tokens.read_vectors(each.video, rows)
        except VideoError as error:
            errors[moment] = error
    if not vectors:
        raise NothingToEvaluate(len(errors), str(next(iter(errors.values()))))
    return vectors, {moment: error.code for moment, error in errors.items()}


def score_by_recall(
    model: ClipBert,
    task: HeadName,
    *,
    annotations: Sequence[Annotation],
    vectors: Mapping[str, Tensor],
) -> RecallScores:
    """Answer by similarity.

    Retrieval ranks moments by their best clip. Multiple choice takes the choice that is most
    similar to any clip, and does not read the question.

    Args:
        model: makes the vectors of texts.
        task: retrieval or multiple_choice.
        annotations: of any moments.
        vectors: (K, R) of each moment that has any.

    Raises:
        ConfigError: another task.
        MissingHead: the model makes no recall vectors.
    """
    known = [each for each in annotations if each.moment in vectors]
    if task == "retrieval":
        return _rank(model, known, vectors)
    if task == "multiple_choice":
        return _choose(model, known, vectors)
    raise ConfigError(f"task is {task!r}: recall vectors answer retrieval and multiple_choice")


def _rank(
    model: ClipBert, annotations: Sequence[Annotation], vectors: Mapping[str, Tensor]
) -> RecallScores:
    moments = sorted(vectors)
    texts = _encode(model, [each.text for each in annotations])
    queries = torch.stack([texts[each.text] for each in annotations])  # (N, R)
    scores = torch.stack(
        [(queries @ vectors[moment].T).max(dim=1).values for moment in moments], dim=1
    ).numpy()  # (N, moments)
    column = {moment: index for index, moment in enumerate(moments)}
    right = [column[each.moment] for each in annotations]
    ranks = text_to_video_ranks(scores, right)
    return RecallScores(
        {each.line: float(rank == 1) for each, rank in zip(annotations, ranks, strict=True)},
        text_to_video(scores, right),
    )


def _choose(
    model: ClipBert, annotations: Sequence[Annotation], vectors: Mapping[str, Tensor]
) -> RecallScores:
    texts = _encode(model, [choice for each in annotations for choice in each.choices])
    scores = {}
    for each in annotations:
        choices = torch.stack([texts[choice] for choice in each.choices])  # (A, R)
        best = (vectors[each.moment] @ choices.T).max(dim=0).values  # (A,)
        scores[each.line] = float(int(best.argmax()) == each.right_choice)
    return RecallScores(scores)


def _encode(model: ClipBert, texts: Sequence[str]) -> dict[str, Tensor]:
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, model.encode_texts(distinct), strict=True))
