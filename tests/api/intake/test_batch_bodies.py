import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.errors import ApiError
from api.intake import batch_bodies
from api.intake.batch_bodies import DocumentReader, RawItem, read_lines

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time, so that every value is cut somewhere."""

    def __init__(self, content, step):
        super().__init__(content)
        self._step = step

    def read(self, size=-1):
        return super().read(self._step)


def read_document(content, step=7):
    reader = DocumentReader(Trickle(content, step))
    return list(reader.items()), reader.name


@settings(deadline=None, max_examples=60)
@given(
    items=st.lists(JSON_VALUES, max_size=6),
    name=st.none() | st.text(max_size=20),
    name_first=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
    step=st.integers(1, 30),
)
def test_a_document_is_read_as_json_reads_it(*, items, name, name_first, indent, ascii_only, step):
    fields = [("name", name), ("items", items)]
    document = dict(fields if name_first else fields[::-1])
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)

    found, found_name = read_document(text.encode("utf-8", "surrogatepass"), step)

    assert [item.value for item in found] == json.loads(text)["items"]
    assert [item.index for item in found] == list(range(len(items)))
    assert found_name == name


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"[]",
        b"{",
        b'{"items"',
        b'{"items":',
        b'{"items":[',
        b'{"items":[{}',
        b'{"items":[{}]',
        b'{"items":[{},]}',
        b'{"items":[{}]},',
        b'{"items":[{}]}{}',
        b'{"items":[{} {}]}',
        b'{"items":[NaN]}',
        b"{1:2}",
        b"{,}",
        b'{"items":[]',
        b'{"items":["\xff"]}',
        b'{"items":[' + b"[" * 100_000,
        b'{"items":["' + b"x" * 300_000 + b'"]}',
    ],
)
def test_a_broken_document_is_malformed(content):
    with pytest.raises(ApiError) as caught:
        read_document(content, step=65536)

    assert (caught.value.status, caught.value.code) == (400, "malformed_json")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"{}", "items"),
        (b'{"name":"x"}', "items"),
        (b'{"items":{}}', "items"),
        (b'{"items":null}', "items"),
        (b'{"items":[],"items":[]}', "items"),
        (b'{"videos":[]}', "videos"),
    ],
)
def test_a_document_of_another_form_is_invalid(content, field):
    with pytest.raises(ApiError) as caught:
        read_document(content)

    assert (caught.value.status, caught.value.errors[0]["field"]) == (422, f"body.{field}")


@pytest.mark.parametrize("before", [b"", b"{}," * 60_000], ids=["early", "late"])
def test_an_item_may_be_long_up_to_a_bound_wherever_it_stands(before):
    at_bound = b'"' + b"x" * (batch_bodies._MAX_ITEM_LENGTH - 2) + b'"'

    found, _ = read_document(b'{"items":[' + before + at_bound + b"]}", step=65536)
    with pytest.raises(ApiError, match="a value is longer than 65536 characters") as caught:
        read_document(b'{"items":[' + before + b'"' + at_bound[1:-1] + b'y"]}', step=65536)

    assert found[-1].value == at_bound[1:-1].decode()
    assert (caught.value.status, caught.value.code) == (400, "malformed_json")


def test_lines_are_items_and_a_broken_line_does_not_end_them():
    content = b'{"a": 1}\n\n  \r\nnonsense\r\n[2]\n"\xff"\n' + b"[" * 10_000 + b"\n{}"

    found = list(read_lines(io.BytesIO(content)))

    assert [(item.index, item.value) for item in found] == [
        (0, {"a": 1}),
        (1, None),
        (2, [2]),
        (3, None),
        (4, None),
        (5, {}),
    ]
    assert [item.error is None for item in found] == [True, False, True, False, False, True]


def test_lines_are_numbered_as_in_the_file_and_a_byte_order_mark_is_no_fault():
    found = list(read_lines(io.BytesIO(b'\xef\xbb\xbf{"a": 1}\n\n{"b": 2}')))

    assert [(item.line, item.value) for item in found] == [(1, {"a": 1}), (3, {"b": 2})]


def test_a_line_that_is_too_long_is_passed_over():
    content = b'{"x": "' + b"y" * 300_000 + b'"}\n{}\n'

    found = list(read_lines(io.BytesIO(content)))

    assert found[0].error is not None
    assert "longer" in found[0].error
    assert found[1] == RawItem(1, {}, line=2)


def test_the_reader_holds_one_item_at_a_time(monkeypatch):
    item = json.dumps({"uri": "/" + "x" * 1000}).encode()
    content = b'{"items":[' + b",".join([item] * 5000) + b"]}"
    reader = DocumentReader(io.BytesIO(content))

    longest = 0
    for _ in reader.items():
        longest = max(longest, len(reader._text))

    assert longest < 2 * batch_bodies._READ_BYTES
