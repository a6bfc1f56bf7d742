"""Whole training runs of clipbert-tiny at 64 px, a few steps each."""

import dataclasses
import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader
from trainer_processes import start_ranks, start_trainer
from videos import cut

from clipbert.checkpoints.folder import Checkpoint, load_folder
from clipbert.datasets.annotation_files import read_annotations
from clipbert.datasets.media_folder import MediaFolder
from clipbert.errors import AnnotationError, CheckpointError, ConfigError, TrainingDiverged
from clipbert.evaluation.clips import MediaClips
from clipbert.evaluation.evaluator_builder import build_evaluator
from clipbert.inference.clipbert import ClipBert
from clipbert.model.config import WEIGHTS_FILE, ClipBertConfig, HeadConfig
from clipbert.model.text import TextTokenizer
from clipbert.sampling.plan import SamplingPlan
from clipbert.training.objective import Objective
from clipbert.training.recipe import Recipe, read_recipe
from clipbert.training.run import train
from clipbert.training.run_log import keep_lines, read_metrics
from clipbert.training.run_request import RunRequest
from clipbert.training.starting_model import prepare_model
from clipbert.training.trainer import count_forwards, find_last_checkpoint, plan_steps
from clipbert.training.validation import Validation

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[3]
RECIPES = REPOSITORY / "recipes"
# Each recipe of the paper, and the file of the corpus that it learns from.
FILES = {
    "pretraining": "pretraining",
    "msrvtt_retrieval": "retrieval",
    "didemo_retrieval": "retrieval",
    "activitynet_retrieval": "retrieval",
    "msrvtt_qa": "msrvtt_qa",
    "tgif_action": "tgif_action",
    "tgif_transition": "tgif_transition",
    "tgif_frameqa": "tgif_frameqa",
    "tgif_count": "tgif_count",
    "vqa": "vqa",
}
PICTURES = {"pretraining", "vqa"}
NARROW = (
    "max_side_px=64",
    "max_text_tokens=32",
    "inference_clips=2",
    "log_steps=1",
    "precision=fp32",
    "videos_per_step=4",
    "videos_per_forward=2",
)


def narrow(name: str, *settings: str) -> Recipe:
    """A recipe of the paper, made small."""
    clips = () if name in PICTURES else ("clips=2",)
    return read_recipe(RECIPES / f"{name}.toml").replace([*NARROW, *clips, *settings])


def request_of(corpus, name: str, out: Path, *settings: str, **changes) -> RunRequest:
    request = RunRequest(
        recipe=narrow(name, *settings),
        data=corpus.files[FILES[name]],
        videos=corpus.images if name in PICTURES else corpus.videos,
        out=out,
        preset="clipbert-tiny",
        device="cpu",
        num_workers=0,
    )
    return dataclasses.replace(request, **changes)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / WEIGHTS_FILE)


def assert_same_weights(one: Path, other: Path) -> None:
    theirs = weights(other)
    differing = [name for name, w in weights(one).items() if not torch.equal(w, theirs[name])]
    assert differing == []


def few_lines(corpus, name: str, path: Path, number: int = 4) -> Path:
    """The first lines of different videos."""
    lines = corpus.files[FILES[name]].read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:: 2 if FILES[name] == "retrieval" else 1][:number]))
    return path


