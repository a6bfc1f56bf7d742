import json
import shutil
import subprocess
import sys

import pytest
import torch
from authors_checkpoints import (
    ANSWERS,
    PARITY,
    PARITY_NAMES,
    draw_checkpoint,
    draw_count_checkpoint,
    import_small,
    small_checkpoint,
    small_settings,
)
from torch import nn

from clipbert.checkpoints.authors_export import export_authors_checkpoint
from clipbert.checkpoints.authors_import import (
    convert_authors_checkpoint,
    import_authors_checkpoint,
    read_authors_checkpoint,
)
from clipbert.checkpoints.authors_names import UNUSED_GROUPS
from clipbert.checkpoints.authors_settings import AuthorsSettings
from clipbert.checkpoints.folder import load_folder
from clipbert.checkpoints.tensor_files import hash_file
from clipbert.errors import CheckpointError, ConfigError
from clipbert.model.config import BackboneConfig
from clipbert.model.text import TextTokenizer

DECODER = "transformer.cls.predictions.decoder.weight"
# Prints the most memory that the command held, in KiB. The parent's own would count in what the
# system tells of a child.
MEASURED = """
import atexit
from pathlib import Path
from cli.main import main

def tell():
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

atexit.register(tell)
main()
"""


def import_weights(weights, path, *, head="retrieval", **changes):
    torch.save(weights, path)
    return import_authors_checkpoint(path, head=head, settings=small_settings(head, **changes))


@pytest.fixture
def weights():
    return torch.load(small_checkpoint("retrieval"), weights_only=True)


@pytest.fixture
def pretrained():
    return torch.load(small_checkpoint("pretraining"), weights_only=True)


def test_sizes_are_read_from_the_weights(weights, tmp_path):
    config = import_weights(weights, tmp_path / "a.pt").network.config

    assert config.backbone == BackboneConfig(
        stem_channels=8, width=4, stage_blocks=(3, 4, 6, 3), stride_in_1x1=True
    )
    assert (config.hidden_size, config.num_layers, config.intermediate_size) == (48, 2, 96)
    assert (config.vocab_size, config.num_positions, config.num_rows, config.num_cols) == (
        120,
        64,
        12,
        12,
    )
    assert config.trained_heads == ("retrieval",)
    assert config.channel_order == "bgr"


@pytest.mark.parametrize("head", PARITY_NAMES)
def test_what_is_unused_is_reported(head):
    assert set(import_small(head).skipped) == set(UNUSED_GROUPS)


def test_a_pretrained_checkpoint_becomes_the_pretraining_head(pretrained):
    model = import_small("pretraining").network

    prefix = "transformer.cls."
    assert [head.name for head in model.config.heads] == ["pretraining"]
    theirs = {name for name in pretrained if name.startswith(prefix) and "decoder" not in name}
    assert len(theirs) == len(model.heads["pretraining"].state_dict())
    assert torch.equal(
        model.heads["pretraining"].match.weight, pretrained[f"{prefix}seq_relationship.weight"]
    )


def test_a_head_that_was_trained_by_ranking_has_one_output_and_no_log_sum_exp(weights, tmp_path):
    for name in ("transformer.classifier.2.weight", "transformer.classifier.2.bias"):
        weights[name] = weights[name][:1].clone()
    torch.save(weights, tmp_path / "a.pt")

    read = read_authors_checkpoint(tmp_path / "a.pt", head="retrieval", settings=None)
    assert read.config.head("retrieval").num_outputs == 1
    assert read.config.aggregation == "mean"
    with pytest.raises(ConfigError, match="aggregation is 'lse'"):
        import_weights(weights, tmp_path / "a.pt", aggregation="lse")


def test_weights_that_are_no_numbers_are_refused(weights, tmp_path):
    name = "transformer.bert.pooler.dense.weight"
    weights[name] = weights[name].clone()
    weights[name][0, 0] = float("nan")

    with pytest.raises(CheckpointError, match=f"1 weights are infinite or no numbers: {name}"):
        import_weights(weights, tmp_path / "a.pt")


def test_texts_are_no_longer_than_the_checkpoint_has_positions(tmp_path):
    small = {"num_attention_heads": 4, "max_side_px": 128}
    answers = [f"answer {index}" for index in range(1500)]

    def read(**given):
        settings = AuthorsSettings.from_json({**small, **given}, head="qa")
        path = PARITY / "qa_checkpoint.pt"
        return read_authors_checkpoint(path, head="qa", answers=answers, settings=settings)

    assert read().config.max_text_tokens == 64  # the paper's are 100
    assert read(max_text_tokens=20).config.max_text_tokens == 20
    with pytest.raises(ConfigError, match="max_text_tokens is 100: must be 3 to num_positions 64"):
        read(max_text_tokens=100)


