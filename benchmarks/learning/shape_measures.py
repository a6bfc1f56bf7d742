"""What a trained model answers about the held-out moving shapes, for any number of test clips.

Clips are scored each by itself, so one pass over all of them serves every number of clips and
every aggregation.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.learning.moving_shapes import Script
from benchmarks.learning.shape_corpus import video_name
from benchmarks.learning.shape_questions import Question
from benchmarks.learning.shape_tokens import NUM_CLIPS
from clipbert.checkpoints.folder import load_folder
from clipbert.datasets.token_folder import TokenFolder, choose_clips
from clipbert.engines.devices import default_dtype
from clipbert.inference.pair_scores import PairScorer, TextAndClips
from clipbert.model.aggregation import aggregate
from clipbert.model.config import Aggregation

_RETRIEVAL_CLIPS = 8
_BATCH = 256


def question_logits(
    model_folder: Path, tokens: TokenFolder, questions: Sequence[Question]
) -> Tensor:
    """Score each question with each clip of its video: (N, NUM_CLIPS, A)."""
    scorer = _scorer(model_folder)
    rows = list(range(NUM_CLIPS))
    held = {
        name: tokens.read(name, rows)
        for name in {video_name(question.script) for question in questions}
    }
    scored: list[Tensor] = []
    for start in range(0, len(questions), _BATCH):
        some = questions[start : start + _BATCH]
        pairs = [TextAndClips(held[video_name(each.script)], each.text) for each in some]
        scored += scorer.score_rows("qa", pairs)
        _show("scoring questions", len(scored), len(questions))
    return torch.stack(scored)


def accuracies(
    logits: Tensor,
    questions: Sequence[Question],
    answers: Sequence[str],
    *,
    num_clips: int,
    how: Aggregation,
) -> dict[str, float]:
    """Say how many questions are answered rightly, in all and by kind, from so many clips.

    Args:
        logits: of question_logits.
        questions: N.
        answers: A, of the model.
        num_clips: K test clips, spread evenly.
        how: the aggregation.
    """
    clips = choose_clips(range(NUM_CLIPS), num_clips, plan="segments", generator=None)
    video = aggregate(logits[:, clips].transpose(0, 1), how)  # (N, A)
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for question, label in zip(questions, video.argmax(dim=1).tolist(), strict=True):
        is_right = answers[label] == question.answer
        right[question.kind].append(is_right)
        right["all"].append(is_right)
    return {kind: sum(each) / len(each) for kind, each in right.items()}


def caption_logits(model_folder: Path, tokens: TokenFolder, scripts: Sequence[Script]) -> Tensor:
    """Score every caption with every video, clip by clip: (clips, videos, captions, 2)."""
    scorer = _scorer(model_folder)
    clips = choose_clips(range(NUM_CLIPS), _RETRIEVAL_CLIPS, plan="segments", generator=None)
    captions = [script.caption for script in scripts]
    videos = []
    for done, script in enumerate(scripts, start=1):
        seen = tokens.read(video_name(script), clips)
        videos.append(scorer.score_video("retrieval", seen, captions))  # (clips, captions, 2)
        _show("scoring videos", done, len(scripts))
    return torch.stack(videos, dim=1)


def retrieval_recalls(logits: Tensor, *, num_clips: int, how: Aggregation) -> dict[str, float]:
    """Give R@1, R@5 and R@10 from caption to video, from so many of the clips of caption_logits."""
    clips = choose_clips(range(len(logits)), num_clips, plan="segments", generator=None)
    video = aggregate(logits[clips], how)  # (videos, captions, 2)
    scores = (video[..., 1] - video[..., 0]).T  # (captions, videos): as P(match), but never equal
    right = scores.diagonal()[:, None]
    # Ties count against the right video.
    ranks = (scores >= right).sum(dim=1)
    return {f"R@{k}": float((ranks <= k).float().mean()) for k in (1, 5, 10)}


def _scorer(folder: Path) -> PairScorer:
    loaded = load_folder(folder, dtype=default_dtype("cpu"))  # as the service does
    if loaded.tokenizer is None:
        raise SystemExit("the model has no tokenizer")
    return PairScorer(loaded.network, loaded.tokenizer)


def _show(what: str, done: int, total: int) -> None:
    print(f"\r{what}: {done} of {total}   ", end="\n" if done == total else "", flush=True)
