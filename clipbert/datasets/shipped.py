"""Annotation files as the data sets ship them, as lines of the forms that the paper's code reads.

    MSRVTT-QA, MSVD-QA    array of {answer, category_id, id, question, video_id}
    MSRVTT                {"videos": [...], "sentences": [{video_id, caption, sen_id}]}
    MSRVTT 1k-A           CSV: key, vid_key, video_id, sentence
    DiDeMo                array of {video, description, ...}: a video's descriptions are one text
    ActivityNet Captions  {"v_...": {duration, timestamps, sentences}}: one text a video
    TGIF-QA               tab-separated: gif_name, question, [a1-a5], answer, [type], vid_id, key
    COCO captions         {"images": [...], "annotations": [{image_id, caption}]}
    Visual Genome         array of {id, regions: [{image_id, phrase}]}

An array of objects of any form that has lines is read as these lines. VQA's questions and answers
come in two files, and are refused with that reason.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TextIO

from clipbert.datasets.video_references import split_ending

Record = Mapping[str, object]

HEAD_BYTES: Final = 1 << 14
"""As many first bytes as `is_lines` wants."""

_PIECE_CHARACTERS = 1 << 20
_LONG_LINE_BYTES = 1 << 12
_DECODER = json.JSONDecoder()
_FIRST_FIELD = re.compile(rb'\{\s*"((?:[^"\\]|\\.)*)"\s*:\s*(.)')
# Of lines, whose other fields are texts and numbers.
_COMPOSED_FIELDS = frozenset(
    {b"choices", b"options", b"answers", b"labels", b"span", b"provenance"}
)
_SPACES = " \t\r\n"
# How TGIF-QA numbers the kinds of its frame questions.
_TGIF_TYPES: Final = {"0": "object", "1": "number", "2": "color", "3": "location"}
_TGIF_CHOICES = ("a1", "a2", "a3", "a4", "a5")
# What an array of objects is at most; a file of VQA or COCO is below it.
_MOST_DOCUMENT_BYTES = 1 << 30


class NotShipped(ValueError):
    """The file is of no form that is read here; the message says what it looks like."""


def is_lines(head: bytes) -> bool:
    """Whether the first bytes of a file are of JSON lines rather than one of these forms.

    Args:
        head: up to some thousand bytes, without a byte order mark.
    """
    text = head.lstrip()
    if text.startswith(b"["):
        return not text[1:].lstrip().startswith(b"{")  # a line that is an array is damaged
    if _is_table(head):
        return False
    if not text.startswith(b"{"):
        return True  # damaged lines, which are to be named one by one
    first, ended, rest = text.partition(b"\n")
    try:
        values = json.loads(first)
    except ValueError:
        if not ended and len(head) >= _LONG_LINE_BYTES and _begins_as_a_line(text):
            return True
        # A document over several lines, or on one so long that it does not end here; or a first
        # line that is damaged, with other lines after it.
        return rest.lstrip().startswith(b"{") or not (ended or len(head) >= _LONG_LINE_BYTES)
    return not (isinstance(values, dict) and _document_reader(values) is not None)


def _begins_as_a_line(text: bytes) -> bool:
    """Whether the first field of a long object is one of a line; documents begin with a whole."""
    field = _FIRST_FIELD.match(text)
    if field is None:
        return False
    return field[2] not in (b"{", b"[") or field[1] in _COMPOSED_FIELDS


def read_shipped(file: TextIO) -> Iterator[Record]:
    """Read a file of one of the forms above.

    Args:
        file: at its beginning, without a byte order mark.

    Yields:
        Records with the fields of our lines, in the order of the file.

    Raises:
        NotShipped: it is none of these forms, or breaks off.
    """
    try:
        yield from _records(file)
    except (KeyError, TypeError, AttributeError) as error:
        raise NotShipped(f"has a record of another form: {error}") from error
    except csv.Error as error:  # a quote that is never closed, which takes in what comes after it
        raise NotShipped(f"is a table that is damaged: {error}") from error
    except UnicodeDecodeError as error:
        raise NotShipped("is not UTF-8") from error
    except RecursionError as error:
        raise NotShipped("is nested too deeply") from error


def _records(file: TextIO) -> Iterator[Record]:
    head = file.read(_PIECE_CHARACTERS)
    if head.lstrip(_SPACES).startswith("["):
        yield from _from_array(_array_items(file, head.lstrip(_SPACES)))
    elif _is_table(head.encode()):
        yield from _from_table(_joined(head, file))
    else:
        yield from _from_document(head + file.read(_MOST_DOCUMENT_BYTES))


def _is_table(head: bytes) -> bool:
    columns = _columns(head.split(b"\n", 1)[0].decode("utf-8", "replace"))
    return {"gif_name", "question"} <= columns or {"video_id", "sentence"} <= columns


def _columns(header: str) -> set[str]:
    return {name.strip() for name in header.replace("\t", ",").split(",")}


def _array_items(file: TextIO, buffer: str) -> Iterator[Any]:
    """Decode the items of a JSON array one by one, so that its length costs no memory."""
    buffer, is_first = buffer[1:], True
    while True:
        buffer = buffer.lstrip(_SPACES)
        if not buffer:
            buffer = _more(file)
            continue
        if buffer[0] == "]":
            return
        if not is_first:
            if buffer[0] != ",":
                raise NotShipped("is not JSON: a comma is missing between two items of its array")
            buffer = buffer[1:].lstrip(_SPACES) or _more(file)
        item, buffer = _decode_item(file, buffer.lstrip(_SPACES))
        is_first = False
        yield item


def _decode_item(file: TextIO, buffer: str) -> tuple[Any, str]:
    while True:
        try:
            item, end = _DECODER.raw_decode(buffer)
        except ValueError:
            end = len(buffer)
        # A number at the very end of the buffer may go on.
        if end < len(buffer):
            return item, buffer[end:]
        buffer += _more(file)


def _more(file: TextIO) -> str:
    piece = file.read(_PIECE_CHARACTERS)
    if not piece:
        raise NotShipped("is not JSON: its array breaks off or is damaged")
    return piece


def _from_array(items: Iterable[Any]) -> Iterator[Record]:
    descriptions: dict[str, list[object]] = {}
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise NotShipped(f"has an array whose item {number} is not an object")
        if "regions" in item:
            for region in item["regions"]:
                yield {"vg_id": region.get("image_id", item.get("id")), "caption": region["phrase"]}
        elif {"video", "description"} <= item.keys():
            descriptions.setdefault(str(item["video"]), []).append(item["description"])
        elif {"question_id", "answers"} <= item.keys():
            raise NotShipped(_VQA)
        else:
            yield item
    for video, sentences in descriptions.items():  # a paragraph a video, as in the paper
        # Named by its file on Flickr (.avi, .mov), of which people have copies in other forms.
        yield {"clip_name": split_ending(video)[0], "caption": sentences}


def _from_document(text: str) -> Iterator[Record]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotShipped(f"is not JSON: {error}") from error
    reader = _document_reader(values) if isinstance(values, dict) else None
    if reader is None:
        names = ", ".join(sorted(values)[:5]) if isinstance(values, dict) else type(values).__name__
        raise NotShipped(f"is one JSON object with {names}: a form that is not read here")
    yield from reader(values)


def _document_reader(
    values: Mapping[str, Any],
) -> Callable[[Mapping[str, Any]], Iterator[Record]] | None:
    if isinstance(values.get("sentences"), list) and "videos" in values:
        return _from_msrvtt
    if isinstance(values.get("annotations"), list) and "images" in values:
        return _from_coco
    if isinstance(values.get("questions"), list) or isinstance(values.get("annotations"), list):
        return _refuse_vqa
    first = next(iter(values.values()), None)
    if isinstance(first, dict) and {"timestamps", "sentences"} <= first.keys():
        return _from_activitynet
    return None


def _from_msrvtt(values: Mapping[str, Any]) -> Iterator[Record]:
    for sentence in values["sentences"]:
        yield {
            "clip_name": sentence["video_id"],
            "caption": sentence["caption"],
            "sen_id": sentence.get("sen_id"),
        }


def _from_coco(values: Mapping[str, Any]) -> Iterator[Record]:
    for caption in values["annotations"]:
        yield {"coco_id": caption["image_id"], "caption": caption["caption"].strip()}


def _from_activitynet(values: Mapping[str, Any]) -> Iterator[Record]:
    for video, said in values.items():
        yield {"clip_name": video, "caption": said["sentences"]}


def _refuse_vqa(_values: Mapping[str, Any]) -> Iterator[Record]:
    raise NotShipped(_VQA)


_VQA = (
    "is one of VQA's two files, questions and annotations: put them together into lines such as "
    '{"image_id": 42, "question": "...", "labels": {"yes": 1.0}, "answer_type": "yes/no"}'
)


def _from_table(lines: Iterator[str]) -> Iterator[Record]:
    header = next(lines)
    separator = "\t" if "\t" in header else ","
    names = [name.strip() for name in header.rstrip("\r\n").split(separator)]
    rows = csv.DictReader(lines, fieldnames=names, delimiter=separator)
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise NotShipped(f"line {number} has another number of columns than the header")
        yield _from_tgif(row) if "gif_name" in row else _from_jsfusion(row)


def _from_tgif(row: Mapping[str, str]) -> Record:
    record: dict[str, object] = {name: row[name] for name in ("gif_name", "question", "answer")}
    if _TGIF_CHOICES[0] in row:
        record["options"] = [row[name] for name in _TGIF_CHOICES]
    elif "type" in row:
        record["answer_type"] = _TGIF_TYPES.get(row["type"], row["type"])
    return record


def _from_jsfusion(row: Mapping[str, str]) -> Record:
    return {"clip_name": row["video_id"], "caption": row["sentence"]}


def _joined(head: str, file: TextIO) -> Iterator[str]:
    """Return the lines of a text of which a part was read."""
    whole = io.StringIO(head + file.read(_MOST_DOCUMENT_BYTES), newline=None)
    yield from whole
