"""Metrics against counting by hand, and against the authors' own figures."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipbert.evaluation.metrics import (
    count_metrics,
    mean_score,
    text_to_video,
    video_to_text,
)

METRICS = Path(__file__).parents[2] / "parity" / "metrics.json"


FEW_SCORES = st.integers(0, 3).map(float)
NEARLY_EQUAL_SCORES = st.sampled_from([0.1, 0.10004, 0.10006, 0.99996, 1.0])


@st.composite
def rankings(draw, elements=FEW_SCORES):
    """Scores (texts, videos) with many ties, and the video of each text."""
    num_texts, num_videos = draw(st.integers(1, 14)), draw(st.integers(1, 13))
    scores = draw(arrays(np.float32, (num_texts, num_videos), elements=elements))
    return scores, draw(arrays(np.int64, num_texts, elements=st.integers(0, num_videos - 1)))


def place_in_sorted_list(scores, right):
    """Rank by sorting a list of (score, place): the best place of a right item, from 1."""
    order = sorted(range(len(scores)), key=lambda item: (-float(scores[item]), item))
    return min(order.index(item) for item in right) + 1


def expected(ranks):
    ordered, middle = sorted(ranks), len(ranks) // 2
    median = ordered[middle] if len(ranks) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    recalls = [100 * sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10)]
    return pytest.approx([*recalls, median, sum(ranks) / len(ranks), len(ranks)])


def figures(metrics):
    return [
        metrics.recall_at_1,
        metrics.recall_at_5,
        metrics.recall_at_10,
        metrics.median_rank,
        metrics.mean_rank,
        metrics.num_queries,
    ]


@given(rankings())
def test_text_to_video_counts_the_places_in_a_sorted_list(ranking):
    scores, videos = ranking

    metrics = text_to_video(scores, videos)

    ranks = [place_in_sorted_list(scores[t], [v]) for t, v in enumerate(videos)]
    assert figures(metrics) == expected(ranks)


@given(rankings())
def test_video_to_text_takes_the_best_placed_text_of_each_video(ranking):
    scores, videos = ranking

    metrics = video_to_text(scores, videos)

    ranks = [
        place_in_sorted_list(scores[:, v], np.flatnonzero(videos == v)) for v in sorted({*videos})
    ]
    assert figures(metrics) == expected(ranks)


@given(rankings(elements=NEARLY_EQUAL_SCORES))
def test_authors_rounding_ranks_rounded_scores_and_takes_the_last_text_of_a_video(ranking):
    scores, videos = ranking
    rounded = np.array([[round(float(score), 4) for score in row] for row in scores])

    metrics = [
        text_to_video(scores, videos, authors_rounding=True),
        video_to_text(scores, videos, authors_rounding=True),
    ]

    of_texts = [place_in_sorted_list(rounded[t], [v]) for t, v in enumerate(videos)]
    of_videos = [
        place_in_sorted_list(rounded[:, v], np.flatnonzero(videos == v)[-1:])
        for v in sorted({*videos})
    ]
    assert [figures(each) for each in metrics] == [expected(of_texts), expected(of_videos)]


@pytest.mark.parametrize("authors_rounding", [False, True])
def test_retrieval_metrics_are_the_authors_figures(authors_rounding):
    reference = json.loads(METRICS.read_text())
    scores = np.array(reference["scores"])
    right = np.arange(len(scores))

    ours = {
        "text2video": text_to_video(scores, right, authors_rounding=authors_rounding),
        "video2text": video_to_text(scores, right, authors_rounding=authors_rounding),
    }

    assert len(scores) == 50
    for direction, theirs in reference["metrics"].items():
        assert figures(ours[direction])[:5] == pytest.approx(
            [theirs[name] for name in ("r1", "r5", "r10", "medianR", "meanR")]
        )


def test_scores_that_differ_in_the_fifth_decimal_tie_only_with_authors_rounding():
    scores = np.array([[0.50001, 0.50002]])

    assert text_to_video(scores, [1]).recall_at_1 == 100
    assert text_to_video(scores, [1], authors_rounding=True).recall_at_1 == 0


@pytest.mark.parametrize(
    ("scores", "videos"),
    [
        (np.zeros((2, 2)), [0]),
        (np.zeros((2, 2)), [0, 2]),
        (np.zeros((2, 2)), [0, -1]),
        (np.zeros((0, 2)), []),
        (np.zeros(2), [0, 1]),
        (np.array([[0.0, math.nan]]), [0]),
    ],
)
def test_retrieval_metrics_refuse_what_cannot_be_ranked(scores, videos):
    with pytest.raises(ValueError, match=r"scores|column|finite"):
        text_to_video(scores, videos)
    with pytest.raises(ValueError, match=r"scores|column|finite"):
        video_to_text(scores, videos)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from(["what", "who", None])),
        min_size=1,
    )
)
def test_mean_score_is_the_mean_over_all_and_over_each_type(answers):
    metrics = mean_score([score for score, _ in answers], [kind for _, kind in answers])

    by_type = {
        kind: [score for score, other in answers if other == kind]
        for kind in sorted({kind for _, kind in answers if kind})
    }
    assert metrics.overall == pytest.approx(100 * np.mean([score for score, _ in answers]))
    assert metrics.num_questions == len(answers)
    assert metrics.num_by_type == {kind: len(part) for kind, part in by_type.items()}
    assert metrics.by_type == {
        kind: pytest.approx(100 * np.mean(part)) for kind, part in by_type.items()
    }


def test_mean_score_needs_a_question():
    with pytest.raises(ValueError, match="at least one"):
        mean_score([], [])


def test_counts_are_rounded_and_held_to_one_to_ten():
    # Told as 1, 1, 3, 10, 2; right are the first, the third and the fourth.
    metrics = count_metrics([-2.0, 0.4, 2.5, 14.0, 2.4], [1, 3, 3, 10, 4])

    assert metrics.accuracy == pytest.approx(60)
    assert metrics.mean_squared_error == pytest.approx((0 + 4 + 0 + 0 + 4) / 5)
    raw = (3**2 + 2.6**2 + 0.5**2 + 4**2 + 1.6**2) / 5
    assert metrics.raw_mean_squared_error == pytest.approx(raw)
    assert metrics.num_questions == 5


@given(st.lists(st.floats(-50, 50), min_size=1))
def test_counts_are_told_as_the_authors_code_tells_them(outputs):
    told = [min(max(int(output + 0.5), 1), 10) for output in outputs]

    metrics = count_metrics(outputs, told)

    assert metrics.accuracy == 100
    assert metrics.mean_squared_error == 0


def test_count_metrics_need_as_many_numbers_as_predictions():
    with pytest.raises(ValueError, match="2 predictions for 1 numbers"):
        count_metrics([1.0, 2.0], [1])