@pytest.mark.parametrize("name", FILES)
def test_loss_of_every_recipe_falls(tmp_path, corpus, plain_folder, name):
    request = request_of(
        corpus,
        name,
        tmp_path / "out",
        "steps=14",
        "decay=constant",
        "learning_rate=5e-3",
        "cnn_learning_rate=5e-3",
        "negatives=3",  # what is learned first is that most captions do not match
        data=few_lines(corpus, name, tmp_path / "few.jsonl"),
        model=plain_folder,
        preset=None,
    )

    report = train(request)

    seen = losses(report.folder)
    assert len(seen) == 14
    assert sum(seen[-3:]) / 3 < sum(seen[:3]) / 3 - 0.02
    config = ClipBertConfig.from_folder(report.folder)
    assert config.trained_heads == (request.recipe.task,)
    assert config.plan == request.recipe.inference_plan
    assert ClipBert.for_serving(report.folder).has_trained_head(request.recipe.task)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, corpus):
    """Six steps of two passes each, with dropout, over a third of an epoch."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "out"
    train(request_of(corpus, "msrvtt_qa", out, "steps=6", "checkpoint_steps=2"))
    return out


def test_a_run_stopped_and_resumed_ends_with_the_same_weights(tmp_path, corpus, whole_run):
    request = request_of(corpus, "msrvtt_qa", tmp_path, "steps=6", "checkpoint_steps=2")
    stopped = train(dataclasses.replace(request, max_steps=3))
    assert (stopped.steps, stopped.total_steps) == (3, 6)
    assert losses(tmp_path) == losses(whole_run)[:3]
    # What dropout draws does not hang on a generator's state.
    for path in tmp_path.glob("checkpoints/*/rng_state.pth"):
        path.unlink()

    resumed = train(dataclasses.replace(request, resume=True))

    assert resumed.steps == 6
    assert losses(tmp_path) == losses(whole_run)
    assert_same_weights(tmp_path, whole_run)


def test_resuming_a_finished_run_changes_nothing(corpus, whole_run):
    before, metrics = weights(whole_run), read_metrics(whole_run / "metrics.jsonl")

    report = train(
        request_of(corpus, "msrvtt_qa", whole_run, "steps=6", "checkpoint_steps=2", resume=True)
    )

    assert report.steps == 6
    assert read_metrics(whole_run / "metrics.jsonl") == metrics
    assert all(torch.equal(weight, before[name]) for name, weight in weights(whole_run).items())


def test_a_run_killed_and_resumed_ends_with_the_same_weights(tmp_path, corpus, whole_run):
    arguments = command_line(corpus, tmp_path, "steps=6", "checkpoint_steps=2")
    with start_trainer(*arguments) as running:
        running.wait_for(lambda: find_last_checkpoint(tmp_path / "checkpoints"))
        running.send_signal(signal.SIGKILL)
    assert not (tmp_path / WEIGHTS_FILE).exists()

    with start_trainer(*arguments, "--resume") as running:
        assert running.wait(240) == 0

    assert losses(tmp_path) == losses(whole_run)
    assert_same_weights(tmp_path, whole_run)


def test_two_processes_compute_what_one_does(tmp_path, corpus, plain_folder):
    settings = ("steps=4", "learning_rate=1e-3", "cnn_learning_rate=1e-3")
    one, two = tmp_path / "one", tmp_path / "two"
    train(request_of(corpus, "msrvtt_qa", one, *settings, model=plain_folder, preset=None))

    arguments = command_line(corpus, two, *settings, model=plain_folder)
    first, second = start_ranks(2, *arguments)
    with first, second:
        assert (first.wait(280), second.wait(120)) == (0, 0), first.output() + second.output()

    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    theirs = weights(one)
    for name, weight in weights(two).items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-6, rtol=0.0)


def test_a_killed_process_may_leave_half_a_checkpoint(tmp_path):
    for step, content in ((2, '{"global_step": 2}'), (10, '{"global_step": 10}'), (12, '{"glob')):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(content)
    (tmp_path / "checkpoint-14").mkdir()

    assert find_last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert find_last_checkpoint(tmp_path / "none") is None


def test_the_number_of_checkpoints_is_bounded(whole_run):
    kept = sorted(path.name for path in (whole_run / "checkpoints").iterdir())

    assert kept == ["checkpoint-4", "checkpoint-6"]


def test_checkpoints_hold_the_optimiser_in_full_precision(whole_run):
    state = torch.load(
        whole_run / "checkpoints" / "checkpoint-6" / "optimizer.pt", weights_only=True
    )["state"]

    assert {moment["exp_avg_sq"].dtype for moment in state.values()} == {torch.float32}
    assert {moment["step"] for moment in state.values()} == {6}


def test_metrics_say_where_a_run_is(whole_run):
    lines = read_metrics(whole_run / "metrics.jsonl")

    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    first = lines[0]
    assert first["epoch"] == pytest.approx(4 / 100)
    assert first["transformer_lr"] == first["cnn_lr"] == pytest.approx(5e-5 * 5 / 6, rel=1e-5)
    assert first["gradient_norm"] > 0
    assert first["clips_per_second"] > 0
    assert [line["seconds_left"] for line in lines][-1] == 0


def test_the_folder_tells_how_the_model_was_made(whole_run, corpus):
    card = (whole_run / "README.md").read_text()

    assert read_recipe(whole_run / "recipe.toml") == narrow(
        "msrvtt_qa", "steps=6", "checkpoint_steps=2"
    )
    assert json.loads((whole_run / "run.json").read_text())["data_sha256"] in card
    assert "# CLIPBERT for qa" in card
    assert "6 steps (0.24 epochs)" in card
    assert "| lines learned from | 100 |" in card
    assert f"| loss, step 6 | {losses(whole_run)[-1]:g} |" in card


def test_a_folder_with_a_run_is_not_written_over(corpus, whole_run):
    before = (whole_run / WEIGHTS_FILE).stat().st_mtime_ns

    with pytest.raises(ConfigError, match="is not empty: choose another folder, or --resume"):
        train(request_of(corpus, "msrvtt_qa", whole_run, "steps=6"))

    assert (whole_run / WEIGHTS_FILE).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("learning_rate=1e-2", r"learning_rate is 0\.01: the run in .* began with 5e-05"),
        ("steps=7", "steps is 7: the run in .* began with 6"),
    ],
)
def test_a_run_goes_on_by_its_own_recipe_only(corpus, whole_run, setting, problem):
    with pytest.raises(ConfigError, match=problem):
        train(request_of(corpus, "msrvtt_qa", whole_run, "steps=6", setting, resume=True))


def test_a_run_goes_on_with_its_own_data_only(tmp_path, corpus, whole_run):
    other = few_lines(corpus, "msrvtt_qa", tmp_path / "few.jsonl", 40)

    with pytest.raises(ConfigError, match=r"data sha256 is .* began with"):
        train(request_of(corpus, "msrvtt_qa", whole_run, "steps=6", data=other, resume=True))


def test_validation_measures_loss_and_task_without_touching_the_training(
    tmp_path, corpus, whole_run
):
    report = train(
        request_of(
            corpus,
            "msrvtt_qa",
            tmp_path,
            "steps=6",
            "validations=2",
            "min_validation_steps=3",
            validation=few_lines(corpus, "msrvtt_qa", tmp_path.with_suffix(".jsonl"), 10),
        )
    )

    validated = [line for line in report.metrics if "validation_loss" in line]
    assert [line["step"] for line in validated] == [3, 6]
    assert all(0 <= line["validation_accuracy"] <= 100 for line in validated)
    assert all(1.5 < line["validation_loss"] < 2.0 for line in validated)
    assert_same_weights(tmp_path, whole_run)
    assert "| validation accuracy, step 6 |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "measures"),
    [
        (
            "msrvtt_retrieval",
            {"loss", "recall_at_1", "recall_at_5", "recall_at_10", "median_rank"},
        ),
        ("tgif_action", {"loss", "accuracy"}),
        ("tgif_count", {"loss", "accuracy", "squared_error"}),
        ("pretraining", {"loss", "word_accuracy", "match_accuracy"}),
    ],
)
def test_each_task_is_validated_by_its_own_measure(tmp_path, corpus, name, measures):
    few = few_lines(corpus, name, tmp_path / "few.jsonl")

    report = train(
        request_of(
            corpus,
            name,
            tmp_path / "out",
            "steps=1",
            "min_validation_steps=1",
            data=few,
            validation=few,
        )
    )

    assert set(report.metrics[-1]) == {"step", "epoch"} | {f"validation_{one}" for one in measures}


def test_the_last_step_is_logged_and_validated_whatever_the_intervals(tmp_path, corpus):
    few = few_lines(corpus, "tgif_action", tmp_path / "few.jsonl")

    report = train(
        request_of(
            corpus,
            "tgif_action",
            tmp_path / "out",
            "steps=3",
            "log_steps=2",
            "min_validation_steps=2",
            "validations=1",
            data=few,
            validation=few,
        )
    )

    kinds = [(line["step"], "loss" in line) for line in report.metrics]
    assert kinds == [(2, True), (3, True), (3, False)]


def test_missing_and_broken_videos_are_reported_by_name(tmp_path, corpus, caplog):
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in sorted(corpus.videos.iterdir())[:4]:
        (videos / path.name).write_bytes(path.read_bytes())
    cut(corpus.videos / "video01.mp4", videos / "video01.mp4", share=0.5)
    data = few_lines(corpus, "tgif_action", tmp_path / "few.jsonl", 5)

    report = train(
        request_of(corpus, "tgif_action", tmp_path / "out", "steps=1", data=data, videos=videos)
    )

    assert [video.video for video in report.unusable] == ["video01", "video04"]
    assert report.num_annotations == 3
    assert report.left_out == {"of videos that cannot be used": 2}
    assert "video04 cannot be used: no video or picture named video04" in caplog.text
    assert "- `video01`: " in (report.folder / "README.md").read_text()


def test_without_any_usable_video_nothing_is_begun(tmp_path, corpus):
    (tmp_path / "empty").mkdir()

    with pytest.raises(AnnotationError, match="none of its 50 videos can be used; the first: no v"):
        train(request_of(corpus, "tgif_action", tmp_path / "out", videos=tmp_path / "empty"))

    assert not (tmp_path / "out" / "run.json").exists()


def test_a_video_that_breaks_during_training_drops_out_by_name(tmp_path, corpus, monkeypatch):
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in sorted(corpus.videos.iterdir())[:2]:
        (videos / path.name).write_bytes(path.read_bytes())
    request = request_of(
        corpus,
        "tgif_action",
        tmp_path / "out",
        "steps=3",
        "videos_per_step=2",
        "videos_per_forward=1",
        data=few_lines(corpus, "tgif_action", tmp_path / "few.jsonl", 2),
        videos=videos,
    )

    # The last look at the folder before the first step.
    monkeypatch.setattr(
        "clipbert.training.run.find_last_checkpoint", lambda _: (videos / "video01.mp4").unlink()
    )
    report = train(request)

    assert report.steps == 3
    assert [(video.video, video.code) for video in report.dropped] == [
        ("video01", "media_not_found")
    ]
    assert report.num_dropped == 3
    assert report.unusable == ()


def test_answers_outside_the_vocabulary_are_counted(tmp_path, corpus):
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps({"red": 0, "green": 1, "blue": 2}))

    report = train(request_of(corpus, "msrvtt_qa", tmp_path / "out", "steps=1", answers=answers))

    assert report.left_out == {"with no answer of the vocabulary": 50}
    assert report.num_annotations == 50
    assert ClipBertConfig.from_folder(report.folder).answers == ("red", "green", "blue")


def test_answers_are_of_no_use_to_other_tasks(tmp_path, corpus):
    with pytest.raises(ConfigError, match="task is 'multiple_choice': it has no use for answers"):
        train(request_of(corpus, "tgif_action", tmp_path / "out", answers=corpus.answers))


@pytest.mark.parametrize("log_steps", [1, 100])
def test_a_diverged_run_stops_at_its_next_line_or_validation(tmp_path, corpus, log_steps):
    data = few_lines(corpus, "msrvtt_qa", tmp_path / "few.jsonl")
    request = request_of(
        corpus,
        "msrvtt_qa",
        tmp_path / "out",
        "steps=200",
        f"log_steps={log_steps}",
        "learning_rate=1e30",
        "decay=constant",
        "validations=50",
        "min_validation_steps=4",
        data=data,
        validation=data,
    )

    with pytest.raises(TrainingDiverged, match=r"the loss is nan at step [1-4]:"):
        train(request)


def test_bfloat16_trains_and_validates_float32_weights(tmp_path, corpus):
    few = few_lines(corpus, "msrvtt_qa", tmp_path / "few.jsonl")
    settings = ("steps=2", "precision=bf16", "min_validation_steps=2")

    report = train(request_of(corpus, "msrvtt_qa", tmp_path / "out", *settings, validation=few))

    assert {weight.dtype for weight in weights(report.folder).values()} == {torch.float32}
    assert all(1.5 < loss < 2.0 for loss in losses(report.folder))
    assert 1.5 < report.metrics[-1]["validation_loss"] < 2.0
    assert "validation_accuracy" in report.metrics[-1]


def test_the_task_is_measured_on_a_copy_in_another_type(corpus, plain_folder):
    recipe = narrow("msrvtt_qa")
    start = load_folder(plain_folder)
    objective = Objective(prepare_model(start, recipe, answers=("red", "two")).model, recipe)
    validation = Validation(
        DataLoader([]),
        build_evaluator(read_annotations(corpus.files["msrvtt_qa"]), config=objective.model.config),
        MediaClips(MediaFolder(corpus.videos), SamplingPlan(num_clips=1)),
        start.tokenizer,
        torch.bfloat16,
    )

    measured = validation.measure(objective)

    assert measured["accuracy"] > 0
    assert {weight.dtype for weight in objective.parameters()} == {torch.float32}


def test_accumulated_gradients_are_those_of_one_pass(tmp_path, corpus, plain_folder):
    for folder, size in (("whole", 4), ("parts", 1)):
        train(
            request_of(
                corpus,
                "tgif_action",
                tmp_path / folder,
                "steps=2",
                f"videos_per_forward={size}",
                model=plain_folder,
                preset=None,
            )
        )

    whole, parts = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts"))
    for name in ("loss", "gradient_norm"):
        assert [line[name] for line in parts] == pytest.approx(
            [line[name] for line in whole], rel=1e-4
        )


def test_processes_share_a_step_evenly_or_not_at_all():
    recipe = Recipe("retrieval", videos_per_step=64, videos_per_forward=16)

    assert [count_forwards(recipe, processes) for processes in (1, 2, 4)] == [4, 2, 1]
    with pytest.raises(ConfigError, match="3 processes with videos_per_forward 16 cannot share"):
        count_forwards(recipe, 3)


def test_steps_follow_from_epochs_and_validations_from_steps():
    recipe = read_recipe(RECIPES / "msrvtt_retrieval.toml")

    schedule = plan_steps(recipe, num_examples=140_200)

    # The authors' own formulas, for the 7k training split: 20 epochs of 140,200 captions.
    assert schedule.total_steps == schedule.stop_at == 43_813
    assert schedule.validation_steps == 500
    assert plan_steps(recipe.replace(["steps=9"]), num_examples=8, max_steps=5).stop_at == 5


def test_a_new_head_is_added_and_all_other_weights_are_kept():
    config = dataclasses.replace(
        ClipBertConfig.preset("clipbert-tiny"), heads=(HeadConfig("retrieval", 2),), answers=()
    )
    start = Checkpoint.create(config, seed=1)
    recipe = Recipe("qa", seed=5, max_side_px=64, max_text_tokens=32, aggregation="mean")

    prepared = prepare_model(start, recipe, answers=("yes", "no"))
    again = prepare_model(start, recipe, answers=("yes", "no"))

    assert prepared.head_is_new
    model = prepared.model
    assert model.config.heads == (HeadConfig("retrieval", 2), HeadConfig("qa", 2))
    assert (model.config.answers, model.config.trained_heads) == (("yes", "no"), ("qa",))
    assert (model.config.max_side_px, model.config.aggregation) == (64, "mean")
    for name, weight in start.network.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    for name, weight in model.heads["qa"].state_dict().items():
        assert torch.equal(again.model.heads["qa"].state_dict()[name], weight)
    trainable = {
        name.split(".")[1] for name, w in model.heads.named_parameters() if w.requires_grad
    }
    assert {name for name, w in model.heads.named_parameters() if w.requires_grad} == {
        f"qa.{name}" for name, _ in model.heads["qa"].named_parameters()
    }
    assert trainable


@pytest.mark.parametrize(
    ("answers", "rows"),
    [
        (("yes", "no"), [0, 1]),
        (("no", "yes"), [1, 0]),
        (("x", "no", "yes"), [None, 1, 0]),
        (("x", "y"), [None, None]),
    ],
)
def test_a_head_keeps_the_answers_that_both_models_know(answers, rows):
    recipe = Recipe("qa", max_side_px=64, max_text_tokens=32)
    start = Checkpoint.create(
        dataclasses.replace(
            ClipBertConfig.preset("clipbert-tiny"),
            heads=(HeadConfig("qa", 2),),
            answers=("yes", "no"),
        ),
        seed=1,
    )

    prepared = prepare_model(start, recipe, answers=answers)

    own, theirs = prepared.model.heads["qa"], start.network.heads["qa"]
    is_new = not any(row is not None for row in rows)
    assert prepared.head_is_new == is_new
    assert torch.equal(own.hidden.weight, theirs.hidden.weight) != is_new
    for row, their_row in enumerate(rows):
        kept = [torch.equal(own.output.weight[row], weight) for weight in theirs.output.weight]
        assert kept == [number == their_row for number in range(2)]


def test_a_finetuned_model_makes_no_recall_vectors_any_more():
    config = ClipBertConfig.preset("clipbert-mini")
    config = dataclasses.replace(
        config, num_layers=1, vocab_size=TextTokenizer.from_characters().vocab_size
    )
    start = Checkpoint.create(config, seed=1)
    assert start.network.recall_dim is not None

    prepared = prepare_model(start, Recipe("retrieval"))

    assert prepared.model.config.recall is None
    assert not [name for name in prepared.model.state_dict() if name.startswith("recall")]


def test_a_frozen_visual_side_is_not_trained_and_stays_in_eval_mode():
    model = Checkpoint.create(ClipBertConfig.preset("clipbert-tiny"), seed=1)
    recipe = Recipe("retrieval", visual="frozen", max_text_tokens=32)

    objective = Objective(prepare_model(model, recipe).model, recipe).train()

    visual = (objective.model.backbone, objective.model.grid_encoder)
    assert not any(weight.requires_grad for part in visual for weight in part.parameters())
    assert not any(module.training for part in visual for module in part.modules())
    assert objective.model.cross_encoder.training


def test_a_frozen_visual_side_sees_frames_of_its_own_size_only():
    model = Checkpoint.create(ClipBertConfig.preset("clipbert-tiny"), seed=1)
    recipe = Recipe("retrieval", visual="frozen", max_side_px=192, max_text_tokens=32)

    with pytest.raises(ConfigError, match="max_side_px is 192: with visual 'frozen' it must be"):
        prepare_model(model, recipe)


def test_a_model_without_a_tokenizer_cannot_be_trained():
    model = Checkpoint.create(ClipBertConfig.preset("clipbert-tiny"), seed=1)
    model = dataclasses.replace(model, tokenizer=None)

    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        prepare_model(model, Recipe("retrieval"))


def test_a_recipe_that_does_not_fit_the_model_is_refused():
    model = Checkpoint.create(ClipBertConfig.preset("clipbert-tiny"), seed=1)

    with pytest.raises(ConfigError, match="max_text_tokens is 100: must be 3 to num_positions 64"):
        prepare_model(model, Recipe("retrieval", max_side_px=64, max_text_tokens=100))


def test_metrics_after_the_checkpoint_are_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')

    keep_lines(path, last_step=2)

    assert read_metrics(path) == [{"step": 1}, {"step": 2}]


def command_line(corpus, out: Path, *settings: str, model: Path | None = None) -> list[str]:
    start_from = ["--init", "clipbert-tiny"] if model is None else ["--model", str(model)]
    given = [f"--set={setting}" for setting in (*NARROW, "clips=2", *settings)]
    return [
        str(RECIPES / "msrvtt_qa.toml"),
        f"--data={corpus.files['msrvtt_qa']}",
        f"--videos={corpus.videos}",
        f"--out={out}",
        "--device=cpu",
        "--workers=0",
        *start_from,
        *given,
    ]
