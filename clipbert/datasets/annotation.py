"""One annotation: a video and what somebody says about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from clipbert.errors import OutsideVideo


class Span(NamedTuple):
    """The part of a video that an annotation holds for.

    Attributes:
        start_seconds: where it begins; None: with the video.
        end_seconds: where it ends; None: with the video.
    """

    start_seconds: float | None = None
    end_seconds: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the video."""
        return not self.start_seconds and self.end_seconds is None

    def window_in(self, duration_seconds: float) -> tuple[float, float] | None:
        """Return where it begins and ends in a video of this length; None for all of it.

        A picture has no length, and every span is all of it.

        Raises:
            OutsideVideo: it begins after the video's end.
        """
        if self.is_whole or not duration_seconds:
            return None
        start = self.start_seconds or 0.0
        end = duration_seconds if self.end_seconds is None else self.end_seconds
        if start >= duration_seconds:
            raise OutsideVideo(start, duration_seconds)
        return start, min(end, duration_seconds)


WHOLE = Span()


@dataclass(frozen=True, slots=True)
class Annotation:
    """One line of an annotation file: a video and what somebody says about it.

    Attributes:
        line: its number in the file, from 1; names it in errors, and is its id.
        video: what names the media file, as it is written; see video_references.py.
        text: the caption or the question; empty in msrvtt_mc, whose choices are captions.
        answer: open-ended questions: the right answer.
        answer_scores: VQA: how right each answer is, 0 to 1.
        choices: multiple choice: what there is to choose from, at least two.
        right_choice: multiple choice: the index of the right one.
        count: counting questions: the right number.
        answer_type: group that accuracy is also given for, such as "object" or "yes/no".
        split: labels: the part of the data set that it belongs to, such as "train".
        start_seconds: labels: from where in the video it holds; None: from the beginning.
        end_seconds: labels: to where in the video it holds; None: to the end.
    """

    line: int
    video: str
    text: str
    answer: str | None = None
    answer_scores: Mapping[str, float] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    right_choice: int | None = None
    count: int | None = None
    answer_type: str | None = None
    split: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None

    @property
    def span(self) -> Span:
        """The part of the video that it holds for."""
        return Span(self.start_seconds, self.end_seconds)

    @property
    def moment(self) -> str:
        """Name what is to be looked at: the video, or a part of it.

        Annotation(1, "v7", "a dog", start_seconds=2.0).moment  ->  "v7 from 2.0 s"
        """
        start = f" from {self.start_seconds!r} s" if self.start_seconds else ""
        end = "" if self.end_seconds is None else f" to {self.end_seconds!r} s"
        return f"{self.video}{start}{end}"
