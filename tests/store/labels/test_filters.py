from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from store.labels.filters import LabelFilter

FIRST, SECOND = UUID(int=1), UUID(int=2)


def test_a_filter_is_the_same_after_a_turn_through_json():
    wanted = LabelFilter(
        task="qa",
        sources=["b", "a", "b"],
        video_ids=[SECOND, FIRST],
        tags=["t"],
        created_after=datetime(2026, 1, 2, tzinfo=UTC),
        split="val",
        text="dog",
    )

    content = wanted.to_json()

    assert LabelFilter.from_json(content) == wanted
    assert content == {
        "task": "qa",
        "sources": ["a", "b"],
        "video_ids": [str(FIRST), str(SECOND)],
        "tags": ["t"],
        "created_after": "2026-01-02T00:00:00+00:00",
        "split": "holdout",
        "text": "dog",
    }


def test_a_filter_that_asks_for_nothing_is_empty_json():
    assert LabelFilter().to_json() == {}
    assert LabelFilter.from_json({"task": None, "sources": []}) == LabelFilter()


def test_the_same_instant_is_the_same_filter():
    here = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=3)))

    there = datetime(2026, 1, 2, tzinfo=UTC)
    assert LabelFilter(created_after=here) == LabelFilter(created_after=there)
    assert LabelFilter.from_json({"created_after": "2026-01-02"}).created_after == there


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"colour": "red"}, "cannot be chosen by colour"),
        ({"sources": "ann"}, "sources cannot be 'ann'"),
        ({"video_ids": ["x"]}, "video_ids cannot be"),
        ({"created_after": "yesterday"}, "created_after cannot be 'yesterday'"),
        ({"task": "dancing"}, "dancing"),
        ({"split": "trial"}, "is not a split: say train or holdout"),
    ],
)
def test_impossible_filters_are_refused(content, sentence):
    with pytest.raises(ValueError, match=sentence):
        LabelFilter.from_json(content)
