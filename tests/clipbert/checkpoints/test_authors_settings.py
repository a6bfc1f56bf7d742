import pytest

from clipbert.checkpoints.authors_settings import AuthorsSettings, data_sets_of, doubts
from clipbert.errors import ConfigError
from clipbert.sampling.plan import SamplingPlan


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


@pytest.mark.parametrize(
    ("data_set", "head", "described", "frames_at"),
    [
        ("msrvtt_retrieval", "retrieval", "448 px, 20 tokens, lse", (2, 2.0)),
        ("didemo_retrieval", "retrieval", "448 px, 100 tokens, lse", (2, 2.0)),
        ("activitynet_retrieval", "retrieval", "448 px, 100 tokens, lse", (2, 1.0)),
        ("msrvtt_qa", "qa", "448 px, 100 tokens, lse", (2, 2.0)),
        ("tgif_frameqa", "qa", "768 px, 25 tokens, mean", (1, 1.0)),
        ("tgif_count", "count", "768 px, 25 tokens, mean", (1, 1.0)),
        ("vqa", "qa", "768 px, 20 tokens, mean", (1, 1.0)),
    ],
)
def test_each_data_set_has_the_settings_of_its_configuration(data_set, head, described, frames_at):
    found = AuthorsSettings.from_json({}, head=head, data_set=data_set)

    assert found.describe() == described
    assert (found.plan.frames_per_clip, found.plan.frames_per_second) == frames_at
    assert data_set in data_sets_of(head)


def test_a_data_set_of_another_head_is_refused():
    with pytest.raises(ConfigError, match="the data set msrvtt_qa is for qa, not for retrieval"):
        AuthorsSettings.from_json({}, head="retrieval", data_set="msrvtt_qa")


def test_an_import_that_names_no_data_set_hears_what_each_would_need():
    (found,) = doubts(
        AuthorsSettings.of_paper("retrieval"), head="retrieval", data_set=None, num_outputs=2
    )

    assert "448 px, 20 tokens, lse is taken" in found
    assert "didemo_retrieval 448 px, 100 tokens, lse" in found


def test_an_import_whose_size_is_another_data_sets_hears_which():
    settings = AuthorsSettings.of_data_set("msrvtt_qa")

    found = doubts(settings, head="qa", data_set="msrvtt_qa", num_outputs=3129)

    assert found == ["its 3129 outputs are those of vqa, and the data set named is msrvtt_qa"]


def test_settings_that_contradict_the_data_set_are_named():
    odd = AuthorsSettings.from_json({"max_side_px": 448}, head="qa", data_set="tgif_frameqa")

    found = doubts(odd, head="qa", data_set="tgif_frameqa", num_outputs=1540)

    assert found == [
        "448 px, 25 tokens, mean is not what tgif_frameqa was trained with: 768 px, 25 tokens, mean"
    ]


def test_an_import_that_is_certain_has_no_doubts():
    settings = AuthorsSettings.of_data_set("didemo_retrieval")

    assert doubts(settings, head="retrieval", data_set="didemo_retrieval", num_outputs=2) == []
    paper = AuthorsSettings.of_paper("multiple_choice")  # action and transition are alike
    assert doubts(paper, head="multiple_choice", data_set=None, num_outputs=1) == []
