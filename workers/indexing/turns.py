"""Which of the videos under way is served next, by decode threads and by the model.

    1. by level: a short video that somebody sent alone goes before bulk, as it did in the queue;
    2. within a level, that which was served least.

A long video is of the level of bulk at best, whoever sent it: hours of film would keep all others
waiting. What is counted are clips, since the model is what they wait for, and a turn of a thread
that brought none counts as one. Who comes in stands where those stand who were served least: if it
began at nothing, a stream of short videos would keep the others from ever being served again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from store.jobs.records import BULK_PRIORITY

MOST_SHORT_CLIPS: Final = 32
"""A video with more clips than this is long: two minutes, with a clip for each four seconds."""


@dataclass
class Share:
    """What a video has had of threads and model.

    Attributes:
        priority: of its job; lower is sooner.
        num_served: clips that were decoded for it, and turns of threads that brought none, counted
            from where it came in.
        num_at_work: threads that are busy with it.
    """

    priority: int
    num_served: int = 0
    num_at_work: int = 0

    @classmethod
    def beside(cls, others: Iterable["Share"], *, priority: int) -> "Share":
        """Return the share of a video that comes in beside others."""
        return cls(priority, min((other.num_served for other in others), default=0))

    def level(self, num_clips: int) -> int:
        """Return which videos go before which; lower is sooner."""
        is_short = num_clips <= MOST_SHORT_CLIPS
        return self.priority if is_short else max(self.priority, BULK_PRIORITY)

    def begin_turn(self) -> None:
        """Note that a thread begins to work for it."""
        self.num_at_work += 1

    def end_turn(self, *, num_clips: int) -> None:
        """Note that a thread is done, and how many clips it decoded."""
        self.num_at_work -= 1
        self.num_served += max(1, num_clips)
