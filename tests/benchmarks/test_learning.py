"""The learning benchmark runs from one end to the other, on a few videos and steps."""

import os
from pathlib import Path

import pytest
import torch

from benchmarks.learning.easy_vqa import question_only_accuracy
from benchmarks.learning.shape_measures import accuracies, retrieval_recalls
from benchmarks.learning.shape_questions import Question
from benchmarks.learning.shape_tables import TRAININGS

REPOSITORY = Path(__file__).parents[2]
MINI = Path(os.environ.get("CLIPBERT_MINI", REPOSITORY / ".cache" / "clipbert-mini"))


def test_there_are_at_most_six_trainings():
    assert len(TRAININGS) <= 6


def test_more_clips_help_where_the_answer_is_in_one_of_them():
    questions = [Question(None, "is there", "is there?", "yes", None)] * 2
    logits = torch.zeros(2, 16, 2)  # (N, clips, A)
    logits[:, :, 1] = 1.0  # "no", a little, in every clip
    logits[0, 3, 0] = 9.0  # "yes", clearly, in one; 16 clips and 4 look at it, 1 does not
    at = {
        num_clips: accuracies(logits, questions, ("yes", "no"), num_clips=num_clips, how="lse")
        for num_clips in (1, 16)
    }
    assert at[1] == {"is there": 0.0, "all": 0.0}
    assert at[16] == {"is there": 0.5, "all": 0.5}


def test_ties_count_against_the_right_video():
    logits = torch.zeros(8, 3, 3, 2)  # (clips, videos, captions, 2)
    assert retrieval_recalls(logits, num_clips=8, how="lse")["R@1"] == 0.0
    logits[:, range(3), range(3), 1] = 1.0
    assert retrieval_recalls(logits, num_clips=2, how="lse") == {
        "R@1": 1.0,
        "R@5": 1.0,
        "R@10": 1.0,
    }


def test_the_question_alone_is_answered_by_its_most_frequent_answer():
    asked = [("a?", "yes", "train")] * 2 + [("a?", "no", "train"), ("a?", "yes", "holdout")]
    asked += [("a?", "no", "holdout"), ("new?", "no", "holdout")]
    labels = [{"question": q, "answer": a, "split": s} for q, a, s in asked]
    assert question_only_accuracy(labels) == pytest.approx(1 / 3)
