import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.jobs.batching import CostLimit, batches_by_cost, forward_each


@given(costs=st.lists(st.integers(1, 20)), limit=st.integers(1, 40))
def test_batches_keep_all_items_in_order_and_the_limit(costs, limit):
    batches = list(batches_by_cost(costs, float, limit=CostLimit(limit)))

    assert [cost for batch in batches for cost in batch] == costs
    assert all(sum(batch) <= limit or len(batch) == 1 for batch in batches)


def test_a_lowered_limit_holds_from_the_next_batch_on():
    limit = CostLimit(4)
    batches = batches_by_cost([1] * 8, float, limit=limit)

    first = next(batches)
    limit.lower_below(4)

    assert [first, *batches] == [[1] * 4, [1] * 2, [1] * 2]


def test_batches_are_handed_on_before_the_items_run_out():
    taken = []
    items = (taken.append(item) or item for item in range(1000))

    next(batches_by_cost(items, lambda _: 1, limit=CostLimit(3)))

    assert len(taken) == 4


@given(items=st.lists(st.booleans(), max_size=20))
def test_only_the_bad_items_of_a_batch_fail(items):
    def forward(batch):
        if not all(batch):
            raise ValueError("bad item")
        return ["good"] * len(batch)

    outcomes = forward_each(items, forward)

    assert [outcome == "good" for outcome in outcomes] == items
    assert all(
        isinstance(o, ValueError) for o, good in zip(outcomes, items, strict=True) if not good
    )


def test_one_pass_serves_all_when_nothing_fails():
    passes = []

    forward_each([1, 2, 3], lambda batch: passes.append(batch) or batch)

    assert passes == [[1, 2, 3]]


def test_a_batch_out_of_memory_is_halved_until_it_fits():
    passes, told = [], []

    def forward(batch):
        passes.append(len(batch))
        if len(batch) > 2:
            raise RuntimeError("out of memory")
        return batch

    outcomes = forward_each(list(range(8)), forward, on_out_of_memory=lambda b: told.append(len(b)))

    assert outcomes == list(range(8))
    assert passes == [8, 4, 2, 2, 4, 2, 2]
    assert told == [8, 4, 4]


def test_a_lost_device_is_not_tried_again():
    def forward(_batch):
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="CUDA error"):
        forward_each([1, 2], forward)


def test_a_slice_grows_and_shrinks_to_what_a_quarter_of_a_second_takes():
    limit = CostLimit(1000, seconds_per_cost=0.01)
    before = limit.allowed

    for _ in range(20):
        limit.note(limit.allowed, limit.allowed * 0.001)
    fast = limit.allowed
    for _ in range(20):
        limit.note(limit.allowed, limit.allowed * 0.05)
    slow = limit.allowed

    assert before == pytest.approx(25)
    assert fast == pytest.approx(250, rel=0.01)
    assert slow == pytest.approx(5, rel=0.01)


def test_one_pass_that_stood_still_does_not_shrink_slices_to_nothing():
    limit = CostLimit(1000, seconds_per_cost=0.01)

    limit.note(25, 60.0)

    assert limit.allowed >= 25 / 4


def test_memory_bounds_a_slice_whatever_time_allows():
    limit = CostLimit(8, seconds_per_cost=0.0001)

    assert limit.allowed == 8
    assert [len(batch) for batch in batches_by_cost([1] * 20, float, limit=limit)] == [8, 8, 4]
