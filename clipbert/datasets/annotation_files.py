"""Annotation files: JSONL of the paper's data sets and of the project's own labels.

One JSON object a line; fields that are not named here are ignored.

    kind          fields                                          task
    retrieval     caption (text or sentences), clip_name          retrieval
    msrvtt_mc     clip_name, options, answer (index)              multiple_choice
    tgif_choice   gif_name, question, options, answer (index)     multiple_choice
    tgif_frameqa  gif_name, question, answer, answer_type         qa
    tgif_count    gif_name, question, answer (number)             count
    msrvtt_qa     video_id, question, answer, [answer_type]       qa
    vqa           image_id, question, [labels], [answer_type]     qa
    captions      caption, coco_id | vg_id                        pretraining
    labels        video, caption                                  retrieval
                  video, question, answer                         qa
                  video, question, choices, answer (either form)  multiple_choice
                  and of each: [split], [start_seconds], [end_seconds], [source]

Files as the data sets ship them (arrays, documents, tables) are read as the lines that they mean:
clipbert.datasets.shipped lists them. `retrieval` is the form of MSRVTT, DiDeMo and ActivityNet,
`tgif_choice` that of TGIF-QA's action and transition, `labels` the project's own: one task a file,
an answer as text or as index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbert.datasets.annotation import Annotation
from clipbert.datasets.kinds import KINDS, AnnotationKind, read_line, recognise_kind
from clipbert.datasets.line_fields import LineFields, read_lines
from clipbert.errors import AnnotationError
from clipbert.model.head_names import HeadName

__all__ = [
    "KINDS",
    "Annotation",
    "AnnotationFile",
    "AnnotationKind",
    "AnnotationScan",
    "read_annotations",
    "scan_annotations",
]

MOST_ERRORS_KEPT = 20
_MOST_ERRORS_LISTED = 5


@dataclass(frozen=True)
class AnnotationFile:
    """What an annotation file says.

    Attributes:
        path: the file.
        kind: its form.
        task: what it can train and evaluate.
        annotations: its lines in their order, at least one.
    """

    path: Path
    kind: AnnotationKind
    task: HeadName
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class AnnotationScan:
    """A file that may have lines that cannot be read.

    Attributes:
        file: the lines that can.
        errors: what is wrong with the first MOST_ERRORS_KEPT that cannot.
        num_errors: how many cannot.
    """

    file: AnnotationFile
    errors: tuple[AnnotationError, ...]
    num_errors: int


def read_annotations(path: Path, *, kind: AnnotationKind | None = None) -> AnnotationFile:
    """Read an annotation file of which every line must be right.

    Args:
        path: JSONL in UTF-8; a byte order mark and blank lines are allowed.
        kind: its form; None: told from the fields of its first line.

    Raises:
        AnnotationError: the file cannot be read, its kind cannot be told, or lines are wrong; the
            error has the first one's line and field, and its message the first few and the count.
        ValueError: there is no such kind.

    Source: the files of the paper's code, which reads the same fields; it checks none of them.
    """
    scan = scan_annotations(path, kind=kind)
    if scan.errors:
        raise _summary(path, scan.file.kind, scan.errors, scan.num_errors)
    return scan.file


def scan_annotations(path: Path, *, kind: AnnotationKind | None = None) -> AnnotationScan:
    """Read what can be read of an annotation file, and tell what is wrong with the rest.

    Args:
        path: JSONL in UTF-8; a byte order mark and blank lines are allowed.
        kind: its form; None: told from the fields of its first line.

    Raises:
        AnnotationError: the file cannot be read, its kind cannot be told, or no line is right.
        ValueError: there is no such kind.
    """
    kind = _recognise(path) if kind is None else kind
    if kind not in KINDS:
        raise ValueError(f"no kind of annotation is named {kind!r}; there are {', '.join(KINDS)}")
    task: HeadName | None = None
    annotations: list[Annotation] = []
    errors: list[AnnotationError] = []
    num_errors = 0
    for line in read_lines(path):
        try:
            annotation, task = _read(line, kind, task)
        except AnnotationError as error:
            num_errors += 1
            if num_errors <= MOST_ERRORS_KEPT:
                errors.append(error)
        else:
            annotations.append(annotation)
    if task is None:
        raise _summary(path, kind, errors, num_errors)
    file = AnnotationFile(path, kind, task, tuple(annotations))
    return AnnotationScan(file, tuple(errors), num_errors)


def _recognise(path: Path) -> AnnotationKind:
    first_error: AnnotationError | None = None
    for line in read_lines(path):
        if isinstance(line, LineFields):
            return recognise_kind(line)
        first_error = first_error or line
    raise first_error or AnnotationError(path, "has no lines")


def _read(
    line: LineFields | AnnotationError, kind: AnnotationKind, task: HeadName | None
) -> tuple[Annotation, HeadName]:
    if isinstance(line, AnnotationError):
        raise line
    annotation, own_task = read_line(line, kind)
    if task is not None and own_task != task:
        reason = f"is for {own_task}, the lines before it are for {task}: a file has one task"
        raise AnnotationError(line.path, reason, line=line.number)
    return annotation, own_task


def _summary(
    path: Path, kind: AnnotationKind, errors: Sequence[AnnotationError], num_errors: int
) -> AnnotationError:
    if not errors:
        return AnnotationError(path, "has no lines")
    first = errors[0]
    listed = "".join(f"\n  {error}" for error in errors[1:_MOST_ERRORS_LISTED])
    rest = num_errors - min(num_errors, _MOST_ERRORS_LISTED)
    reason = first.reason
    if num_errors > 1:
        reason += f"; {num_errors} lines cannot be read as {kind}, also{listed}"
        reason += f"\n  and {rest} more" if rest else ""
    return AnnotationError(path, reason, line=first.line, field=first.field)
