"""`clipbert search` says what was done, and what was not."""

import json

import pytest

from tests.cli.api_document import example


@pytest.fixture
def search(api):
    """Answer searches by what is `stages` at that time."""
    found = example("POST", "/v1/searches")

    def answer(request):
        mode = json.loads(request.body)["mode"]
        return 200, {**found, "mode": mode, "result": {**found["result"], "stages": api.stages}}

    api.answer("POST", "/v1/searches", answer)
    return api


@pytest.mark.parametrize(
    ("mode", "stages", "is_noted"),
    [
        ("exhaustive", ["recall"], True),
        ("exhaustive", [], True),
        ("exhaustive", ["exhaustive"], False),
        ("auto", ["recall"], False),
        ("recall", ["recall"], False),
    ],
)
def test_who_asked_for_every_clip_and_got_vectors_is_told(search, clipbert, mode, stages, is_noted):
    search.stages = stages

    for form in ([], ["--json"]):
        said = clipbert("search", "a parrot", "--mode", mode, *form)

        assert ("no model with a trained retrieval head serves" in said.err) == is_noted
        assert "note" not in said.out
