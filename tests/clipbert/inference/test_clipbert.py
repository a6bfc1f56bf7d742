import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from clipbert.engines.devices import default_dtype
from clipbert.errors import CheckpointError, ExtremeAspectRatio, MissingHead
from clipbert.inference import pass_sizes
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.requests import MatchRequest, QuestionRequest
from clipbert.model.aggregation import aggregate
from clipbert.model.config import ClipBertConfig, HeadConfig
from clipbert.model.pixels import clips_to_pixels

CLOSE = {"rtol": 0, "atol": 1e-5}


def random_clips(num_clips, *, height=48, width=64, num_frames=2, seed=0):
    generator = np.random.default_rng(seed)
    shape = (num_frames, height, width, 3)
    return [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(num_clips)]


def random_tokens(num_clips, *, seed=0, size=48):
    return torch.randn(num_clips, 2, 2, size, generator=torch.manual_seed(seed)).half()


def model_of(config, folder):
    ClipBert.create(config, seed=1).save_pretrained(folder)
    return ClipBert.for_serving(folder)


@pytest.fixture
def small_forwards(monkeypatch, tiny_folder):
    """A tiny model whose forward passes hold about two rows."""
    monkeypatch.setattr(pass_sizes, "_CPU_TOKENS", 30)
    monkeypatch.setattr(pass_sizes, "_CPU_PIXELS", 4 * 128 * 128)
    return ClipBert.for_serving(tiny_folder, dtype=torch.float32)


def test_encode_clips_gives_float16_tokens_on_the_cpu(tiny):
    encoded = tiny.encode_clips(random_clips(3))

    assert encoded.tokens.shape == (3, 2, 2, 48)
    assert encoded.tokens.dtype == torch.float16
    assert encoded.tokens.device.type == "cpu"
    assert encoded.recall is None


def test_tokens_are_those_of_the_model_without_folding(tiny, tiny_folder):
    clips, config = random_clips(2), tiny.config
    model = ClipBert.from_pretrained(tiny_folder)
    pixels = clips_to_pixels(
        clips,
        max_side_px=config.max_side_px,
        mean=config.mean,
        std=config.std,
        channel_order=config.channel_order,
    )

    with torch.no_grad():
        expected = model.encode_pixels(pixels)

    tolerance = 2e-3 * float(expected.abs().max())  # float16 has 11 bits
    assert_close(tiny.encode_clips(clips).tokens.float(), expected, rtol=0, atol=tolerance)


def test_clips_of_many_sizes_are_encoded_together_as_one_by_one(tiny):
    clips = [
        *random_clips(2, height=48, width=64),
        *random_clips(1, height=90, width=30),
        *random_clips(2, height=20, width=20),
    ]

    together = tiny.encode_clips(clips).tokens

    alone = torch.cat([tiny.encode_clips([clip]).tokens for clip in clips])
    assert_close(together, alone, rtol=2e-3, atol=1e-3)


def test_more_clips_than_a_forward_pass_holds_are_encoded_in_order(tiny, small_forwards):
    clips = random_clips(5)

    tokens = small_forwards.encode_clips(clips).tokens

    assert_close(tokens, tiny.encode_clips(clips).tokens, rtol=2e-3, atol=1e-3)


def test_tokens_can_be_trained_on(tiny):
    tokens = tiny.encode_clips(random_clips(1)).tokens.float()
    weight = torch.ones(48, requires_grad=True)

    (tokens * weight).sum().backward()

    assert weight.grad is not None


def test_frames_that_are_too_long_are_refused(tiny):
    with pytest.raises(ExtremeAspectRatio):
        tiny.encode_clips(random_clips(1, height=10, width=60))


def test_no_clips_are_refused(tiny):
    with pytest.raises(ValueError, match="at least one clip"):
        tiny.encode_clips([])


MATCHES = [
    MatchRequest(random_tokens(3, seed=0), "a dog"),
    MatchRequest(random_tokens(1, seed=1), "a much longer text, which pads the others"),
    MatchRequest(random_tokens(5, seed=2), ""),
    MatchRequest(random_tokens(2, seed=3), "x " * 100),
]


def test_matches_served_together_are_those_served_alone(tiny):
    together = tiny.score_all(MATCHES)

    for request, result in zip(MATCHES, together, strict=True):
        (alone,) = tiny.score_all([request])
        assert_close(result.clip_logits, alone.clip_logits, **CLOSE)
        assert result.score == pytest.approx(alone.score, abs=1e-5)


