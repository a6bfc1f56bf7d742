from uuid import UUID

import pytest
import torch

from store.videos.tables import Clip
from workers.answering.clip_scores import Candidate, match_probabilities, places_of, rank_hits

A, B = UUID(int=1), UUID(int=2)


def candidate(video_id, similarities, **scores):
    clips = {
        index: Clip(index=index, start_seconds=index, end_seconds=index + 1, instants=[index + 0.5])
        for index in similarities
    }
    return Candidate(video_id, f"file:///{video_id.int}.mp4", clips, similarities, **scores)


def test_a_video_is_ranked_by_its_best_clip_and_shown_there():
    candidates = [candidate(A, {0: 0.1, 1: 0.5}), candidate(B, {0: 0.7, 1: 0.2})]

    hits = rank_hits(candidates, group_by="video", limit=10)

    assert [(h["rank"], h["video_id"], h["clip_index"]) for h in hits] == [
        (1, str(B), 0),
        (2, str(A), 1),
    ]
    assert [moment["clip_index"] for moment in hits[1]["moments"]] == [1, 0]


def test_the_cross_encoder_has_the_last_word():
    candidates = [
        candidate(A, {0: 0.9, 1: 0.1}, match_score=0.2, clip_scores={0: 0.1, 1: 0.3}),
        candidate(B, {0: 0.2, 1: 0.1}, match_score=0.8, clip_scores={0: 0.7, 1: 0.9}),
    ]

    first, second = rank_hits(candidates, group_by="video", limit=10)

    assert (first["video_id"], first["score"], first["clip_index"]) == (str(B), 0.8, 1)
    assert (first["match_score"], first["recall_score"]) == (0.8, 0.2)
    assert (second["score"], second["clip_index"]) == (0.2, 1)


def test_clips_are_hits_of_their_own_when_asked_for_and_ties_have_an_order():
    candidates = [candidate(B, {0: 0.5, 1: 0.5}), candidate(A, {3: 0.5})]

    hits = rank_hits(candidates, group_by="clip", limit=2)

    assert [(hit["video_id"], hit["clip_index"]) for hit in hits] == [(str(A), 3), (str(B), 0)]


def test_a_hit_that_is_a_clip_has_the_clips_own_scores():
    recalled = [candidate(A, {0: 0.9, 1: 0.4})]
    scored = [candidate(A, {0: 0.9, 1: 0.4}, match_score=0.8, clip_scores={0: 0.1, 1: 0.7})]

    alone = rank_hits(recalled, group_by="clip", limit=9)
    both = rank_hits(scored, group_by="clip", limit=9)

    assert [(hit["clip_index"], hit["score"], hit["recall_score"]) for hit in alone] == [
        (0, 0.9, 0.9),
        (1, 0.4, 0.4),
    ]
    assert [(hit["clip_index"], hit["match_score"], hit["recall_score"]) for hit in both] == [
        (1, 0.7, 0.4),
        (0, 0.1, 0.9),
    ]
    for hit in [*alone, *both]:
        assert [moment["clip_index"] for moment in hit["moments"]] == [hit["clip_index"]]


@pytest.mark.parametrize("logits", [[[0.0, 2.0]], [[2.0]]])
def test_heads_with_one_and_two_outputs_give_probabilities(logits):
    (probability,) = match_probabilities(torch.tensor(logits))

    assert probability == pytest.approx(0.8808, abs=1e-4)


def test_places_are_the_middles_of_the_clips():
    spans = [(0.0, 2.0), (2.0, 4.0)]

    assert places_of([Clip(start_seconds=a, end_seconds=b) for a, b in spans]) == (0.25, 0.75)
    assert places_of([Clip(start_seconds=0.0, end_seconds=0.0)]) == (0.5,)
    assert places_of([]) == ()
