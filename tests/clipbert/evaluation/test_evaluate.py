"""Evaluation of a random model on a generated corpus, against straight loops over everything."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from corpus import write_corpus, write_lines
from videos import cut

from clipbert.datasets.annotation_files import read_annotations
from clipbert.datasets.media_folder import MediaFolder
from clipbert.errors import CheckpointError, NothingToEvaluate
from clipbert.evaluation.evaluate import choose_plan, evaluate
from clipbert.evaluation.evaluator_builder import build_evaluator
from clipbert.evaluation.score_store import ScoreStore
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.clips import decode_clips
from clipbert.model.config import ClipBertConfig, HeadConfig
from clipbert.model.network import Network
from clipbert.model.pixels import clips_to_pixels
from clipbert.model.text import TextTokenizer
from clipbert.sampling.plan import SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import probe_video

pytestmark = pytest.mark.slow

PLAN = SamplingPlan("segments", num_clips=2)
TOKENIZER = TextTokenizer.from_characters()
ANSWERS = ("red", "green", "one", "two", "three", "yes")  # not blue
HEADS = (
    HeadConfig("retrieval", 2),
    HeadConfig("qa", len(ANSWERS)),
    HeadConfig("multiple_choice", 1),
    HeadConfig("count", 1),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def media(corpus):
    return MediaFolder(corpus.videos)


@pytest.fixture(scope="module")
def network():
    """Wide weights, so that the scores of different texts and videos are far apart."""
    config = dataclasses.replace(
        ClipBertConfig.preset("clipbert-tiny"), heads=HEADS, answers=ANSWERS
    )
    network = Network.create(config, seed=0).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim == 2 and not name.startswith(("backbone.", "grid_encoder.")):
                weight.mul_(8)
    return network


@pytest.fixture
def model(network):
    return ClipBert(network, TOKENIZER)


@pytest.fixture(scope="module")
def tokens(network, corpus):
    """Visual tokens of each video, straight from the model; a clip's are float16 wherever kept."""
    config, found = network.config, {}
    for scene in corpus.scenes:
        path = corpus.videos / f"{scene.name}.mp4"
        pixels = clips_to_pixels(
            decode_clips(path, plan_clips(probe_video(path), PLAN)),
            max_side_px=config.max_side_px,
            mean=config.mean,
            std=config.std,
            channel_order=config.channel_order,
        )
        with torch.inference_mode():
            found[scene.name] = network.encode_pixels(pixels).half().float()  # (K, h, w, D)
    return found


def straight_logits(network, clips, text, head):
    """Let one text meet each clip of a video, one after the other: K lists of C numbers."""
    ids, mask = TOKENIZER.encode([text], max_length=network.config.max_text_tokens)
    with torch.inference_mode():
        return [network(ids, mask, clip[None], head=head)[0].tolist() for clip in clips]


def log_sum_exp(logits):
    """The video's logit of each class."""
    return [
        math.log(sum(math.exp(value) for value in column)) for column in zip(*logits, strict=True)
    ]


def probability_of_match(logits):
    no_match, match = log_sum_exp(logits)
    return 1 / (1 + math.exp(no_match - match))


def rank(scores, right):
    """The place of an item among descending scores, from 1; of equals the earlier is first."""
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], item))
    return order.index(right) + 1


def run(model, file, media, *, store=None):
    evaluator = build_evaluator(file, config=model.config)
    return evaluate(model, evaluator, media=media, plan=PLAN, store=store)


@pytest.fixture(scope="module")
def one_caption(corpus, tmp_path_factory):
    """One caption for each of the 50 videos, as in MSRVTT's test set."""
    lines = [{"caption": scene.caption, "clip_name": scene.name} for scene in corpus.scenes]
    path = tmp_path_factory.mktemp("data") / "retrieval.jsonl"
    return read_annotations(write_lines(path, lines))


@pytest.fixture(scope="module")
def straight_scores(network, corpus, tokens):
    """P(match) of every caption (row) with every video (column), one pair at a time."""
    return [
        [
            probability_of_match(
                straight_logits(network, tokens[video.name], scene.caption, "retrieval")
            )
            for video in corpus.scenes
        ]
        for scene in corpus.scenes
    ]


def check_retrieval(metrics, scores):
    """Compare both directions with ranks from a score matrix whose diagonal is right."""
    size = len(scores)
    columns = [[scores[row][column] for row in range(size)] for column in range(size)]
    for found, lists in ((metrics.text_to_video, scores), (metrics.video_to_text, columns)):
        ranks = [rank(lists[item], item) for item in range(size)]
        for k, recall in ((1, "recall_at_1"), (5, "recall_at_5"), (10, "recall_at_10")):
            hits = sum(place <= k for place in ranks)
            assert getattr(found, recall) == pytest.approx(100 * hits / size)
        assert found.median_rank == np.median(ranks)
        assert found.mean_rank == pytest.approx(sum(ranks) / size)
        assert found.num_queries == size


