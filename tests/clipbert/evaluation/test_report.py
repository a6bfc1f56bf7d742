import json
from pathlib import Path

import pytest

from clipbert.evaluation.evaluate import Evaluation, UnusableVideo
from clipbert.evaluation.evaluators import RetrievalReport
from clipbert.evaluation.metrics import CountMetrics, GroupedScore, RetrievalMetrics
from clipbert.evaluation.report import (
    EvaluationSettings,
    hash_model,
    to_json,
    to_markdown,
    to_table,
    write_results,
)
from clipbert.sampling.plan import SamplingPlan

RETRIEVAL = RetrievalReport(
    RetrievalMetrics(25.0, 50.0, 62.5, 5.5, 17.25, 40), RetrievalMetrics(30.0, 55.0, 70.0, 4, 9, 38)
)
ACCURACY = GroupedScore(40.0, {"how": 25.0, "what": 50.0}, 10, {"how": 4, "what": 6})
COUNT = CountMetrics(30.0, 4.5, 4.25, 10)


class FakeAssessment:
    """As much of an evaluator as a report reads."""

    num_repeated, num_unknown_answers = 2, 3


def evaluation(metrics):
    return Evaluation(
        metrics=metrics,
        line_scores={},
        num_annotations=16,
        num_evaluated=10,
        num_videos=8,
        unusable=(UnusableVideo("v7", "decode_failed", "it is broken", 6),),
        num_resumed=1,
        num_clips=12,
        num_pairs=60,
        seconds=9.0,
        encoding_seconds=2.0,
        scoring_seconds=4.0,
    )


def settings(kind, task):
    return EvaluationSettings(
        model=Path("models/ours"),
        model_sha256={"config.json": "ab"},
        data=Path("data/test.jsonl"),
        data_sha256="cd",
        videos=Path("videos"),
        kind=kind,
        task=task,
        head=task,
        head_is_trained=True,
        plan=SamplingPlan("authors", num_clips=16, frames_per_clip=2),
        aggregation="lse",
        device="cuda:1",
        device_name="a GPU",
        dtype="bfloat16",
        split=None,
        limit=16,
        authors_rounding=False,
    )


def test_retrieval_stands_beside_the_papers_figures():
    markdown = to_markdown(settings("retrieval", "retrieval"), evaluation(RETRIEVAL))

    assert markdown.splitlines() == [
        "| run | R@1 | R@5 | R@10 | MdR |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| ours on test.jsonl, authors 16 x 2, 10 of 16 | 25.0 | 50.0 | 62.5 | 5.5 |",
        "| paper: MSRVTT 1k-A, 8 x 2 | 22.0 | 46.8 | 59.9 | 6 |",
        "| paper: DiDeMo, 8 x 2 | 20.4 | 48.0 | 60.8 | 6 |",
        "| paper: ActivityNet Captions, 4 x 2 | 21.3 | 49.0 | 63.5 | 6 |",
    ]


@pytest.mark.parametrize(
    ("kind", "metrics", "rows"),
    [
        ("msrvtt_qa", ACCURACY, ["| 40.00 |", "| 37.4 |"]),
        ("tgif_choice", ACCURACY, ["| 40.00 |", "| 82.8 |", "| 87.8 |"]),
        ("tgif_count", COUNT, ["| 30.00 | 4.500 |"]),
        ("labels", ACCURACY, ["| 40.00 |"]),
    ],
)
def test_other_tasks_stand_beside_what_the_paper_has_of_them(kind, metrics, rows):
    lines = to_markdown(settings(kind, "qa"), evaluation(metrics)).splitlines()

    assert len(lines) == 2 + len(rows)
    assert all(line.endswith(row) for line, row in zip(lines[2:], rows, strict=True))


def test_the_table_has_both_directions_or_each_answer_type():
    columns, rows = to_table(evaluation(RETRIEVAL))

    assert columns == ["direction", "R@1#", "R@5#", "R@10#", "MdR#", "MnR#", "queries#"]
    assert rows[0] == ["text to video", "25.0", "50.0", "62.5", "5.5", "17.2", "40"]
    assert rows[1][:2] == ["video to text", "30.0"]
    assert to_table(evaluation(ACCURACY))[1] == [
        ["all", "40.00", "10"],
        ["how", "25.00", "4"],
        ["what", "50.00", "6"],
    ]
    assert to_table(evaluation(COUNT))[1] == [["30.00", "4.500", "4.250", "10"]]


def test_json_has_what_is_needed_to_repeat_the_run(tmp_path):
    results = to_json(settings("msrvtt_qa", "qa"), evaluation(ACCURACY), FakeAssessment())

    write_results(tmp_path / "new", results, markdown="| a |\n")

    read = json.loads((tmp_path / "new" / "results.json").read_text())
    assert read == json.loads(json.dumps(results))
    assert read["plan"] == SamplingPlan("authors", num_clips=16, frames_per_clip=2).to_json()
    assert (read["model"], read["data_sha256"], read["dtype"]) == ("models/ours", "cd", "bfloat16")
    assert read["metrics"]["by_type"] == {"how": 25.0, "what": 50.0}
    assert read["counts"] == {
        "annotations": 16,
        "evaluated": 10,
        "unanswered": 6,
        "repeated": 2,
        "unknown_answers": 3,
        "videos": 8,
        "unusable_videos": 1,
        "resumed_videos": 1,
        "clips": 12,
        "pairs": 60,
    }
    assert (read["clips_per_second"], read["pairs_per_second"]) == (6.0, 15.0)
    assert read["unanswered_as_wrong"] == pytest.approx(25.0)
    assert read["unusable_videos"][0]["reason"] == "it is broken"
    assert (tmp_path / "new" / "results.md").read_text() == "| a |\n"


def test_scores_depend_on_the_kind_of_device_not_on_its_number():
    inputs = settings("msrvtt_qa", "qa").score_inputs()

    assert inputs["device"] == "cuda"
    assert inputs["limit"] == 16
    assert "authors_rounding" not in inputs


def test_a_model_is_known_by_the_content_of_its_files(tmp_path):
    (tmp_path / "config.json").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")

    # The sha256 of nothing.
    assert hash_model(tmp_path) == {
        "config.json": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    }
