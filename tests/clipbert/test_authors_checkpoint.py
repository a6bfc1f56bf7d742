from pathlib import Path

import pytest
import torch

from clipbert.authors_checkpoint import import_authors_checkpoint
from clipbert.config import BackboneConfig
from clipbert.errors import CheckpointError, ConfigError

PARITY = Path(__file__).parents[1] / "parity"
GIVEN = {"num_attention_heads": 4, "max_side_px": 128}
DETECTOR = {"cnn.feature.proposal_generator.", "cnn.feature.roi_heads."}


@pytest.fixture
def weights():
    return torch.load(PARITY / "retrieval_checkpoint.pt", weights_only=True)


def import_weights(weights, path, **options):
    torch.save(weights, path)
    return import_authors_checkpoint(path, **({"head": "retrieval"} | GIVEN | options))


def test_sizes_are_read_from_the_weights(weights, tmp_path):
    config = import_weights(weights, tmp_path / "a.pt").model.config

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


def test_what_is_unused_is_reported(weights, tmp_path):
    skipped = import_weights(weights, tmp_path / "a.pt").skipped

    positions = "transformer.bert.visual_embeddings.position_embeddings."
    assert set(skipped) == DETECTOR | {positions}
    assert skipped[positions] == 64 * 48


def test_old_names_of_layer_norms_are_understood(weights, tmp_path):
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in weights.items()
    }
    assert old.keys() != weights.keys()

    imported = import_weights(old, tmp_path / "old.pt").model.state_dict()

    expected = import_weights(weights, tmp_path / "new.pt").model.state_dict()
    assert all(torch.equal(imported[name], tensor) for name, tensor in expected.items())


def test_pretraining_heads_are_skipped(weights, tmp_path):
    for name in [name for name in weights if name.startswith("transformer.classifier.")]:
        del weights[name]
    weights["transformer.cls.seq_relationship.weight"] = torch.zeros(2, 48)

    imported = import_weights(weights, tmp_path / "a.pt", head=None)

    assert imported.model.config.heads == ()
    assert imported.skipped["transformer.cls."] == 2 * 48


def test_outputs_without_an_answer_are_cut_off():
    answers = ("yes", "no", "a dog")
    path = PARITY / "qa_checkpoint.pt"

    imported = import_authors_checkpoint(path, head="qa", answers=answers, **GIVEN)

    theirs = torch.load(path, weights_only=True)["transformer.classifier.2.weight"]
    assert torch.equal(imported.model.heads["qa"].output.weight, theirs[:3])
    assert imported.model.config.answers == answers
    assert imported.skipped["transformer.classifier outputs without an answer"] == 1497 * 97


@pytest.mark.parametrize("answers", [(), tuple(map(str, range(1501)))])
def test_answers_that_do_not_fit_the_outputs_are_refused(answers):
    with pytest.raises(CheckpointError, match="classifier has 1500 outputs, and there are"):
        import_authors_checkpoint(PARITY / "qa_checkpoint.pt", head="qa", answers=answers, **GIVEN)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.pop("cnn.grid_encoder.0.weight"), "1 missing: grid_encoder.conv.weight"),
        (
            lambda w: w.pop("cnn.feature.backbone.res4.0.shortcut.norm.bias"),
            "1 missing: backbone.layer3.0.downsample.1.bias",
        ),
        (lambda w: w.update(surprise=torch.zeros(1)), "1 unknown keys: surprise"),
        (
            lambda w: w.update({"cnn.grid_encoder.0.weight": torch.zeros(48, 3)}),
            r"grid_encoder.conv.weight is \(48, 3\), must be \(48, 128, 3, 3\)",
        ),
        (
            lambda w: w.update({"transformer.bert.embeddings.LayerNorm.gamma": torch.ones(48)}),
            "there twice",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(weights, tmp_path, change, complaint):
    change(weights)

    with pytest.raises(CheckpointError, match=complaint):
        import_weights(weights, tmp_path / "a.pt")


def test_a_finetuned_checkpoint_needs_its_head_named(weights, tmp_path):
    with pytest.raises(CheckpointError, match=r"classifier\.0\.weight.*which head"):
        import_weights(weights, tmp_path / "a.pt", head=None)


def test_an_argument_that_does_not_fit_the_weights_is_refused(weights, tmp_path):
    with pytest.raises(ConfigError, match="num_attention_heads is 5: must divide hidden_size 48"):
        import_weights(weights, tmp_path / "a.pt", num_attention_heads=5)


class Payload:
    """What a pickle could run when it is loaded carelessly."""

    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize("content", [Payload(), {"a": Payload()}, [1, 2], {"step": 3}])
def test_a_pickle_of_anything_but_tensors_is_refused_unrun(tmp_path, capsys, content):
    with pytest.raises(CheckpointError, match=r"a\.pt is no"):
        import_weights(content, tmp_path / "a.pt")

    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "a.pt"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"a\.pt"):
        import_authors_checkpoint(path, head="retrieval", **GIVEN)
