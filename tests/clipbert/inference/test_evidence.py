"""The library's video-level calls, against the same thing done by hand."""

import dataclasses

import pytest
import torch
from videos import write_counting_video

from clipbert.errors import CheckpointError, MissingHead
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.clips import decode_clips
from clipbert.model.config import ClipBertConfig, HeadConfig
from clipbert.model.pixels import clips_to_pixels
from clipbert.sampling.plan import SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import probe_video

PLAN = SamplingPlan("segments", num_clips=3, frames_per_clip=2, clip_seconds=0.4)


@pytest.fixture(scope="module")
def model():
    config = dataclasses.replace(ClipBertConfig.preset("clipbert-tiny"), plan=PLAN)
    return ClipBert.create(config, seed=3).eval()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_counting_video(tmp_path_factory.mktemp("video") / "v.mp4", 60, fps=10)


@pytest.fixture(scope="module")
def tokens(model, path):
    return model.encode_video(path)


def logits_by_hand(model, path, text, head):
    """One forward pass a clip, from the file on: (K, C)."""
    frames = decode_clips(path, plan_clips(probe_video(path), PLAN))
    config = model.config
    ids, mask = model.tokenizer.encode([text], max_length=config.max_text_tokens)
    rows = []
    with torch.inference_mode():
        for clip in frames:
            pixels = clips_to_pixels(
                [clip],
                max_side_px=config.max_side_px,
                mean=config.mean,
                std=config.std,
                channel_order=config.channel_order,
            )
            rows.append(model(ids, mask, model.encode_pixels(pixels), head=head)[0])
    return torch.stack(rows)


def test_tokens_in_float32_give_the_logits_of_one_pass_to_the_last_digits(model, path):
    exact = model.encode_video(path, dtype=torch.float32)

    score = model.score(exact, ["a ball"])[0]

    expected = logits_by_hand(model, path, "a ball", "retrieval")
    found = torch.stack([clip.logits for clip in score.evidence])
    assert exact.tokens.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_encode_video_follows_the_models_own_plan(model, path, tokens):
    assert tokens.plan == PLAN
    assert [clip.instants for clip in tokens.clips] == [
        clip.instants for clip in plan_clips(probe_video(path), PLAN)
    ]
    assert tokens.tokens.shape == (3, 2, 2, 48)
    assert tokens.places == pytest.approx((1 / 6, 1 / 2, 5 / 6))
    assert model.encode_video(str(path), SamplingPlan(num_clips=1)).tokens.shape[0] == 1


def test_score_is_the_aggregate_of_each_clips_logits_with_its_share(model, path, tokens):
    texts = ["a red circle", "numbers in black and white stripes"]

    scores = model.score(tokens, texts)

    for text, score in zip(texts, scores, strict=True):
        expected = logits_by_hand(model, path, text, "retrieval")  # (K, 2)
        assert score.text == text
        logits = torch.stack([clip.logits for clip in score.evidence])
        torch.testing.assert_close(logits, expected, atol=1e-3, rtol=0)
        match = expected.logsumexp(0).softmax(-1)[1]
        assert score.score == pytest.approx(float(match), abs=1e-4)
        exponentials = logits[:, 1].double().exp()
        for clip, share in zip(score.evidence, exponentials / exponentials.sum(), strict=True):
            assert clip.share == pytest.approx(float(share), abs=1e-6)


def test_answer_is_the_best_of_the_models_answers_and_says_when(model, path, tokens):
    answer = model.answer(tokens, "what is shown?", top_k=2)

    video = logits_by_hand(model, path, "what is shown?", "qa").logsumexp(0)
    best = int(video.argmax())
    assert answer.answer == model.config.answers[best]
    assert len(answer.answers) == 2
    assert answer.answers[0].logit == pytest.approx(float(video[best]), abs=1e-3)
    assert [clip.instants for clip in answer.evidence] == [c.instants for c in tokens.clips]
    assert sum(clip.share for clip in answer.evidence) == pytest.approx(1)


def test_choose_and_count_answer_by_their_heads(path):
    config = ClipBertConfig.preset("clipbert-tiny")
    heads = (*config.heads, HeadConfig("count", 1))
    config = dataclasses.replace(
        config, plan=PLAN, heads=heads, trained_heads=("multiple_choice", "count")
    )
    model = ClipBert.create(config, seed=4).eval()
    tokens = model.encode_video(path)

    choice = model.choose(tokens, "which?", ["black", "white"])
    number = model.count(tokens, "how many?")

    by_hand = [
        logits_by_hand(model, path, f"which? {c}", "multiple_choice") for c in ("black", "white")
    ]
    best = torch.cat(by_hand, dim=1).logsumexp(0).argmax()
    assert choice.answer == ("black", "white")[int(best)]
    assert not choice.zero_shot
    expected = logits_by_hand(model, path, "how many?", "count").mean()
    assert number == pytest.approx(float(expected), abs=1e-3)


def test_a_model_with_places_of_frames_and_clips_sees_the_order(path):
    config = dataclasses.replace(
        ClipBertConfig.preset("clipbert-tiny"), plan=PLAN, frame_positions=2, clip_positions=8
    )
    model = ClipBert.create(config, seed=5).eval()
    for parameter in model.network.cross_encoder.parameters():
        parameter.data *= 10  # a random model hardly looks at its video
    tokens = model.encode_video(path)
    assert tokens.tokens.shape == (3, 2 * 2, 2, 48)  # two frames of 2 x 2 each
    frames = tokens.tokens.unflatten(1, (2, 2)).flip(1).flatten(1, 2)
    swapped = dataclasses.replace(tokens, tokens=frames)
    backwards = dataclasses.replace(tokens, clips=tokens.clips[::-1], tokens=tokens.tokens.flip(0))

    def score(seen):
        return model.score(seen, ["a text"])[0].score

    assert score(swapped) == pytest.approx(score(tokens), abs=1e-6)  # the tables start at zero
    scale = float(tokens.tokens.float().std())  # what a random CNN puts out is large
    torch.nn.init.normal_(model.network.visual_embeddings.frame_embeddings.weight, std=scale)
    torch.nn.init.normal_(model.network.visual_embeddings.clip_embeddings.weight, std=scale)
    assert abs(score(swapped) - score(tokens)) > 1e-5
    # The same clips at the same places, in another order, are the same video.
    assert score(backwards) == pytest.approx(score(tokens), abs=1e-6)
    moved = dataclasses.replace(tokens, tokens=tokens.tokens.flip(0))
    assert abs(score(moved) - score(tokens)) > 1e-5


def test_a_model_in_training_mode_is_not_asked(path):
    model = ClipBert.create(ClipBertConfig.preset("clipbert-tiny"), seed=0)
    model.network.train()

    with pytest.raises(ValueError, match="eval"):
        model.encode_video(path)


def test_a_missing_head_or_tokenizer_is_said(model, tokens):
    with pytest.raises(MissingHead, match="count"):
        model.count(tokens, "how many?")
    mute = ClipBert.create(model.config, seed=0).eval()
    mute.tokenizer = None
    with pytest.raises(CheckpointError, match="tokenizer"):
        mute.score(tokens, ["a text"])
