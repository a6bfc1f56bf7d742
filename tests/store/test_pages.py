import base64
import json
from contextlib import suppress
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InvalidPageToken
from store.pages import PageTokens, clamp_page_size

TOKENS = PageTokens("jobs", state="failed", kind=None)


def token_of(content):
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@given(st.uuids())
def test_a_token_leads_back_to_its_id(id_):
    assert TOKENS.id_of(TOKENS.of_id(id_)) == id_


@given(st.integers(0, 2**31 - 1))
def test_a_token_leads_back_to_its_index(index):
    assert TOKENS.index_of(TOKENS.of_index(index)) == index


@given(st.text(max_size=40))
def test_a_foreign_token_is_refused_and_nothing_else(token):
    for read in (TOKENS.id_of, TOKENS.index_of):
        with suppress(InvalidPageToken):
            read(token)


@pytest.mark.parametrize("token", ["", "!", "bnVsbA", "dHJ1ZQ", "LTE", "WzFd", "MWU5OQ", "é"])
def test_what_is_no_token_is_refused(token):
    for read in (TOKENS.id_of, TOKENS.index_of):
        with pytest.raises(InvalidPageToken):
            read(token)


@pytest.mark.parametrize("value", [None, True, -1, 2**31, 1.5, [], "1"])
def test_a_token_of_something_else_is_refused(value):
    (list_, _) = json.loads(base64.urlsafe_b64decode(TOKENS.of_index(7) + "=="))
    for read in (TOKENS.id_of, TOKENS.index_of):
        with pytest.raises(InvalidPageToken):
            read(token_of([list_, value]))


@pytest.mark.parametrize(
    "other",
    [
        PageTokens("videos", state="failed", kind=None),
        PageTokens("jobs", state="queued", kind=None),
        PageTokens("jobs", state=None, kind="failed"),
    ],
)
def test_a_token_of_another_list_or_other_filters_is_refused(other):
    id_ = uuid4()

    with pytest.raises(InvalidPageToken):
        TOKENS.id_of(other.of_id(id_))
    with pytest.raises(InvalidPageToken):
        TOKENS.index_of(other.of_index(7))


def test_a_page_has_at_least_one_row_and_at_most_500():
    assert clamp_page_size(7) == 7
    assert clamp_page_size(10_000) == 500
    with pytest.raises(ValueError, match="page_size"):
        clamp_page_size(0)
