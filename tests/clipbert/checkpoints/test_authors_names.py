import pytest
import torch
from authors_checkpoints import read_shapes

from clipbert.checkpoints.authors_names import (
    BERT_PREFIX,
    PRETRAINING_GROUP,
    TIED,
    UNUSED_GROUPS,
    drop_tied,
    rename_authors_keys,
    to_authors_name,
    to_our_name,
)
from clipbert.errors import CheckpointError
from clipbert.model.config import ClipBertConfig, HeadConfig
from clipbert.model.network import Network

OF_FILE = [("pretrain", "pretraining"), ("retrieval", "retrieval"), ("qa", "qa")]


def model_names(head):
    num_outputs = 1500 if head == "qa" else 2
    config = ClipBertConfig(
        heads=(HeadConfig(head, num_outputs),),
        answers=tuple(map(str, range(1500))) if head == "qa" else (),
    )
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in Network(config).state_dict().items()}


@pytest.mark.parametrize(("kind", "head"), OF_FILE)
def test_every_weight_of_a_full_checkpoint_is_one_of_ours_and_back(kind, head):
    shapes = read_shapes(kind)
    tied = {BERT_PREFIX + name for name in TIED}
    used = {n: s for n, s in shapes.items() if not n.startswith(UNUSED_GROUPS) and n not in tied}

    ours = {to_our_name(name, head=head): shape for name, shape in used.items()}

    assert ours == model_names(head)
    assert {to_authors_name(name, head=head) for name in ours} == used.keys()


@pytest.mark.parametrize(("kind", "head"), OF_FILE)
def test_what_is_skipped_is_what_is_never_used(kind, head):
    weights = {name: torch.empty(shape, device="meta") for name, shape in read_shapes(kind).items()}
    tied = {BERT_PREFIX + name for name in TIED}
    weights = {name: tensor for name, tensor in weights.items() if name not in tied}

    _, skipped = rename_authors_keys(weights, head=head)

    assert skipped == {
        "cnn.feature.proposal_generator.": 37_904_519,  # the authors' counts
        "cnn.feature.roi_heads.": 12_619_729,
        "transformer.bert.visual_embeddings.position_embeddings.": 512 * 768,
    }


@pytest.mark.parametrize(
    "name", ["recall.class_vectors", "visual_embeddings.frame_embeddings.weight"]
)
def test_what_the_authors_do_not_have_has_no_name(name):
    assert to_authors_name(name, head="retrieval") is None


@pytest.mark.parametrize(
    "name",
    [
        "cnn.feature.backbone.res6.0.conv1.weight",
        "cnn.feature.backbone.res2.0.conv1.norm.num_batches_tracked",
        "cnn.feature.backbone.res2.0.conv1.weights",
        "xtransformer.bert.pooler.dense.weight",
        "transformer.classifier.1.weight",
    ],
)
def test_a_name_that_is_nearly_one_of_theirs_has_no_place(name):
    assert to_our_name(name, head="retrieval") is None


def test_old_names_of_layer_norms_are_understood():
    theirs = "transformer.bert.encoder.layer.3.attention.output.LayerNorm.gamma"

    ours = to_our_name(theirs, head="qa")

    assert ours == "cross_encoder.encoder.layer.3.attention.output.LayerNorm.weight"


def test_heads_of_pretraining_are_skipped_unless_wanted():
    weights = {f"{PRETRAINING_GROUP}seq_relationship.weight": torch.zeros(2, 48)}

    assert rename_authors_keys(weights, head="qa") == ({}, {PRETRAINING_GROUP: 96})
    ours, skipped = rename_authors_keys(weights, head="pretraining")
    assert (list(ours), skipped) == (["heads.pretraining.match.weight"], {})


@pytest.mark.parametrize("second", [torch.zeros(3), torch.ones(4), torch.ones(3).double()])
def test_tied_weights_that_differ_are_refused(second):
    weights = {"cls.predictions.bias": torch.ones(3), "cls.predictions.decoder.bias": second}

    with pytest.raises(CheckpointError, match=r"a\.pt: cls\.predictions\.decoder\.bias is not equ"):
        drop_tied(weights, prefix="", source="a.pt")