def test_old_names_of_layer_norms_are_understood(weights, tmp_path):
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in weights.items()
    }
    assert old.keys() != weights.keys()

    imported = import_weights(old, tmp_path / "old.pt").network.state_dict()

    expected = import_weights(weights, tmp_path / "new.pt").network.state_dict()
    assert all(torch.equal(imported[name], tensor) for name, tensor in expected.items())


def test_a_file_of_the_older_kind_is_read(weights, tmp_path):
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)

    imported = import_small("retrieval", tmp_path / "old.pt").network.state_dict()

    expected = import_small("retrieval").network.state_dict()
    assert all(torch.equal(imported[name], tensor) for name, tensor in expected.items())


def test_a_model_outlives_changes_to_its_file(weights, tmp_path):
    torch.save(weights, tmp_path / "a.pt")
    model = import_small("retrieval", tmp_path / "a.pt").network
    expected = import_small("retrieval").network.state_dict()

    (tmp_path / "a.pt").write_bytes(b"\x00" * 1000)

    assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())


def test_pretraining_heads_of_a_finetuned_checkpoint_are_skipped(weights, tmp_path):
    weights["transformer.cls.seq_relationship.weight"] = torch.zeros(2, 48)

    imported = import_weights(weights, tmp_path / "a.pt")

    assert [head.name for head in imported.network.config.heads] == ["retrieval"]
    assert imported.skipped["transformer.cls."] == 2 * 48


def test_outputs_without_an_answer_are_cut_off():
    answers = ("yes", "no", "a dog")
    path = small_checkpoint("qa")

    imported = import_authors_checkpoint(
        path, head="qa", answers=answers, settings=small_settings("qa")
    )

    theirs = torch.load(path, weights_only=True)["transformer.classifier.2.weight"]
    assert torch.equal(imported.network.heads["qa"].output.weight, theirs[:3])
    assert imported.network.config.answers == answers
    assert imported.skipped["transformer.classifier outputs without an answer"] == 1497 * 97


def test_a_bias_of_another_length_is_not_cut_to_fit(tmp_path):
    weights = torch.load(small_checkpoint("qa"), weights_only=True)
    weights["transformer.classifier.2.bias"] = torch.zeros(1600)
    torch.save(weights, tmp_path / "a.pt")

    with pytest.raises(
        CheckpointError, match=r"classifier\.2\.bias is \(1600,\), must be \(1500,\)"
    ):
        import_small("qa", tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("head", "file", "answers", "complaint"),
    [
        ("qa", "qa", (), "1500 outputs.*there are no answers: give those of the data set"),
        ("qa", "qa", tuple(map(str, range(1501))), "1500 outputs.*there are 1501 answers"),
        ("qa", "retrieval", ANSWERS, "2 outputs, as retrieval has, and there are 1500 answers"),
        ("qa", "mc", ANSWERS, "1 outputs, as multiple choice"),
        ("retrieval", "qa", (), "1500 outputs, as question answering has, and retrieval has 2"),
        (
            "multiple_choice",
            "retrieval",
            (),
            "2 outputs, as retrieval has, and multiple_choice has",
        ),
        ("qa", "pretrain", ANSWERS, "is a pretrained checkpoint, not one for qa"),
        ("retrieval", "pretrain", (), "is a pretrained checkpoint, not one for retrieval"),
        ("pretraining", "qa", (), "is a finetuned checkpoint, not a pretrained one"),
    ],
)
def test_a_checkpoint_for_another_task_is_refused(head, file, answers, complaint):
    path = PARITY / f"{file}_checkpoint.pt"

    with pytest.raises(CheckpointError, match=complaint):
        import_authors_checkpoint(path, head=head, answers=answers, settings=small_settings(head))


