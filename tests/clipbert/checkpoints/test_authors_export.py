import dataclasses

import pytest
import torch
from authors_checkpoints import (
    PARITY_NAMES,
    import_small,
    small_checkpoint,
    small_settings,
)

from clipbert.checkpoints.authors_export import export_authors_checkpoint
from clipbert.checkpoints.authors_import import import_authors_checkpoint
from clipbert.checkpoints.authors_names import UNUSED_GROUPS
from clipbert.errors import CheckpointError
from clipbert.model.config import BackboneConfig
from clipbert.model.network import Network


@pytest.mark.parametrize("head", PARITY_NAMES)
def test_an_export_is_the_checkpoint_without_what_is_unused(head, tmp_path):
    export_authors_checkpoint(import_small(head).network, tmp_path / "a.pt")

    theirs = torch.load(small_checkpoint(head), weights_only=True)
    exported = torch.load(tmp_path / "a.pt", weights_only=True)
    assert type(exported) is dict
    assert exported.keys() == {name for name in theirs if not name.startswith(UNUSED_GROUPS)}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in exported.items())


@pytest.mark.parametrize("head", PARITY_NAMES)
def test_an_import_of_an_export_is_the_model(head, tmp_path):
    model = import_small(head).network
    export_authors_checkpoint(model, tmp_path / "a.pt")

    again = import_small(head, tmp_path / "a.pt")

    assert again.network.config == model.config
    assert again.skipped == {}
    expected = model.state_dict()
    assert again.network.state_dict().keys() == expected.keys()
    assert all(torch.equal(t, expected[name]) for name, t in again.network.state_dict().items())


def test_a_model_of_several_heads_is_exported_with_the_one_that_is_asked_for(tmp_path):
    config = import_small("multiple_choice").network.config
    heads = (*config.heads, *import_small("retrieval").network.config.heads)
    model = Network.create(dataclasses.replace(config, heads=heads), seed=0)

    with pytest.raises(CheckpointError, match="has the heads multiple_choice, retrieval: say whi"):
        export_authors_checkpoint(model, tmp_path / "a.pt")
    exported = export_authors_checkpoint(model, tmp_path / "a.pt", head="retrieval")

    assert exported.left_out == (*UNUSED_GROUPS, "heads.multiple_choice.")
    assert import_small("retrieval", tmp_path / "a.pt").network.config.head("retrieval")


def test_an_export_says_when_their_loader_would_pass_over_the_last_layer(tmp_path):
    path, chosen = small_checkpoint("qa"), small_settings("qa")
    few = import_authors_checkpoint(path, head="qa", answers=("yes", "no"), settings=chosen).network

    passed_over = export_authors_checkpoint(few, tmp_path / "few.pt").passed_over

    all_of_them = export_authors_checkpoint(import_small("qa").network, tmp_path / "all.pt")
    assert (passed_over, all_of_them.passed_over) == (("transformer.classifier.2.",), ())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"channel_order": "rgb"}, "has another channel_order"),
        ({"mean": (0.0, 0.0, 0.0), "std": (2.0, 2.0, 2.0)}, "has another mean, std"),
        ({"backbone": BackboneConfig(stem_channels=8, width=4, stride_in_1x1=False)}, "stride_in"),
        ({"clip_positions": 4}, r"no place for 1 weights: visual_embeddings\.clip_embeddings"),
        ({"heads": (), "trained_heads": ()}, "no head that the authors' code has"),
    ],
)
def test_a_model_that_their_code_would_compute_otherwise_is_not_exported(
    tmp_path, changes, complaint
):
    config = dataclasses.replace(import_small("retrieval").network.config, **changes)
    model = Network.create(config, seed=0)

    with pytest.raises(CheckpointError, match=complaint):
        export_authors_checkpoint(model, tmp_path / "a.pt")

    assert list(tmp_path.iterdir()) == []


def test_an_export_replaces_no_file(tmp_path):
    (tmp_path / "a.pt").write_text("mine")

    with pytest.raises(CheckpointError, match="exists"):
        export_authors_checkpoint(import_small("retrieval").network, tmp_path / "a.pt")

    assert (tmp_path / "a.pt").read_text() == "mine"


def test_an_export_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be written"):
        export_authors_checkpoint(import_small("retrieval").network, tmp_path / "nowhere" / "a.pt")
