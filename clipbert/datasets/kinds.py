"""What the fields of each kind of annotation file mean: lines read, and those of labels written."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args

from clipbert.datasets.annotation import Annotation
from clipbert.datasets.line_fields import LineFields
from clipbert.errors import AnnotationError
from clipbert.model.head_names import HeadName

AnnotationKind = Literal[
    "retrieval",
    "msrvtt_mc",
    "tgif_choice",
    "tgif_frameqa",
    "tgif_count",
    "msrvtt_qa",
    "vqa",
    "captions",
    "labels",
]
KINDS: tuple[AnnotationKind, ...] = get_args(AnnotationKind)

_QUESTION_WORDS = frozenset({"what", "who", "how", "where", "when"})  # MSRVTT-QA's answer types
# COCO numbers its pictures; their files have twelve digits. MSRVTT-QA's original files number its
# videos, which are video0.mp4 to video9999.mp4.
_COCO_FORM, _MSRVTT_FORM = "{:012d}", "video{}"
# Of labels, each line tells.
_TASKS: Final[dict[AnnotationKind, HeadName]] = {
    "retrieval": "retrieval",
    "msrvtt_mc": "multiple_choice",
    "tgif_choice": "multiple_choice",
    "tgif_frameqa": "qa",
    "tgif_count": "count",
    "msrvtt_qa": "qa",
    "vqa": "qa",
    "captions": "pretraining",
}
# The fields that tell a kind.
_MARKS: Final[dict[frozenset[str], AnnotationKind]] = {
    frozenset({"clip_name", "caption"}): "retrieval",
    frozenset({"clip_name", "options"}): "msrvtt_mc",
    frozenset({"gif_name", "question", "options"}): "tgif_choice",
    frozenset({"gif_name", "question", "options", "answer_type"}): "tgif_choice",
    frozenset({"gif_name", "question", "answer_type"}): "tgif_frameqa",
    frozenset({"gif_name", "question"}): "tgif_count",
    frozenset({"video_id", "question"}): "msrvtt_qa",
    frozenset({"image_id", "question"}): "vqa",
    frozenset({"coco_id", "caption"}): "captions",
    frozenset({"vg_id", "caption"}): "captions",
    frozenset({"video"}): "labels",
}


def read_line(line: LineFields, kind: AnnotationKind) -> tuple[Annotation, HeadName]:
    """Read one line of a file of a kind, and tell what it is for.

    Raises:
        AnnotationError: a field is missing or wrong.
    """
    annotation = _READERS[kind](line)
    return annotation, _TASKS.get(kind) or _label_task(annotation)


def write_line(content: Mapping[str, Any], *, video: str, split: str) -> dict[str, Any]:
    """Return the line of a label, of kind `labels`, that read_line reads.

    Args:
        content: text, and what there is of answer, choices, right_choice, start_seconds,
            end_seconds and source. Of choices, the right one is named by the answer, if that is
            given and reads like no other choice, or else by its index.
        video: what names the video.
        split: of the video.
    """
    line: dict[str, Any] = {"video": video}
    choices, answer = content.get("choices") or [], content.get("answer")
    if choices:
        is_clear = choices.count(answer) == 1
        line |= {"question": content["text"], "choices": choices}
        line["answer"] = answer if is_clear else content["right_choice"]
    elif answer is not None:
        line |= {"question": content["text"], "answer": answer}
    else:
        line["caption"] = content["text"]
    for name in ("start_seconds", "end_seconds", "source"):
        if content.get(name) is not None:
            line[name] = content[name]
    return line | {"split": split}


def recognise_kind(line: LineFields) -> AnnotationKind:
    """Recognise the kind of a file by the fields of one of its lines.

    Raises:
        AnnotationError: they fit no kind, or several.
    """
    fitting = {mark: kind for mark, kind in _MARKS.items() if mark <= line.names}
    # A mark that is part of another one says less.
    kinds = {kind for mark, kind in fitting.items() if not any(mark < other for other in fitting)}
    if len(kinds) == 1:
        return kinds.pop()
    found = ", ".join(sorted(line.names)) or "nothing"
    fit = f"may be {' or '.join(sorted(kinds))}" if kinds else "is of no known kind"
    raise AnnotationError(line.path, f"{fit} (it has {found}): name its kind", line=line.number)


def _read_retrieval(line: LineFields) -> Annotation:
    return Annotation(line.number, _media(line, "clip_name"), line.paragraph("caption"))


def _read_msrvtt_mc(line: LineFields) -> Annotation:
    return _choice(line, _media(line, "clip_name"), "")


def _read_tgif_choice(line: LineFields) -> Annotation:
    return _choice(line, _media(line, "gif_name"), line.text("question"))


def _read_tgif_frameqa(line: LineFields) -> Annotation:
    return _open_question(line, _media(line, "gif_name"))


def _read_tgif_count(line: LineFields) -> Annotation:
    video, question = _media(line, "gif_name"), line.text("question")
    return Annotation(line.number, video, question, count=line.count("answer"))


def _read_msrvtt_qa(line: LineFields) -> Annotation:
    video = _media(line, "video_id", _MSRVTT_FORM)
    if "answer_type" in line:
        return _open_question(line, video)
    # The data set's own file does not say it: it is the question's first word.
    question = line.text("question")
    word = question.split(maxsplit=1)[0].lower()
    return Annotation(
        line.number,
        video,
        question,
        answer=sys.intern(line.text("answer")),
        answer_type=sys.intern(word) if word in _QUESTION_WORDS else None,
    )


def _read_vqa(line: LineFields) -> Annotation:
    answer_type = line.optional_text("answer_type")
    return Annotation(
        line.number,
        _media(line, "image_id", _COCO_FORM),
        line.text("question"),
        answer_scores=line.scores("labels") if "labels" in line else {},  # not in the test split
        answer_type=None if answer_type is None else sys.intern(answer_type),
    )


def _read_captions(line: LineFields) -> Annotation:
    if "vg_id" in line and "coco_id" not in line:
        picture = _media(line, "vg_id")
    else:
        picture = _media(line, "coco_id", _COCO_FORM)
    return Annotation(line.number, picture, line.paragraph("caption"))


def _read_labels(line: LineFields) -> Annotation:
    if "caption" in line and "question" in line:
        raise line.error("question", "is there beside caption: a line has one of them")
    if "question" in line:
        text, answer = line.text("question"), None
        choices = line.choices("choices") if "choices" in line else ()
        right_choice = _right_label(line, choices) if choices else None
        if not choices:
            answer = sys.intern(line.text("answer"))
    elif "caption" in line:
        for name in ("answer", "choices"):
            if name in line:
                raise line.error(name, "belongs to a question, and this line has a caption")
        text, answer, choices, right_choice = line.text("caption"), None, (), None
    else:
        raise line.error("caption", "is missing, and so is question")
    start, end = line.optional_seconds("start_seconds"), line.optional_seconds("end_seconds")
    if end is not None and end <= (start or 0.0):
        raise line.error("end_seconds", f"must be after the start, got {end:g}")
    split = line.optional_text("split")
    line.optional_text("source")  # who made the label: checked, and of no use here
    return Annotation(
        line.number,
        _media(line, "video"),
        text,
        answer=answer,
        choices=choices,
        right_choice=right_choice,
        split=None if split is None else sys.intern(split),
        start_seconds=start,
        end_seconds=end,
    )


def _right_label(line: LineFields, choices: tuple[str, ...]) -> int:
    answer = line.value("answer")
    if not isinstance(answer, str):
        return line.index("answer", of=len(choices))
    if choices.count(answer) != 1:
        times = "none" if answer not in choices else "several"
        raise line.error("answer", f"must be one of the choices, is {times} of them: {answer}")
    return choices.index(answer)


def _label_task(annotation: Annotation) -> HeadName:
    if annotation.choices:
        return "multiple_choice"
    return "retrieval" if annotation.answer is None else "qa"


def _open_question(line: LineFields, video: str) -> Annotation:
    return Annotation(
        line.number,
        video,
        line.text("question"),
        answer=sys.intern(line.text("answer")),
        answer_type=sys.intern(line.text("answer_type")),
    )


def _choice(line: LineFields, video: str, question: str) -> Annotation:
    choices = line.choices("options")
    right_choice = line.index("answer", of=len(choices))
    return Annotation(line.number, video, question, choices=choices, right_choice=right_choice)


def _media(line: LineFields, name: str, number_form: str = "") -> str:
    # Interned, as answers are: a file of millions of lines says the same few thousand names.
    return sys.intern(line.media(name, number_form=number_form))


_READERS: Final[dict[AnnotationKind, Callable[[LineFields], Annotation]]] = {
    "retrieval": _read_retrieval,
    "msrvtt_mc": _read_msrvtt_mc,
    "tgif_choice": _read_tgif_choice,
    "tgif_frameqa": _read_tgif_frameqa,
    "tgif_count": _read_tgif_count,
    "msrvtt_qa": _read_msrvtt_qa,
    "vqa": _read_vqa,
    "captions": _read_captions,
    "labels": _read_labels,
}