def drop_many(weights):
    for name in [name for name in weights if ".res3." in name and name.endswith("norm.bias")]:
        del weights[name]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.pop("cnn.grid_encoder.0.weight"), "1 missing: cnn.grid_encoder.0.weight"),
        (drop_many, r"13 missing: cnn\.feature\.backbone\.res3\.0\.\S+, .*, \.\.\."),
        (
            lambda w: w.pop("cnn.feature.backbone.stem.conv1.weight"),
            r"1 missing: cnn\.feature\.backbone\.stem\.conv1\.weight",
        ),
        (lambda w: w.update(surprise=torch.zeros(1)), "1 unknown keys: surprise"),
        (
            lambda w: w.update({"cnn.grid_encoder.0.weight": torch.zeros(48, 3)}),
            r"cnn\.grid_encoder\.0\.weight is \(48, 3\), must be \(48, 128, 3, 3\)",
        ),
        (
            lambda w: w.update(
                {"transformer.bert.embeddings.word_embeddings.weight": torch.ones(3)}
            ),
            r"word_embeddings\.weight is \(3,\), must have 2 sides",
        ),
        (
            lambda w: w.update({"transformer.bert.embeddings.LayerNorm.gamma": torch.ones(48)}),
            "twice",
        ),
        (
            lambda w: w.update({"transformer.classifier.2.bias": torch.ones(5)}),
            r"classifier\.2\.bias is \(5,\), must be \(2,\)",
        ),
        (
            lambda w: w.update({"cnn.grid_encoder.0.weight": torch.ones(48, 128, 3, 3).long()}),
            r"1 weights of no floating type: cnn\.grid_encoder\.0\.weight",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(weights, tmp_path, change, complaint):
    change(weights)

    with pytest.raises(CheckpointError, match=complaint):
        import_weights(weights, tmp_path / "a.pt")


def test_a_tied_weight_that_differs_from_its_twin_is_refused(pretrained, tmp_path):
    pretrained[DECODER] = pretrained[DECODER].clone()
    pretrained[DECODER][0, 0] += 1

    with pytest.raises(CheckpointError, match=f"{DECODER} is not equal to .*word_embeddings"):
        import_weights(pretrained, tmp_path / "a.pt", head="pretraining")


def test_an_argument_that_does_not_fit_the_weights_is_refused(weights, tmp_path):
    with pytest.raises(ConfigError, match="num_attention_heads is 5: must divide hidden_size 48"):
        import_weights(weights, tmp_path / "a.pt", num_attention_heads=5)


def convert(path, folder, *, head="retrieval", **options):
    return convert_authors_checkpoint(
        path, folder, head=head, settings=small_settings(head), **options
    )


def test_a_converted_checkpoint_is_the_imported_model(tmp_path):
    path = small_checkpoint("retrieval")

    made = convert(path, tmp_path / "model")

    loaded, imported = load_folder(tmp_path / "model").network, import_small("retrieval").network
    assert made.source.sha256 == hash_file(path)
    assert loaded.config == imported.config == made.config
    expected = imported.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in loaded.state_dict().items())
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_a_checkpoint_is_halved_to_float16(tmp_path):
    path = small_checkpoint("retrieval")
    convert(path, tmp_path / "whole")

    convert(path, tmp_path / "half", dtype=torch.float16)

    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    expected = import_small("retrieval").network.state_dict()
    loaded = load_folder(tmp_path / "half").network.state_dict()
    assert all(torch.equal(tensor, expected[name].half()) for name, tensor in loaded.items())


def test_a_weight_that_float16_cannot_hold_is_refused(weights, tmp_path):
    weights["cnn.feature.backbone.stem.conv1.norm.running_var"][0] = 1e5
    torch.save(weights, tmp_path / "a.pt")

    with pytest.raises(CheckpointError, match=r"bn1\.running_var reaches 1e\+05, which float16"):
        convert(tmp_path / "a.pt", tmp_path / "model", dtype=torch.float16)

    assert not (tmp_path / "model").exists()


def test_nothing_is_written_on_an_error(weights, tmp_path):
    weights.pop("transformer.bert.pooler.dense.bias")
    torch.save(weights, tmp_path / "a.pt")
    before = set(tmp_path.iterdir())

    with pytest.raises(CheckpointError):
        convert(tmp_path / "a.pt", tmp_path / "new" / "model")

    assert set(tmp_path.iterdir()) == before


def test_a_tokenizer_of_another_size_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="the tokenizer has 141 tokens, the model has embedd"):
        convert(
            small_checkpoint("retrieval"),
            tmp_path / "model",
            tokenizer=TextTokenizer.from_characters(),
        )

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["model", "model/file"])
def test_a_folder_with_something_in_it_is_refused(tmp_path, path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file").write_text("mine")

    with pytest.raises(CheckpointError, match="choose another"):
        convert(small_checkpoint("retrieval"), tmp_path / path)

    assert (tmp_path / "model" / "file").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "model").mkdir()

    convert(small_checkpoint("retrieval"), tmp_path / "model")

    assert (tmp_path / "model" / "config.json").is_file()