def test_matches_that_need_several_forward_passes_come_back_in_order(tiny, small_forwards):
    for result, expected in zip(
        small_forwards.score_all(MATCHES), tiny.score_all(MATCHES), strict=True
    ):
        assert_close(result.clip_logits, expected.clip_logits, **CLOSE)


def test_a_match_is_the_models_aggregated_probability(tiny, tiny_folder):
    model = ClipBert.from_pretrained(tiny_folder)
    tokens = random_tokens(3)
    ids, mask = model.tokenizer.encode(["a dog"] * 3, max_length=64)
    with torch.no_grad():
        logits = model(ids, mask, tokens, head="retrieval")

    (result,) = tiny.score_all([MatchRequest(tokens, "a dog")])

    assert_close(result.clip_logits, logits, **CLOSE)
    assert result.score == pytest.approx(float(logits.logsumexp(0).softmax(0)[1]), abs=1e-6)
    assert_close(result.clip_shares, logits[:, 1].softmax(0), **CLOSE)


def test_a_ranking_head_matches_by_its_one_output(tmp_path):
    config = dataclasses.replace(
        ClipBertConfig.preset("clipbert-tiny"), heads=(HeadConfig("retrieval", 1),), answers=()
    )
    model = model_of(config, tmp_path)

    (result,) = model.score_all([MatchRequest(random_tokens(4), "a dog")])

    assert result.clip_logits.shape == (4, 1)
    assert result.score == pytest.approx(float(result.clip_logits.logsumexp(0).sigmoid()), abs=1e-6)


def test_no_requests_give_no_results(tiny):
    assert tiny.score_all([]) == tiny.answer_all([]) == tiny.choose_all([]) == []


def test_tokens_of_another_model_are_refused(tiny):
    with pytest.raises(ValueError, match="need tokens"):
        tiny.score_all([MatchRequest(random_tokens(2, size=384), "a dog")])
    with pytest.raises(ValueError, match="need tokens"):
        tiny.score_all([MatchRequest(random_tokens(0), "a dog")])


def test_answers_come_best_first_with_their_probabilities(tiny):
    request = QuestionRequest(random_tokens(3), "what colour is it?")

    (result,) = tiny.answer_all([request], top_k=100)

    video = aggregate(result.clip_logits, tiny.config.aggregation)
    logits = [answer.logit for answer in result.answers]
    assert sorted(logits, reverse=True) == logits
    assert {answer.answer for answer in result.answers} == set(tiny.config.answers)
    assert sum(answer.probability for answer in result.answers) == pytest.approx(1, abs=1e-5)
    best = tiny.config.answers.index(result.answers[0].answer)
    assert best == int(video.argmax())
    assert_close(result.clip_shares, result.clip_logits[:, best].softmax(0), **CLOSE)
    assert not result.zero_shot


def test_answers_served_together_are_those_served_alone(tiny):
    requests = [QuestionRequest(random_tokens(k, seed=k), "why? " * k) for k in (1, 4, 2)]

    together = tiny.answer_all(requests, top_k=2)

    for request, result in zip(requests, together, strict=True):
        (alone,) = tiny.answer_all([request], top_k=2)
        assert len(result.answers) == 2
        assert_close(result.clip_logits, alone.clip_logits, **CLOSE)
        assert [a.answer for a in result.answers] == [a.answer for a in alone.answers]


def test_at_least_one_answer_must_be_wanted(tiny):
    with pytest.raises(ValueError, match="top_k"):
        tiny.answer_all([QuestionRequest(random_tokens(1), "why?")], top_k=0)


def test_choosing_reads_the_question_with_each_choice(tiny, tiny_folder):
    model = ClipBert.from_pretrained(tiny_folder)
    tokens, choices = random_tokens(2), ("a dog", "a white cat", "no")
    columns = []
    for choice in choices:
        ids, mask = model.tokenizer.encode([f"what is it? {choice}"] * 2, max_length=64)
        with torch.no_grad():
            columns.append(model(ids, mask, tokens, head="multiple_choice"))
    expected = torch.cat(columns, dim=1)  # (K, A)

    (result,) = tiny.choose_all([QuestionRequest(tokens, "what is it?", choices)])

    assert_close(result.clip_logits, expected, **CLOSE)
    assert result.answers[0].answer == choices[int(expected.logsumexp(0).argmax())]
    assert not result.zero_shot


