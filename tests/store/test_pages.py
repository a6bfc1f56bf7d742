from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InvalidPageToken
from store.pages import (
    clamp_page_size,
    id_of_token,
    index_of_token,
    token_of_id,
    token_of_index,
)


@given(st.uuids())
def test_a_token_leads_back_to_its_id(id_):
    assert id_of_token(token_of_id(id_)) == id_


@given(st.integers(0, 2**31 - 1))
def test_a_token_leads_back_to_its_index(index):
    assert index_of_token(token_of_index(index)) == index


@given(st.text(max_size=40))
def test_a_foreign_token_is_refused_and_nothing_else(token):
    for read in (id_of_token, index_of_token):
        with suppress(InvalidPageToken):
            read(token)


@pytest.mark.parametrize("token", ["", "!", "bnVsbA", "dHJ1ZQ", "LTE", "WzFd", "MWU5OQ", "é"])
def test_tokens_of_another_kind_are_refused(token):
    with pytest.raises(InvalidPageToken):
        id_of_token(token)
    with pytest.raises(InvalidPageToken):
        index_of_token(token)


def test_a_page_has_at_least_one_row_and_at_most_500():
    assert clamp_page_size(7) == 7
    assert clamp_page_size(10_000) == 500
    with pytest.raises(ValueError, match="page_size"):
        clamp_page_size(0)
