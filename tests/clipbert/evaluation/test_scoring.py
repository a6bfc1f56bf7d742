"""Scores of each line: by a model from stored tokens and from videos, and by the baselines."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from token_corpus import ANSWERS, write_tokens

from clipbert.datasets.annotation_files import read_annotations
from clipbert.datasets.media_folder import MediaFolder
from clipbert.datasets.token_folder import TokenFolder, choose_clips
from clipbert.datasets.token_index import write_index
from clipbert.errors import AnnotationError, MissingHead, NothingToEvaluate
from clipbert.evaluation import scoring
from clipbert.evaluation.majority import score_majority
from clipbert.evaluation.recall_scores import score_by_recall
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.requests import MatchRequest, QuestionRequest
from clipbert.model.config import ClipBertConfig, HeadConfig
from clipbert.training import score

HELD_OUT = [1, 5, 9, 13, 17, 21]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """clipbert-tiny with all heads, whose logits are far from each other."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    heads = (HeadConfig("qa", 3), HeadConfig("retrieval", 2), HeadConfig("multiple_choice", 1))
    config = dataclasses.replace(
        ClipBertConfig.preset("clipbert-tiny"),
        heads=heads,
        trained_heads=("qa", "retrieval", "multiple_choice"),
        answers=ANSWERS,
    )
    model = ClipBert.create(config, seed=3)
    with torch.no_grad():
        for part in (model.network.cross_encoder, model.network.heads):
            for weight in part.parameters():
                weight.mul_(8 if weight.ndim > 1 else 1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return ClipBert.for_serving(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory, folder):
    return write_tokens(tmp_path_factory.mktemp("tokens"), ClipBertConfig.from_folder(folder))


def held_out(tokens, task: str):
    file = read_annotations(tokens.labels[task])
    return [each for each in file.annotations if each.split == "holdout"]


def test_each_question_is_scored_as_the_model_answers_it(model, tokens):
    stored = TokenFolder(tokens.folder)

    scores = scoring.score_model(
        model, tokens.labels["qa"], task="qa", split="holdout", media=stored, num_clips=2
    )

    rows = choose_clips(range(4), 2, plan="segments", generator=None)
    wanted = {}
    for each in held_out(tokens, "qa"):
        request = QuestionRequest(stored.read(each.video, rows), each.text)
        answer = model.answer_all([request], top_k=1)[0].answers[0].answer
        wanted[each.line] = float(answer == each.answer)
    assert scores.of_line == wanted
    assert list(scores.of_line) == HELD_OUT
    assert scores.to_json()["metrics"]["accuracy"] == pytest.approx(sum(wanted.values()) / 6)


def test_a_caption_is_scored_by_whether_its_video_comes_first(model, tokens):
    stored = TokenFolder(tokens.folder)

    scores = scoring.score_model(
        model, tokens.labels["retrieval"], task="retrieval", split="holdout", media=stored
    )

    lines = held_out(tokens, "retrieval")
    wanted = {}
    for each in lines:
        requests = [MatchRequest(stored.read(other.video, range(4)), each.text) for other in lines]
        matches = [result.score for result in model.score_all(requests)]
        wanted[each.line] = float(lines[matches.index(max(matches))].video == each.video)
    assert scores.of_line == wanted
    told = scores.to_json()
    assert told["metric"] == "r1"
    assert set(told["metrics"]) == {"r1", "r5", "r10", "median_rank", "mean_rank"}
    assert told["metrics"]["r10"] == 1.0


def test_choices_are_scored(model, tokens):
    scores = scoring.score_model(
        model,
        tokens.labels["multiple_choice"],
        task="multiple_choice",
        split="holdout",
        media=TokenFolder(tokens.folder),
    )

    assert list(scores.of_line) == HELD_OUT
    assert set(scores.of_line.values()) <= {0.0, 1.0}


def test_videos_are_scored_without_tokens_too(model, corpus):
    data = corpus.files["retrieval"].with_name("few.jsonl")
    lines = [json.loads(line) for line in corpus.files["retrieval"].read_text().splitlines()[:6]]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))

    scores = scoring.score_model(
        model, data, task="retrieval", split=None, media=MediaFolder(corpus.videos)
    )

    assert list(scores.of_line) == [1, 2, 3, 4, 5, 6]


