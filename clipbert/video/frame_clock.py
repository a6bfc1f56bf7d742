"""When each frame is shown, reckoned as frames come out of the decoder."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from statistics import median_low

from clipbert.video.packets import Stamping

# Packets read to learn a stream's pace and its first frame: more than any codec reorders.
NUM_FIRST_PACKETS = 64
# Empty chunks among so many first ones, of so many frames at most, are an encoder's start.
_START_FRAMES = 8
_MAX_HELD_BACK = 4


class FrameClock:
    """Tells when each frame is shown, as they come out of the decoder in order.

    Args:
        stamping: what the stream tells.
        first_stamps: of its first NUM_FIRST_PACKETS packets, ascending.
    """

    def __init__(self, stamping: Stamping, first_stamps: Sequence[int]) -> None:
        self._stamping, self._stamps = stamping, first_stamps
        self._first_pts = first_stamps[0] if first_stamps else 0
        self._gap = median_low([b - a for a, b in pairwise(first_stamps)] or [1])
        self.restart()

    def restart(self) -> None:
        """Begin again, with any frame. REORDERED can only begin with the first."""
        self._latency = 0
        self._last_pts: int | None = None

    def pts_of(self, stamp: int | None, duration: int = 0) -> int | None:
        """Return the time of the next frame.

        Args:
            stamp: stamp_of the frame; None if it has none.
            duration: of the frame; 0 if it is not known. AVI calls every frame a tick long.

        Returns:
            None if the frame has no time, nor has any before it.
        """
        if self._stamping is Stamping.REORDERED:
            self._last_pts = self._in_order(stamp)
        elif stamp is not None:
            self._last_pts = stamp
        elif self._last_pts is not None:
            step = self._gap if self._stamping is Stamping.DECODED else duration
            self._last_pts += step or self._gap
        return self._last_pts

    def _in_order(self, stamp: int | None) -> int:
        """Reckon from the chunk that brought the frame out: the next to be shown, a latency later.

        The last frames come out without one, at the end.
        """
        if self._last_pts is None:
            self._latency = 0 if stamp is None else self._latency_at(stamp)
            return self._first_pts
        if stamp is None:
            return self._last_pts + self._gap
        return max(stamp - self._latency, self._last_pts + 1)

    def _latency_at(self, stamp: int) -> int:
        """Return how long after its time the decoder gives a frame, if this brought out the first.

        Encoders that hold frames back (libxvid) may leave chunks empty at the start. No pause is
        meant: their later frames come out so much later.
        """
        start = bisect_left(self._stamps, stamp)
        delays = [
            later - stamp - place * self._gap
            for place, later in enumerate(self._stamps[start : start + _START_FRAMES])
        ]
        held_back = max(delays, default=0)
        if held_back > _MAX_HELD_BACK * self._gap:
            held_back = 0
        return stamp - self._first_pts + held_back
