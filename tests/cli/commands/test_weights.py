"""`clipbert weights import`, `export` and `base`, in this process: torch is loaded once."""

import json
import sys

import pytest
import torch
import torchvision
from authors_checkpoints import ANSWERS, PARITY_NAMES, import_small, small_checkpoint

from cli.main import main
from clipbert.checkpoints.tensor_files import hash_file
from clipbert.inference.clipbert import ClipBert
from clipbert.model.text import TextTokenizer

TASKS = {
    "retrieval": "retrieval",
    "qa": "qa",
    "multiple_choice": "multiple-choice",
    "pretraining": "pretraining",
}


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command as main() does, and give its exit code, output and errors."""

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["clipbert", "weights", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run_command


@pytest.fixture
def small(tmp_path):
    """What the small checkpoints do not tell, as a file."""
    path = tmp_path / "small.json"
    path.write_text(
        json.dumps({"num_attention_heads": 4, "max_side_px": 128, "max_text_tokens": 12})
    )
    return path


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "ans2label.json"
    path.write_text(json.dumps({answer: index for index, answer in enumerate(ANSWERS)}))
    return path


@pytest.mark.parametrize("command", ["import", "export", "base"])
def test_every_command_has_help(run, command):
    code, out, err = run(command, "--help")

    assert (code, err) == (0, "")
    assert "--to" in out


@pytest.mark.parametrize("head", PARITY_NAMES)
def test_checkpoints_of_every_task_are_imported_and_exported(run, tmp_path, small, answers, head):
    path, folder, back = small_checkpoint(head), tmp_path / "model", tmp_path / "back.pt"
    options = ["--answers", answers] if head == "qa" else []

    code, out, err = run(
        *("import", path, "--task", TASKS[head], "--to", folder, "--config", small, *options)
    )
    assert (code, err) == (0, "")
    assert "skipped       cnn.feature.roi_heads. 3,460" in out
    assert hash_file(path) in out
    assert hash_file(path) in (folder / "README.md").read_text()
    code, out, err = run("export", folder, "--to", back)

    assert (code, err) == (0, "")
    assert "left out  cnn.feature.roi_heads." in out
    expected = torch.load(path, weights_only=True)
    exported = torch.load(back, weights_only=True)
    assert len(exported) == 314 + 5 * (head == "pretraining")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in exported.items())
    assert ClipBert.from_pretrained(folder).config == import_small(head).network.config


def test_an_import_answers_in_json(run, tmp_path, small):
    folder = tmp_path / "model"

    code, out, _ = run(
        *("import", small_checkpoint("retrieval"), "--task", "retrieval", "--to", folder),
        *("--config", small, "--dtype", "float16", "--json"),
    )

    facts = json.loads(out)
    assert code == 0
    assert (facts["folder"], facts["heads"], facts["dtype"]) == (
        str(folder),
        ["retrieval"],
        "float16",
    )
    assert facts["sha256"] == hash_file(small_checkpoint("retrieval"))
    assert facts["skipped"]["cnn.feature.roi_heads."] == 3460


def test_a_tokenizer_comes_with_the_model(run, tmp_path, small):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(115))]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))

    code, out, _ = run(
        *("import", small_checkpoint("retrieval"), "--task", "retrieval"),
        *("--to", tmp_path / "model", "--config", small, "--tokenizer", tmp_path / "vocab.txt"),
    )

    assert code == 0
    assert "cannot read texts" not in out
    assert TextTokenizer.from_folder(tmp_path / "model").vocab_size == 120


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ["--task", "sorting"],
            "--task is one of retrieval, qa, multiple-choice, count, pretraining",
        ),
        (
            ["--task", "retrieval", "--data-set", "msrvtt-qa"],
            "--data-set for retrieval is one of msrvtt_retrieval, didemo_retrieval, activitynet_",
        ),
        (["--task", "retrieval", "--dtype", "int8"], "--dtype is one of float32, float16"),
        (["--task", "qa"], "there are no answers: give those of the data set"),
        (["--task", "pretraining"], "is a finetuned checkpoint, not a pretrained one"),
        (["--task", "retrieval", "--config", "nowhere.json"], "nowhere.json"),
        (["--task", "retrieval", "--config", "list.json"], "list.json is not a JSON object"),
        (["--task", "retrieval", "--config", "text.json"], "text.json is not JSON"),
        (["--task", "retrieval", "--config", "wrong.json"], "wrong.json: frames is unknown"),
        (["--task", "retrieval", "--tokenizer", "nowhere.txt"], "no such file: nowhere.txt"),
        (["--task", "qa", "--answers", "nowhere.json"], "nowhere.json"),
        (["--task", "retrieval", "--config", "large.json"], "frames of 1024 px need at least 16"),
    ],
)
def test_a_wrong_import_is_one_clear_line_and_writes_nothing(
    run, tmp_path, monkeypatch, options, complaint
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "text.json").write_text("frames")
    (tmp_path / "wrong.json").write_text('{"frames": 128}')
    (tmp_path / "large.json").write_text('{"max_side_px": 1024}')
    before = set(tmp_path.iterdir())

    code, out, err = run("import", small_checkpoint("retrieval"), "--to", "model", *options)

    assert (code, out) == (1, "")
    assert err.startswith("clipbert: ")
    assert complaint in err
    assert len(err.splitlines()) == 1
    assert set(tmp_path.iterdir()) == before


def test_an_import_into_a_folder_with_something_in_it_is_refused(run, tmp_path, small):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()

    code, _, err = run(
        *("import", small_checkpoint("retrieval"), "--task", "retrieval"),
        *("--to", tmp_path / "model", "--config", small),
    )

    assert code == 1
    assert "is not empty: choose another folder" in err


def test_an_export_of_no_model_is_one_clear_line(run, tmp_path):
    code, out, err = run("export", tmp_path, "--to", tmp_path / "a.pt")

    assert (code, out) == (1, "")
    assert "no config.json in" in err


@pytest.mark.slow
def test_a_model_is_started_from_a_resnet_with_the_papers_sizes(run, tmp_path):
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "resnet.pth")

    code, out, err = run(
        *("base", "--to", tmp_path / "base", "--resnet", tmp_path / "resnet.pth"),
        *("--heads", "retrieval,multiple-choice", "--seed", "3"),
    )

    assert (code, err) == (0, "")
    assert "random   the text embeddings" in out
    assert "cannot read texts yet" in out
    (tmp_path / "resnet.pth").unlink()
    code, out, _ = run("info", tmp_path / "base", "--json")
    facts = json.loads(out)
    assert facts["heads"] == ["retrieval", "multiple_choice"]
    assert facts["cross_encoder"] == "12 layers of 768"
    (tmp_path / "base" / "model.safetensors").unlink()  # 600 MB


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--resnet", "nowhere.pth"], "no such file: nowhere.pth"),
        (["--bert", "nowhere"], "no model.safetensors or pytorch_model.bin in nowhere"),
        (["--heads", "sorting"], "heads.name is 'sorting': must be one of"),
        (["--heads", "qa"], "heads[qa].num_outputs is 0"),
    ],
)
def test_a_wrong_start_is_one_clear_line_and_writes_nothing(
    run, tmp_path, monkeypatch, options, complaint
):
    monkeypatch.chdir(tmp_path)

    code, out, err = run("base", "--to", "model", *options)

    assert (code, out) == (1, "")
    assert complaint in err
    assert list(tmp_path.iterdir()) == []
