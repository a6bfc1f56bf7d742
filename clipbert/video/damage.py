"""Keep account of which frames of a run of decoding are sound.

What a decoder makes of a damaged packet is wrong, and so is what is predicted from it, up to the
next keyframe; and of the frames that come with that keyframe, those that are shown before it.
"""

from dataclasses import dataclass

from av.video.frame import PictureType, VideoFrame

_ALONE = frozenset({PictureType.NONE, PictureType.I, PictureType.SI})
# Frames that a decoder holds back at most.
_MAX_HELD = 64


@dataclass
class Damage:
    """A stretch of packets that do not decode.

    Attributes:
        start: number of the first in the order of decoding.
        start_pts: when that one is shown.
        end: number of the keyframe after it; None if none has come.
        end_pts: when that one is shown.
    """

    start: int
    start_pts: int
    end: int | None = None
    end_pts: int | None = None


class SoundnessLedger:
    """Which frames of one run of decoding can be believed.

    Args:
        has_labels: frames come out with the stamps of their own packets.
    """

    def __init__(self, *, has_labels: bool) -> None:
        self._has_labels = has_labels
        self._num_fed = 0
        self._number_of: dict[int, int] = {}
        self._last_pts = 0
        self.damages: list[Damage] = []

    @property
    def is_open(self) -> bool:
        """Whether what comes now is still damaged."""
        return bool(self.damages) and self.damages[-1].end is None

    def feed(self, pts: int | None, *, is_keyframe: bool) -> None:
        """Note the next packet; pts is when its frame is shown."""
        if pts is None:
            pts = self._last_pts
        self._last_pts = pts
        self._number_of[pts] = self._num_fed
        if len(self._number_of) > 2 * _MAX_HELD:
            for early in sorted(self._number_of)[:_MAX_HELD]:
                del self._number_of[early]
        if is_keyframe and self.is_open and self.damages[-1].start < self._num_fed:
            self.damages[-1].end, self.damages[-1].end_pts = self._num_fed, pts
        self._num_fed += 1

    def fail(self) -> None:
        """Note that the packet fed last did not decode."""
        if not self.is_open:
            self.damages.append(Damage(self._num_fed - 1, self._last_pts))

    def show(self, pts: int, frame: VideoFrame) -> None:
        """Note a frame that came out."""
        number = self._number_of.get(pts)
        if frame.is_corrupt and self._is_within(pts, number) is None:
            start = self._num_fed - 1 if number is None else number
            self.damages.append(Damage(start, pts))
        is_end = bool(self.damages) and number is not None and self.damages[-1].end == number
        if is_end and (frame.pict_type not in _ALONE or frame.is_corrupt):
            # A keyframe that is made from others after all: an intra refresh begins with it.
            self.damages[-1].end = self.damages[-1].end_pts = None

    def damage_at(self, pts: int) -> Damage | None:
        """Find what damaged the frame that is shown at a time, if anything did."""
        return self._is_within(pts, self._number_of.get(pts))

    def _is_within(self, pts: int, number: int | None) -> Damage | None:
        for damage in reversed(self.damages):
            if not self._has_labels or number is None:
                is_before_end = damage.end_pts is None or pts < damage.end_pts
                if is_before_end and pts >= damage.start_pts:
                    return damage
            elif number >= damage.start and (
                damage.end is None
                or number < damage.end
                or (damage.end_pts is not None and pts < damage.end_pts)
            ):
                return damage
        return None