def test_questions_with_different_numbers_of_choices_are_served_together(tiny):
    requests = [
        QuestionRequest(random_tokens(k, seed=k), "what?", tuple("abcdef"[:k])) for k in (2, 5, 1)
    ]

    results = tiny.choose_all(requests)

    assert [result.clip_logits.shape for result in results] == [(2, 2), (5, 5), (1, 1)]
    for request, result in zip(requests, results, strict=True):
        (alone,) = tiny.choose_all([request])
        assert_close(result.clip_logits, alone.clip_logits, **CLOSE)


def test_a_question_without_choices_is_refused(tiny):
    with pytest.raises(ValueError, match="at least one choice"):
        tiny.choose_all([QuestionRequest(random_tokens(1), "what?")])


def test_a_model_without_a_head_says_so(tmp_path):
    config = dataclasses.replace(ClipBertConfig.preset("clipbert-tiny"), heads=(), answers=())
    model = model_of(config, tmp_path)
    question = QuestionRequest(random_tokens(1), "what?", ("a", "b"))

    with pytest.raises(MissingHead, match="retrieval"):
        model.score_all([MatchRequest(random_tokens(1), "x")])
    with pytest.raises(MissingHead, match="qa"):
        model.answer_all([question])
    with pytest.raises(MissingHead, match="multiple_choice"):
        model.choose_all([question])
    with pytest.raises(MissingHead, match="recall"):
        model.encode_texts(["x"])


def test_heads_are_there_before_they_are_trained(tiny):
    assert tiny.has_head("retrieval")
    assert not tiny.has_trained_head("retrieval")
    assert not tiny.has_head("counting")
    assert tiny.recall_dim is None


def test_a_folder_without_a_tokenizer_is_refused(tiny_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_folder / name).read_bytes())

    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        ClipBert.for_serving(tmp_path)


def test_bfloat16_gives_nearly_the_same_scores(tiny, tiny_folder):
    halved = ClipBert.for_serving(tiny_folder, dtype=torch.bfloat16)

    for low, full in zip(halved.score_all(MATCHES), tiny.score_all(MATCHES), strict=True):
        assert low.clip_logits.dtype == torch.float32
        assert low.score == pytest.approx(full.score, abs=0.02)


def test_bfloat16_is_chosen_on_a_gpu():
    assert default_dtype("cuda:0") == torch.bfloat16
    assert default_dtype("cpu") in {torch.float32, torch.bfloat16}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_nearly_the_scores_of_the_cpu(tiny, tiny_folder):
    gpu = ClipBert.for_serving(tiny_folder, device="cuda")
    clips = random_clips(3)

    for one, other in zip(gpu.score_all(MATCHES), tiny.score_all(MATCHES), strict=True):
        assert one.score == pytest.approx(other.score, abs=0.02)
    tokens, expected = gpu.encode_clips(clips).tokens.float(), tiny.encode_clips(clips).tokens
    assert_close(tokens, expected.float(), rtol=0, atol=0.05 * float(expected.abs().max()))


def test_the_tokens_of_a_video_are_held_once_for_all_its_texts(tiny):
    tokens = torch.randn(3, 2, 2, 48).half()
    texts = ["a dog", "a cat on a mat"]

    together = tiny.score_all([MatchRequest(tokens, text) for text in texts])

    for text, result in zip(texts, together, strict=True):
        alone = tiny.score_all([MatchRequest(tokens.clone(), text)])[0]
        torch.testing.assert_close(result.clip_logits, alone.clip_logits, atol=1e-5, rtol=0)


def test_tokens_that_float16_cannot_hold_are_said():
    model = ClipBert.create(ClipBertConfig.preset("clipbert-tiny"), seed=0).eval()
    model.network.grid_encoder.conv.weight.data *= 1e6

    with pytest.raises(CheckpointError, match="too large for float16"):
        model.encode_clips([np.full((1, 64, 64, 3), 200, dtype=np.uint8)])


def test_a_process_that_answers_loads_no_more_than_torch(tmp_path):
    folder = tmp_path / "mini-eyed"
    eyes = ClipBertConfig.preset("clipbert-mini").backbone
    config = dataclasses.replace(ClipBertConfig.preset("clipbert-tiny"), backbone=eyes)
    ClipBert.create(config, seed=1).save_pretrained(folder)
    program = f"""
import sys, numpy
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.requests import MatchRequest
model = ClipBert.for_serving({str(folder)!r})
encoded = model.encode_clips([numpy.zeros((1, 64, 64, 3), numpy.uint8)])
matches = model.score_all([MatchRequest(encoded.tokens, "a dog")])
unneeded = {{"torchvision", "timm", "transformers", "accelerate", "torch._dynamo", "sympy"}}
print(len(matches), *unneeded & set(sys.modules))
"""

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == ["1"], done.stderr
