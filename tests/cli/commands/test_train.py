"""`clipbert train`, on the command's own function."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from corpus import write_corpus
from typer.testing import CliRunner
from videos import cut

from cli.commands.train import train
from cli.errors import CliError
from clipbert.model.config import ClipBertConfig
from clipbert.training import __main__ as torchrun_program
from clipbert.training.run_log import read_metrics

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[3] / "recipes" / "tgif_action.toml"
NARROW = (
    "--set=max_side_px=64",
    "--set=max_text_tokens=32",
    "--set=videos_per_step=2",
    "--set=videos_per_forward=2",
    "--set=inference_clips=2",
    "--set=precision=fp32",
    "--set=log_steps=1",
    "--set=steps=2",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), num_videos=6)


def arguments(corpus, out, *more):
    data, videos = corpus.files["tgif_action"], corpus.videos
    where = (f"--data={data}", f"--videos={videos}", f"--out={out}")
    return [str(RECIPE), *where, "--init=clipbert-tiny", "--device=cpu", "--workers=0", *more]


def run(*command):
    app = typer.Typer()
    app.command()(train)
    return CliRunner().invoke(app, list(command))


def test_train_writes_a_model_and_says_what_it_did(tmp_path, corpus):
    result = run(*arguments(corpus, tmp_path / "out", *NARROW))

    assert result.exit_code == 0, result.exception
    said = {line.split("  ")[0]: line.split()[-1] for line in result.stdout.splitlines()}
    assert said["steps"] == "2"
    assert said["lines"] == "6"
    assert said["videos not used"] == "0"
    assert float(said["loss"]) == pytest.approx(1.609, abs=0.02)
    # Said before the first step, which may take minutes.
    assert result.stderr.index("training: 0 of 2 steps done\n") < result.stderr.index("step=")
    assert "step=2 epoch=0.666667 loss=" in result.stderr
    config = ClipBertConfig.from_folder(tmp_path / "out")
    assert config.trained_heads == ("multiple_choice",)


def test_a_run_stopped_early_says_how_to_go_on(tmp_path, corpus):
    command = arguments(corpus, tmp_path / "out", *NARROW)

    stopped = run(*command, "--max-steps=1")
    resumed = run(*command, "--resume")

    assert "steps            1 of 2" in stopped.stdout
    assert "--resume goes on with it" in stopped.stdout
    assert "steps            2 of 2" in resumed.stdout
    assert [line["step"] for line in read_metrics(tmp_path / "out" / "metrics.jsonl")] == [1, 2]


def test_broken_videos_are_named_on_stderr_and_counted(tmp_path, corpus):
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in corpus.videos.iterdir():
        cut(path, videos / path.name, share=0.5 if path.stem == "video03" else 1.0)

    result = run(*arguments(corpus, tmp_path / "out", *NARROW, f"--videos={videos}"))

    assert "video03 cannot be used: " in result.stderr
    assert "left out, of videos that cannot be used  1" in result.stdout


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--set=clip=2", "clip is unknown: the fields are "),
        ("--set=clips=none", "clips is None: must be an integer"),
        ("--data=nowhere.jsonl", "nowhere.jsonl: cannot be read"),
        ("--videos=nowhere", "nowhere is not a folder"),
        ("--init=clipbert-huge", "preset is 'clipbert-huge': must be one of clipbert-base, "),
    ],
)
def test_what_a_person_can_put_right_is_one_line(tmp_path, corpus, option, problem):
    result = run(*arguments(corpus, tmp_path / "out", *NARROW, option))

    assert isinstance(result.exception, CliError)
    assert problem in result.exception.message
    assert "\n" not in result.exception.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        ((), "name one of them"),
        (("--model=nowhere", "--init=clipbert-tiny"), "name one of them"),
        (("--model=nowhere",), "no config.json in nowhere"),
    ],
)
def test_training_starts_from_one_model(tmp_path, corpus, start, problem):
    command = [
        word for word in arguments(corpus, tmp_path / "out", *NARROW) if "--init" not in word
    ]

    result = run(*command, *start)

    assert isinstance(result.exception, CliError)
    assert problem in result.exception.message


@pytest.mark.parametrize(
    ("program", "wrong", "problem"),
    [
        ("cli.main train", "--set=videos_per_forward=4", "videos_per_step is 2: must be a mult"),
        ("cli.main train", "--set=max_text_tokens=100", "max_text_tokens is 100: must be 3 to"),
        ("clipbert.training", "--set=max_text_tokens=100", "max_text_tokens is 100: must be 3"),
        ("cli.main train", "--model=nowhere", "name one of them"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_torch_is_loaded(
    tmp_path, corpus, program, wrong, problem
):
    module, *command = program.split()
    words = [module, *command, *arguments(corpus, tmp_path / "out", *NARROW, wrong)]
    code = (
        "import runpy, sys\n"
        f"sys.argv = {words!r}\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )

    assert problem in result.stderr
    assert result.stdout == "1 False\n"


def test_the_tiny_recipe_runs_from_random_weights(tmp_path, corpus):
    data, videos = corpus.files["msrvtt_qa"], corpus.videos
    where = (f"--data={data}", f"--videos={videos}", f"--out={tmp_path / 'out'}")

    result = run(
        str(RECIPE.with_name("tiny.toml")),
        *(*where, "--init=clipbert-tiny", "--device=cpu", "--workers=0", "--max-steps=1"),
    )

    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    (metrics,) = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert metrics["step"] == 1


def test_the_program_for_torchrun_takes_the_same_arguments(tmp_path, corpus, capsys):
    command = arguments(corpus, tmp_path / "out", *NARROW)

    assert torchrun_program.main([*command, "--set=clip=2"]) == 1
    assert "clipbert: clip is unknown" in capsys.readouterr().err
    assert torchrun_program.main([*command, "--max-steps=1"]) == 0
    assert torchrun_program.main([*command, "--resume"]) == 0
    assert [line["step"] for line in read_metrics(tmp_path / "out" / "metrics.jsonl")] == [1, 2]