def test_lines_of_unusable_videos_score_nothing_and_are_counted(tmp_path, model, tokens):
    stored = TokenFolder(tokens.folder)
    videos = {name: video for name, video in stored.videos.items() if name != "v08"}
    write_index(tmp_path, videos.items())

    for task in ("qa", "retrieval"):
        scores = scoring.score_model(
            model,
            tokens.labels[task],
            task=task,
            split="holdout",
            media=TokenFolder(tmp_path),
        )

        assert list(scores.of_line) == HELD_OUT
        assert scores.of_line[9] == 0.0
        assert scores.to_json()["unusable"] == 1
        assert scores.unusable == {"tokens_unusable": 1}


def test_without_any_usable_video_there_are_no_scores(tmp_path, model, tokens):
    write_index(tmp_path, {}.items())

    with pytest.raises(NothingToEvaluate, match="none of 6 videos can be used"):
        scoring.score_model(
            model,
            tokens.labels["qa"],
            task="qa",
            split="holdout",
            media=TokenFolder(tmp_path),
        )


def test_a_repeated_caption_counts_on_each_of_its_lines(tmp_path, model, tokens):
    lines = tokens.labels["retrieval"].read_text().splitlines()
    data = tmp_path / "twice.jsonl"
    data.write_text("\n".join([*lines, lines[0]]))

    scores = scoring.score_model(
        model, data, task="retrieval", split="holdout", media=TokenFolder(tokens.folder)
    )

    assert list(scores.of_line) == [*HELD_OUT, 25]
    assert scores.of_line[25] == scores.of_line[1]


def test_parts_of_a_video_are_looked_at_by_themselves(tmp_path, model, tokens):
    data = tmp_path / "parts.jsonl"
    line = {"video": "v00", "question": "what colour is it?", "answer": "red"}
    parts = [line | {"start_seconds": 0.0, "end_seconds": 2.0}, line | {"start_seconds": 6.0}, line]
    data.write_text("".join(json.dumps(part) + "\n" for part in parts))
    seen = []

    scores = scoring.score_model(
        model,
        data,
        task="qa",
        split=None,
        media=TokenFolder(tokens.folder),
        tell=lambda done, total: seen.append((done, total)),
    )

    stored = TokenFolder(tokens.folder)
    for number, rows in ((1, [0]), (2, [3]), (3, [0, 1, 2, 3])):
        request = QuestionRequest(stored.read("v00", rows), line["question"])
        right = model.answer_all([request])[0].answers[0].answer == "red"
        assert scores.of_line[number] == float(right)
    assert seen[-1] == (3, 3)


def test_many_videos_are_seen_through_fewer_clips_in_retrieval(model, monkeypatch, tokens):
    monkeypatch.setattr(scoring, "_MOST_PAIRS", 6 * 6 * 3)

    scores = scoring.score_model(
        model,
        tokens.labels["retrieval"],
        task="retrieval",
        split="holdout",
        media=TokenFolder(tokens.folder),
    )

    assert scores.num_clips == 3


def test_the_majority_answers_what_training_lines_say_most(tmp_path):
    data = tmp_path / "labels.jsonl"
    answers = [("red", "train"), ("blue", "train"), ("blue", "train"), ("red", "holdout")]
    answers += [("blue", "holdout")]
    lines = [
        {"video": "v", "question": "?", "answer": answer, "split": split}
        for answer, split in answers
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))

    scores = score_majority(data, split="holdout")

    assert scores.of_line == {4: 0.0, 5: 1.0}
    assert scores.to_json()["metrics"] == {"accuracy": 0.5}