def test_retrieval_is_what_straight_loops_find(
    model, one_caption, media, straight_scores, tmp_path
):
    store = ScoreStore(tmp_path, {}, resume=True)

    evaluation = run(model, one_caption, media, store=store)

    stored = [store.read(line.video, media.find(line.video)) for line in one_caption.annotations]
    expected = np.array(straight_scores)
    own = np.diag(expected)
    distances = np.concatenate([expected - own, expected - own[:, None]])
    closest = np.abs(distances)[~np.tile(np.eye(50, dtype=bool), (2, 1))].min()
    # Or the ranks below might be right by chance.
    assert np.abs(np.stack(stored, axis=1) - expected).max() < closest / 2
    assert expected.max() - expected.min() > 0.1
    check_retrieval(evaluation.metrics, straight_scores)
    assert (evaluation.num_videos, evaluation.num_annotations, evaluation.num_evaluated) == (
        50,
        50,
        50,
    )
    assert (evaluation.num_clips, evaluation.num_pairs) == (100, 100 * 50)


def test_missing_and_broken_videos_leave_the_ranking_and_are_reported(
    model, one_caption, corpus, straight_scores, tmp_path
):
    for path in corpus.videos.iterdir():
        if path.stem not in ("video03", "video07"):
            (tmp_path / path.name).symlink_to(path)
    cut(corpus.videos / "video07.mp4", tmp_path / "video07.mp4", share=0.5)

    evaluation = run(model, one_caption, MediaFolder(tmp_path))

    kept = [index for index in range(50) if index not in (3, 7)]
    check_retrieval(
        evaluation.metrics, [[straight_scores[row][column] for column in kept] for row in kept]
    )
    found = [(each.name, each.code, each.num_annotations) for each in evaluation.unusable]
    assert found == [("video03", "media_not_found", 1), ("video07", "truncated_media", 1)]
    assert "video07" in evaluation.unusable[1].reason
    assert (evaluation.num_annotations, evaluation.num_evaluated) == (50, 48)


def test_repeated_lines_are_dropped_and_every_caption_of_a_video_is_right(
    model, corpus, media, tmp_path
):
    scenes = corpus.scenes[:6]
    lines = [{"caption": scene.caption, "clip_name": scene.name} for scene in scenes]
    others = [{"caption": f"a {scene.color} thing", "clip_name": scene.name} for scene in scenes]
    whole = read_annotations(write_lines(tmp_path / "a.jsonl", [*lines, *others]))
    repeated = read_annotations(
        write_lines(tmp_path / "b.jsonl", [*lines, lines[2], *others, *others])
    )

    evaluator = build_evaluator(repeated, config=model.config)
    evaluation = evaluate(model, evaluator, media=media, plan=PLAN)

    assert evaluator.num_repeated == 7
    assert [each.line for each in evaluator.annotations] == [1, 2, 3, 4, 5, 6, *range(8, 14)]
    assert evaluation.metrics == run(model, whole, media).metrics
    assert evaluation.metrics.text_to_video.num_queries == 12
    assert evaluation.metrics.video_to_text.num_queries == 6


def test_equal_scores_are_told_apart_by_the_names_of_videos_and_the_lines_of_captions(
    network, corpus, media, tmp_path
):
    indifferent = Network.create(network.config, seed=0).eval()
    with torch.no_grad():
        indifferent.heads["retrieval"].output.weight.zero_()
    model = ClipBert(indifferent, TOKENIZER)
    videos = [4, 4, 4, 0, 3, 1, 2]  # of the lines
    lines = [{"caption": f"c{n}", "clip_name": f"video0{v}"} for n, v in enumerate(videos)]
    file = read_annotations(write_lines(tmp_path / "a.jsonl", lines))

    metrics = run(model, file, media).metrics

    assert metrics.text_to_video.mean_rank == pytest.approx((5 + 5 + 5 + 1 + 4 + 2 + 3) / 7)
    assert metrics.video_to_text.mean_rank == pytest.approx((1 + 4 + 5 + 6 + 7) / 5)


