import pytest

from clipbert.authors_settings import AuthorsSettings
from clipbert.errors import ConfigError
from clipbert.sampling import SamplingPlan


def test_settings_that_are_not_given_are_the_papers():
    given = {"max_text_tokens": 100, "plan": {"num_clips": 4}}

    made = AuthorsSettings.from_json(given, head="retrieval")

    assert made == AuthorsSettings(
        max_side_px=448,
        max_text_tokens=100,
        aggregation=None,
        plan=SamplingPlan("authors", num_clips=4, frames_per_clip=2, frames_per_second=2.0),
        num_attention_heads=12,
    )


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"heads": 4}, "heads is unknown: the fields are aggregation"),
        ({"max_side_px": "448"}, "max_side_px is '448': must be an integer"),
        ({"plan": "authors"}, "plan is 'authors': must be an object"),
        ({"plan": {"name": "none"}}, "no sampling plan is named 'none'"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, complaint):
    with pytest.raises(ConfigError, match=complaint):
        AuthorsSettings.from_json(given, head="qa")
