"""What a check of a data set found: counts, and what is wrong with which line and video."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipbert.datasets.annotation_files import AnnotationKind
from clipbert.model.head_names import HeadName


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be read: its number, the wrong field (None: all of it), the reason."""

    line: int | None
    field: str | None
    reason: str


@dataclass(frozen=True)
class BrokenVideo:
    """A video that cannot be used: VideoError's code and sentence, and how many lines name it."""

    name: str
    code: str
    message: str
    num_lines: int


@dataclass(frozen=True)
class AnswerReport:
    """The answers of open-ended questions.

    Attributes:
        num_distinct: different answers; those that differ only in case, spaces or Unicode form are
            one.
        most_common: the first of them by count, each in the form most used, with their counts.
        num_forms: how many there are as they are typed.
        num_unanswered: lines that do not say the answer.
        num_unknown: lines that give an answer which the vocabulary lacks, by answer and line;
            None without a vocabulary.
        unknown: the most common of these, with their counts.
    """

    num_distinct: int
    most_common: tuple[tuple[str, int], ...]
    num_forms: int
    num_unanswered: int
    num_unknown: int | None
    unknown: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class LineReport:
    """The lines that can be read. Lists of lines have the first few, the counts all.

    Attributes:
        num_lines: how many.
        answer_types: lines of each answer type, most frequent first, as in the next two.
        choices: lines of each number of choices.
        splits: lines of each split.
        answers: of open-ended questions; None for other tasks.
        num_doubled: lines that ask or say of a video what a line before them does.
        doubled: numbers of a doubled line and of the line before.
        num_contradicting: doubled lines with another answer than the line before.
        contradicting: numbers of such a line and of the line before.
        num_across_splits: doubled lines whose line before is in another split.
        across_splits: numbers of such a line and of the line before.
        only_answers: splits ("" for lines without one) whose questions all have one answer, and
            that answer.
        untrained_answers: of splits other than `train`, where there is one: answers that no line
            of `train` gives, nor one without a split, with their counts.
        num_long_texts: texts that the model would cut; None without a model.
    """

    num_lines: int
    answer_types: Mapping[str, int]
    choices: Mapping[int, int]
    splits: Mapping[str, int]
    answers: AnswerReport | None
    num_doubled: int
    doubled: tuple[tuple[int, int], ...]
    num_contradicting: int
    contradicting: tuple[tuple[int, int], ...]
    num_across_splits: int
    across_splits: tuple[tuple[int, int], ...]
    only_answers: Mapping[str, str]
    untrained_answers: Mapping[str, Sequence[tuple[str, int]]]
    num_long_texts: int | None


@dataclass(frozen=True)
class MediaReport:
    """The videos that the lines name.

    Attributes:
        folder: where they were looked for.
        num_named: different videos.
        missing: those without a file, and how many lines name each.
        broken: those that cannot be used.
        num_probed: those that were opened; 0 if none were to be.
        num_unused_files: files that no line names.
        num_late: lines about a part of a video that begins after the video's end.
        late: the numbers of the first of these lines.
    """

    folder: Path
    num_named: int
    missing: Mapping[str, int]
    broken: tuple[BrokenVideo, ...]
    num_probed: int
    num_unused_files: int
    num_late: int
    late: tuple[int, ...]


@dataclass(frozen=True)
class DataReport:
    """What check_data found.

    Attributes:
        path: the annotation file.
        kind: its form.
        task: what it is for.
        num_bad_lines: lines that cannot be read.
        bad_lines: the first of these.
        lines: of those that can.
        media: of the videos that they name.
    """

    path: Path
    kind: AnnotationKind
    task: HeadName
    num_bad_lines: int
    bad_lines: tuple[BadLine, ...]
    lines: LineReport
    media: MediaReport

    @property
    def is_sound(self) -> bool:
        """Whether training can use all of it.

        Doubled and contradicting lines, long texts and answers outside the vocabulary do not stop
        it.
        """
        media = self.media
        return not (self.num_bad_lines or media.missing or media.broken or media.num_late)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as a JSON object."""
        report = asdict(self)
        report["path"], report["media"]["folder"] = str(self.path), str(self.media.folder)
        return {"is_sound": self.is_sound, **report}