def test_open_ended_answers_are_what_straight_loops_find(model, network, corpus, media, tokens):
    file = read_annotations(corpus.files["msrvtt_qa"])

    evaluator = build_evaluator(file, config=network.config)
    evaluation = evaluate(model, evaluator, media=media, plan=PLAN)

    right = {"what": [], "how": []}
    for line in file.annotations:
        logits = log_sum_exp(straight_logits(network, tokens[line.video], line.text, "qa"))
        right[line.answer_type].append(ANSWERS[logits.index(max(logits))] == line.answer)
    metrics = evaluation.metrics
    assert metrics.num_questions == 100
    assert metrics.overall == pytest.approx(sum(right["what"]) + sum(right["how"]))
    assert metrics.by_type == {kind: pytest.approx(2 * sum(part)) for kind, part in right.items()}
    assert 0 < metrics.overall < 100
    assert evaluator.num_unknown_answers == sum(s.color == "blue" for s in corpus.scenes)
    # The CNN ran once for both questions of a video.
    assert (evaluation.num_clips, evaluation.num_pairs) == (100, 200)


def test_soft_labels_give_the_score_of_the_given_answer(model, corpus, tmp_path):
    lines = [
        {
            "question": "what color is it?",
            "image_id": scene.picture,
            "question_id": number,
            "labels": {ANSWERS[number % 6]: 1, ANSWERS[(number + 1) % 6]: 0.3},
        }
        for number, scene in enumerate(corpus.scenes)
    ]
    file = read_annotations(write_lines(tmp_path / "vqa.jsonl", lines))
    pictures = MediaFolder(corpus.images)

    evaluation = run(model, file, pictures)

    answers = model_answers(model, file, pictures)
    scores = [line.answer_scores.get(answers[line.video], 0) for line in file.annotations]
    assert evaluation.metrics.overall == pytest.approx(100 * sum(scores) / 50)
    assert {0, 0.3, 1} == set(scores)
    assert evaluation.num_clips == 50  # a picture is one clip


def model_answers(model, file, pictures):
    """What the model says about pictures, each alone."""
    answers = {}
    for line in file.annotations:
        path = pictures.find(line.video)
        frames = decode_clips(path, plan_clips(probe_video(path), SamplingPlan(num_clips=1)))
        tokens = model.encode_clips(frames).tokens.float()
        logits = straight_logits(model.network, tokens, line.text, "qa")[0]
        answers[line.video] = ANSWERS[logits.index(max(logits))]
    return answers


@pytest.mark.parametrize(
    ("kind", "head"), [("tgif_action", "multiple_choice"), ("msrvtt_mc", "retrieval")]
)
def test_choices_are_what_straight_loops_find(model, corpus, media, tokens, *, kind, head):
    file = read_annotations(corpus.files[kind])
    network = model.network

    evaluator = build_evaluator(file, config=network.config)
    evaluation = evaluate(model, evaluator, media=media, plan=PLAN)

    right = []
    for line in file.annotations:
        scores = []
        for choice in line.choices:
            text = f"{line.text} {choice}" if line.text else choice
            logits = straight_logits(network, tokens[line.video], text, head)
            scores.append(
                probability_of_match(logits) if head == "retrieval" else log_sum_exp(logits)[0]
            )
        right.append(scores.index(max(scores)) == line.right_choice)
    assert evaluator.head == head
    assert evaluation.metrics.overall == pytest.approx(100 * sum(right) / 50)
    assert 0 < sum(right) < 50
    assert evaluation.num_pairs == 50 * 5 * 2


def test_counts_are_the_mean_of_the_clips_numbers(model, network, corpus, media, tokens):
    file = read_annotations(corpus.files["tgif_count"])

    evaluation = run(model, file, media)

    numbers = []
    for line in file.annotations:
        clips = straight_logits(network, tokens[line.video], line.text, "count")
        numbers.append(sum(number for (number,) in clips) / len(clips))
    wanted = [line.count for line in file.annotations]
    told = [min(max(int(number + 0.5), 1), 10) for number in numbers]
    metrics = evaluation.metrics
    assert metrics.accuracy == pytest.approx(2 * sum(map(int.__eq__, told, wanted)))
    assert metrics.raw_mean_squared_error == pytest.approx(
        sum((a - b) ** 2 for a, b in zip(numbers, wanted, strict=True)) / 50, rel=1e-3
    )


