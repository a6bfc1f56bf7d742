"""How several jobs share a forward pass: bounded by cost and by time, each with its own error."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from workers.jobs.retry import is_device_lost, is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


SLICE_SECONDS: Final = 0.25
"""The longest that the model works before the process looks who waits."""

_OUTLIER: Final = 4.0  # a pass that takes so many times the usual is counted as this many times
_NEWEST_SHARE: Final = 0.5


class CostLimit:
    """The cost that one forward pass may have: what memory holds, and what a slice of time takes.

    The first falls when memory runs out, the second follows what passes really take.

    Args:
        limit: highest cost of a batch, in the unit of the items' costs.
        seconds_per_cost: a first guess of what a pass takes; None if time sets no bound. A pass may
            take SLICE_SECONDS.
    """

    def __init__(self, limit: float, *, seconds_per_cost: float | None = None) -> None:
        self.limit = limit
        self._seconds_per_cost = seconds_per_cost

    @property
    def allowed(self) -> float:
        """The cost that the next pass may have; a single item may always pass."""
        if self._seconds_per_cost is None:
            return self.limit
        return min(self.limit, SLICE_SECONDS / self._seconds_per_cost)

    def lower_below(self, cost: float) -> None:
        """Remember that a batch of this cost did not fit."""
        self.limit = min(self.limit, cost / 2)

    def note(self, cost: float, seconds: float) -> None:
        """Remember how long a pass of this cost took."""
        if self._seconds_per_cost is None or cost <= 0:
            return
        usual = self._seconds_per_cost
        # The first pass of a model warms it up, and a machine may stand still for a moment.
        measured = min(max(seconds / cost, usual / _OUTLIER), usual * _OUTLIER)
        self._seconds_per_cost = usual + _NEWEST_SHARE * (measured - usual)


def batches_by_cost(
    items: Iterable[Item], cost: Callable[[Item], float], *, limit: CostLimit
) -> Iterator[list[Item]]:
    """Group consecutive items so that each group's summed cost stays within the limit.

    An item above the limit makes a group of its own. The limit is read anew for each group.

        batches_by_cost([3, 2, 4], float, CostLimit(5))  ->  [3, 2], [4]
    """
    batch: list[Item] = []
    batch_cost = 0.0
    for item in items:
        item_cost = cost(item)
        if batch and batch_cost + item_cost > limit.allowed:
            yield batch
            batch, batch_cost = [], 0.0
        batch.append(item)
        batch_cost += item_cost
    if batch:
        yield batch


def forward_each(
    items: Sequence[Item],
    forward: Callable[[Sequence[Item]], Sequence[Result]],
    *,
    on_out_of_memory: Callable[[Sequence[Item]], None] | None = None,
) -> list[Result | Exception]:
    """Run one forward pass for all items; if it fails, find the items that make it fail.

    The batch is halved until the halves succeed or a single item fails, so that neither a lack of
    memory nor one bad item takes its neighbours down.

    Args:
        items: what to pass; may be empty.
        forward: answers a result for each item, in order; must have no side effects.
        on_out_of_memory: told which items did not fit together.

    Returns:
        For each item its result, or the error it alone raised.

    Raises:
        Exception: the device is lost, so that no further forward pass can succeed.
    """
    if not items:
        return []
    try:
        return list(forward(items))
    except Exception as error:
        if is_device_lost(error):
            raise
        if is_out_of_memory(error) and on_out_of_memory is not None:
            on_out_of_memory(items)
        if len(items) == 1:
            return [error]
    middle = len(items) // 2
    halves = (items[:middle], items[middle:])
    return [
        outcome
        for half in halves
        for outcome in forward_each(half, forward, on_out_of_memory=on_out_of_memory)
    ]