def test_the_majority_is_scored_without_loading_torch(tmp_path):
    data, out = tmp_path / "labels.jsonl", tmp_path / "out.json"
    lines = [
        {"video": "v", "question": "?", "answer": "red", "split": split}
        for split in ("train", "holdout")
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["--data", str(data), "--split", "holdout", "--task", "qa", "--supervised"]
    program = (
        "import sys\n"
        "from clipbert.training import score\n"
        f"status = score.main({[*arguments, '--baseline', 'majority', '--out', str(out)]})\n"
        "sys.exit(status or 'torch' in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", program], check=True)

    assert json.loads(out.read_text())["metrics"] == {"accuracy": 1.0}


def test_the_majority_needs_training_lines(tmp_path):
    data = tmp_path / "labels.jsonl"
    line = {"video": "v", "question": "?", "answer": "red", "split": "holdout"}
    data.write_text(json.dumps(line))

    with pytest.raises(AnnotationError, match="has no line of the split 'train'"):
        score_majority(data, split="holdout")


class Texts:
    """Gives texts the vectors of the colour that they name."""

    def encode_texts(self, texts):
        return torch.stack(
            [
                torch.eye(3)[next(row for row, answer in enumerate(ANSWERS) if answer in text)]
                for text in texts
            ]
        )


def test_recall_vectors_choose_and_rank(tokens):
    stored = TokenFolder(tokens.folder)
    choices, captions = held_out(tokens, "multiple_choice"), held_out(tokens, "retrieval")
    vectors = {each.video: stored.read_vectors(each.video, range(4)) for each in captions}

    chosen = score_by_recall(Texts(), "multiple_choice", annotations=choices, vectors=vectors)
    ranked = score_by_recall(Texts(), "retrieval", annotations=captions, vectors=vectors)

    assert chosen.of_line == dict.fromkeys(HELD_OUT, 1.0)
    # Of each colour two videos are held out; equal scores are ranked by name.
    assert ranked.of_line == {1: 1.0, 5: 1.0, 9: 1.0, 13: 0.0, 17: 0.0, 21: 0.0}
    assert ranked.ranks.recall_at_5 == 100


def test_a_model_without_recall_vectors_is_no_baseline(model, tokens):
    with pytest.raises(MissingHead, match="recall"):
        scoring.score_recall(
            model,
            tokens.labels["retrieval"],
            task="retrieval",
            split="holdout",
            tokens=TokenFolder(tokens.folder),
        )


@pytest.mark.slow
def test_the_program_writes_scores_and_progress(tmp_path, folder, tokens):
    out = tmp_path / "scores" / "candidate.json"

    ended = run_program(tokens, out, "--model", str(folder), "--supervised")

    assert ended.returncode == 0, ended.stderr
    scores = json.loads(out.read_text())
    assert [example["line"] for example in scores["examples"]] == HELD_OUT
    assert scores["num_examples"] == 6
    progress = json.loads((out.parent / "progress.json").read_text())
    assert (progress["stage"], progress["step"], progress["total_steps"]) == ("done", 6, 6)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "no model is given"),
        (["--baseline", "majority", "--task", "retrieval"], "the majority baseline is for qa"),
        (["--model", "nowhere"], "no config.json in nowhere"),
    ],
)
def test_what_cannot_be_scored_is_told_by_a_file(tmp_path, tokens, options, problem, monkeypatch):
    monkeypatch.setattr(score, "run_supervised", in_this_process(score.run_supervised))

    status = score.main(arguments_of(tokens, tmp_path / "out.json", *options))

    assert status == 1
    assert problem in json.loads((tmp_path / "error.json").read_text())["message"]
    assert not (tmp_path / "out.json").exists()


def in_this_process(run_supervised):
    """Leave the test's own SIGTERM as it is."""

    def run(work, **settings):
        import signal

        before = signal.getsignal(signal.SIGTERM)
        try:
            return run_supervised(work, **settings)
        finally:
            signal.signal(signal.SIGTERM, before)

    return run


def arguments_of(tokens, out: Path, *options: str) -> list[str]:
    return [
        f"--data={tokens.labels['qa']}",
        "--split=holdout",
        "--task=qa",
        f"--tokens={tokens.folder}",
        f"--out={out}",
        "--device=cpu",
        *options,
    ]


def run_program(tokens, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clipbert.training.score", *arguments_of(tokens, out, *options)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