class InterruptedClipBert(ClipBert):
    """Is interrupted when it is to encode one video too many."""

    num_encoded, most_encoded = 0, 10**9

    def encode_clips(self, clips):
        if self.num_encoded == self.most_encoded:
            raise KeyboardInterrupt
        self.num_encoded += 1
        return super().encode_clips(clips)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_result(
    network, model, one_caption, media, tmp_path
):
    whole = run(model, one_caption, media)
    first = InterruptedClipBert(network, TOKENIZER)
    first.most_encoded = 20
    with pytest.raises(KeyboardInterrupt):
        run(first, one_caption, media, store=ScoreStore(tmp_path, {"a": 1}, resume=True))

    second = InterruptedClipBert(network, TOKENIZER)
    resumed = run(second, one_caption, media, store=ScoreStore(tmp_path, {"a": 1}, resume=True))
    again = run(second, one_caption, media, store=ScoreStore(tmp_path, {"a": 1}, resume=True))

    assert second.num_encoded == 30
    assert (resumed.num_resumed, again.num_resumed) == (20, 50)
    assert (again.num_clips, again.num_pairs) == (0, 0)
    assert resumed.metrics == again.metrics == whole.metrics


def test_progress_ends_where_everything_is_done(model, corpus, media):
    file = read_annotations(corpus.files["retrieval"])
    evaluator = build_evaluator(file, config=model.config, limit=4)  # of two videos
    seen = []

    evaluate(model, evaluator, media=media, plan=PLAN, progress=seen.append)

    assert [each.done_texts for each in seen] == [0, 4, 4, 8, 8]
    assert [each.done_videos for each in seen] == [0, 0, 1, 1, 2]
    assert (seen[-1].total_texts, seen[-1].total_videos, seen[-1].num_pairs) == (8, 2, 16)


def test_there_must_be_something_to_evaluate(model, one_caption, tmp_path):
    with pytest.raises(NothingToEvaluate, match=r"none of 50 videos .* video00"):
        run(model, one_caption, MediaFolder(tmp_path))


def test_numbers_that_are_not_finite_are_an_error_not_a_figure(network, corpus, media):
    broken = Network.create(network.config, seed=1).eval()
    with torch.no_grad():
        broken.heads["qa"].output.bias[2] = math.nan
    model = ClipBert(broken, TOKENIZER)

    with pytest.raises(CheckpointError, match="qa logits for video00 are not finite"):
        run(model, read_annotations(corpus.files["msrvtt_qa"]), media)


def test_the_models_plan_is_taken_with_sixteen_clips():
    own = SamplingPlan("authors", num_clips=8, frames_per_clip=2, seconds_per_clip=4.0)
    config = dataclasses.replace(ClipBertConfig.preset("clipbert-tiny"), plan=own)

    assert choose_plan(config, head="qa") == SamplingPlan(
        "authors", num_clips=16, frames_per_clip=2
    )
    assert choose_plan(config, head="qa", name="segments", num_clips=300, frames_per_clip=1) == (
        SamplingPlan("segments", num_clips=300, max_clips=300)
    )


@pytest.mark.parametrize(
    ("head", "strategy"),
    [("retrieval", "middle"), ("qa", "clips"), ("multiple_choice", "clips")],
)
def test_a_single_clip_of_the_authors_plan_is_that_of_their_code(head, strategy):
    config = ClipBertConfig.preset("clipbert-tiny")

    plan = choose_plan(config, head=head, name="authors", num_clips=1)

    assert plan.strategy == strategy


def test_more_frames_than_the_model_tells_apart_are_refused():
    config = dataclasses.replace(ClipBertConfig.preset("clipbert-tiny"), frame_positions=2)

    with pytest.raises(ValueError, match="frames_per_clip is 3"):
        choose_plan(config, head="qa", frames_per_clip=3)


def test_parts_of_a_video_are_each_looked_at_by_themselves(tmp_path, model, corpus):
    line = {"video": corpus.scenes[0].name, "question": "what color is it?", "answer": "red"}
    parts = [line | {"end_seconds": 0.5}, line | {"start_seconds": 1.0}, line, line]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(part) + "\n" for part in parts))

    evaluation = run(model, read_annotations(path), MediaFolder(corpus.videos))

    assert (evaluation.num_videos, evaluation.num_evaluated) == (3, 4)
    assert list(evaluation.line_scores) == [3, 4, 2, 1]
    assert evaluation.unusable == ()


def test_a_part_after_the_end_cannot_be_looked_at(tmp_path, model, corpus):
    line = {"video": corpus.scenes[0].name, "question": "what color is it?", "answer": "red"}
    path = tmp_path / "labels.jsonl"
    path.write_text(f"{json.dumps(line)}\n{json.dumps(line | {'start_seconds': 60.0})}\n")

    evaluation = run(model, read_annotations(path), MediaFolder(corpus.videos))

    assert evaluation.num_evaluated == 1
    assert [(each.name, each.code) for each in evaluation.unusable] == [
        (f"{line['video']} from 60.0 s", "outside_video")
    ]