@pytest.fixture
def disk(tmp_path):
    """A folder for gigabytes, which do not stay until pytest tidies up."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head"), [("pretrain", "pretraining"), ("qa", "qa")])
def test_a_full_checkpoint_comes_back_identical_and_takes_little_memory(disk, kind, head):
    theirs, folder, back = disk / "theirs.pt", disk / "model", disk / "back.pt"
    torch.save(draw_checkpoint(kind), theirs)
    (disk / "ans2label.json").write_text(
        json.dumps({answer: i for i, answer in enumerate(ANSWERS)})
    )
    answers = ["--answers", str(disk / "ans2label.json")] if head == "qa" else []

    command = ["weights", "import", str(theirs), "--task", head, "--to", str(folder), *answers]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], check=True, capture_output=True, text=True
    )
    export_authors_checkpoint(load_folder(folder).network, back)

    peak_bytes = 1024 * int(ran.stdout.split()[-1])
    assert peak_bytes < 2.5 * theirs.stat().st_size
    expected = torch.load(theirs, weights_only=True, mmap=True)
    exported = torch.load(back, weights_only=True, mmap=True)
    assert exported.keys() == {name for name in expected if not name.startswith(UNUSED_GROUPS)}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in exported.items())


def test_a_counting_checkpoint_counts_as_their_layers_do(tmp_path):
    theirs = draw_count_checkpoint()
    regressor = nn.Sequential(
        nn.Linear(48, 48), nn.ELU(), nn.BatchNorm1d(48), nn.Dropout(0.1), nn.Linear(48, 1)
    ).eval()
    beginning = "transformer.regressor."
    regressor.load_state_dict(
        {n.removeprefix(beginning): t for n, t in theirs.items() if n.startswith(beginning)}
    )
    model = import_weights(theirs, tmp_path / "a.pt", head="count").network
    pooled = torch.randn(5, 48, generator=torch.Generator().manual_seed(1))

    found = model.heads["count"](pooled)

    torch.testing.assert_close(found, regressor(pooled))
    assert model.config.trained_heads == ("count",)
    assert (model.config.max_text_tokens, model.config.aggregation) == (12, "mean")


def test_a_counting_checkpoint_comes_back_bit_for_bit(tmp_path):
    theirs = draw_count_checkpoint()
    model = import_weights(theirs, tmp_path / "a.pt", head="count").network

    export_authors_checkpoint(model, tmp_path / "back.pt")

    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == {name for name in theirs if not name.startswith(UNUSED_GROUPS)}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in back.items())
    assert back["transformer.regressor.2.num_batches_tracked"].dtype == torch.int64


def test_a_counting_checkpoint_is_none_for_another_task_nor_the_other_way_round(weights, tmp_path):
    with pytest.raises(CheckpointError, match="is a checkpoint for count, not one for retrieval"):
        import_weights(draw_count_checkpoint(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="for another task than counting, not one for count"):
        import_weights(weights, tmp_path / "b.pt", head="count")


def test_the_prefix_of_data_parallelism_is_taken_away_and_said(weights, tmp_path):
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}

    imported = import_weights(wrapped, tmp_path / "a.pt")

    plain = import_weights(weights, tmp_path / "b.pt")
    assert "module." in imported.notices[0]
    assert imported.notices[1:] == plain.notices
    expected = plain.network.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in imported.network.state_dict().items())


def test_a_prefix_that_only_some_keys_have_is_unknown(weights, tmp_path):
    name = "cnn.grid_encoder.0.weight"
    weights[f"module.{name}"] = weights.pop(name)

    with pytest.raises(CheckpointError, match=r"1 unknown keys: module\.cnn\.grid_encoder"):
        import_weights(weights, tmp_path / "a.pt")


def test_an_import_says_which_settings_another_data_set_needs(tmp_path):
    # The default is MSRVTT's; the file itself tells nothing of it.
    settings = small_settings("retrieval", max_side_px=448, max_text_tokens=20)
    path = small_checkpoint("retrieval")

    unnamed = import_authors_checkpoint(path, head="retrieval", settings=settings)
    named = import_authors_checkpoint(
        path, head="retrieval", settings=settings, data_set="msrvtt_retrieval"
    )
    other = import_authors_checkpoint(
        path, head="retrieval", settings=settings, data_set="didemo_retrieval"
    )

    assert "activitynet_retrieval 448 px, 100 tokens, lse" in unnamed.notices[0]
    assert named.notices == ()
    assert "not what didemo_retrieval was trained with" in other.notices[0]
