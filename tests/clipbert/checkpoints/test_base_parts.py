import json

import pytest
import torch
import torchvision
import transformers
from safetensors.torch import save_file

from clipbert.checkpoints.base_parts import start_base
from clipbert.checkpoints.folder import load_folder
from clipbert.checkpoints.new_folder import write_model_folder
from clipbert.checkpoints.trained_parts import read_torchvision_resnet
from clipbert.errors import CheckpointError, ConfigError
from clipbert.model.config import ClipBertConfig
from clipbert.model.text import TextTokenizer

TINY = ClipBertConfig.preset("clipbert-tiny")
CHARACTERS = TextTokenizer.from_characters()


@pytest.fixture(scope="module")
def resnet():
    """torchvision's ResNet-50, its batch norms with statistics of their own."""
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None).eval()
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or ("bn" in name and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(0.0, 0.1)
    return network


@pytest.fixture(scope="module")
def resnet_file(resnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("resnet") / "resnet50.pth"
    torch.save(resnet.state_dict(), path)
    return path


def make_bert(kind=transformers.BertForPreTraining, **changes):
    torch.manual_seed(1)
    config = transformers.BertConfig(
        **{
            "vocab_size": CHARACTERS.vocab_size,
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 96,
            "max_position_embeddings": 64,
            "attn_implementation": "eager",
        }
        | changes
    )
    model = kind(config).eval()
    for parameter in model.parameters():  # biases and norms too, so that a forgotten one shows
        parameter.data.normal_(0.0, 0.2)
    return model


def save_bert(model, folder, *, rename=lambda name: name, file="model.safetensors"):
    """Write a folder as transformers has it."""
    folder.mkdir()
    model.config.save_pretrained(folder)
    weights = {rename(name): tensor.clone() for name, tensor in model.state_dict().items()}
    if file == "model.safetensors":
        save_file(weights, folder / file)
    else:
        torch.save(weights, folder / file)
    CHARACTERS.save(folder)
    return folder


@pytest.fixture(scope="module")
def bert():
    return make_bert()


@pytest.fixture
def bert_folder(bert, tmp_path):
    return save_bert(bert, tmp_path / "bert")


def old_name(name):
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )


def assert_near(actual, expected, *, part):
    atol = part * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0.0)


@torch.inference_mode()
def test_a_model_started_from_torchvisions_resnet_computes_the_same(resnet, resnet_file):
    model = start_base(resnet=resnet_file, config=TINY).checkpoint.network
    frames = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    theirs = torch.nn.Sequential(*list(resnet.children())[:-2])(frames)  # (1, 2048, 3, 3)

    assert_near(model.backbone(frames), theirs, part=1e-5)
    model.fold_batch_norm()
    assert_near(model.backbone(frames), theirs, part=1e-4)


def test_torchvisions_resnet_wants_torchvisions_pixels(resnet_file):
    config = start_base(resnet=resnet_file, config=TINY).checkpoint.network.config

    assert (config.channel_order, config.backbone.stride_in_1x1) == ("rgb", False)
    presets = torchvision.models.ResNet50_Weights.DEFAULT.transforms()
    assert config.mean == pytest.approx([255 * number for number in presets.mean])
    assert config.std == pytest.approx([255 * number for number in presets.std])


def test_what_of_a_resnet_is_not_used_is_reported(resnet_file):
    part = read_torchvision_resnet(resnet_file)

    assert part.skipped == {"fc.": 2048 * 1000 + 1000, "num_batches_tracked": 53}


def test_a_resnet_may_be_a_safetensors_file(resnet, tmp_path):
    save_file(resnet.state_dict(), tmp_path / "resnet.safetensors")

    model = start_base(resnet=tmp_path / "resnet.safetensors", config=TINY).checkpoint.network

    assert torch.equal(model.backbone.conv1.weight, resnet.conv1.weight)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.pop("layer3.2.bn1.running_var"), r"1 missing: layer3\.2\.bn1\.running_var"),
        (lambda w: w.update({"layer5.conv1.weight": torch.ones(1)}), "1 unknown: layer5.conv1.we"),
        (
            lambda w: w.update({"layer1.0.conv2.weight": torch.ones(64, 64, 1, 1)}),
            r"layer1\.0\.conv2\.weight is \(64, 64, 1, 1\), must be \(64, 64, 3, 3\)",
        ),
    ],
)
def test_a_resnet_that_does_not_fit_is_refused(resnet, tmp_path, change, complaint):
    weights = resnet.state_dict()
    change(weights)
    torch.save(dict(weights), tmp_path / "resnet.pth")

    with pytest.raises(CheckpointError, match=complaint):
        start_base(resnet=tmp_path / "resnet.pth", config=TINY)


def test_a_resnet_without_bottlenecks_is_refused(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet.pth")

    with pytest.raises(CheckpointError, match=r"missing: layer1\.0\.conv3\.weight"):
        start_base(resnet=tmp_path / "resnet.pth", config=TINY)


@torch.inference_mode()
def test_a_model_started_from_bert_reads_texts_as_bert_does(bert, bert_folder):
    made = start_base(bert=bert_folder, config=TINY).checkpoint
    model = made.network
    ids, mask = made.tokenizer.encode(["a dog runs", "two cats"], max_length=20)

    hidden = model.cross_encoder(model.text_embeddings(ids), mask)

    expected = bert.bert(input_ids=ids, attention_mask=mask)
    seen = mask.bool()
    torch.testing.assert_close(hidden[seen], expected.last_hidden_state[seen], atol=1e-5, rtol=0)
    pooled = model.cross_encoder.pool(hidden)
    torch.testing.assert_close(pooled, expected.pooler_output, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_model_started_from_bert_reads_any_embeddings_as_bert_does(bert, bert_folder):
    """Visual tokens are no words: BERT takes them as embeddings, to which it adds positions."""
    made = start_base(bert=bert_folder, config=TINY).checkpoint
    model = made.network
    ids, text_mask = made.tokenizer.encode(["a dog", "two cats"], max_length=20)
    visual = torch.randn(2, 4, 48, generator=torch.Generator().manual_seed(3))
    inputs = torch.cat([bert.bert.embeddings.word_embeddings(ids), visual], dim=1)
    mask = torch.cat([text_mask, torch.ones(2, 4, dtype=torch.int64)], dim=1)
    tables = model.text_embeddings
    placed = inputs + tables.token_type_embeddings.weight[0]
    placed = placed + tables.position_embeddings.weight[: inputs.shape[1]]

    hidden = model.cross_encoder(tables.LayerNorm(placed), mask)

    expected = bert.bert(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(hidden[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("rename", [lambda name: name, old_name])
def test_berts_of_every_kind_of_file_and_name_are_the_same(tmp_path, bert, file, rename):
    folder = save_bert(bert, tmp_path / "bert", file=file, rename=rename)

    model = start_base(bert=folder, config=TINY).checkpoint.network

    expected = bert.bert.embeddings.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in model.text_embeddings.state_dict().items())


def test_a_bert_without_heads_has_shorter_names(tmp_path):
    bert = make_bert(transformers.BertModel)

    model = start_base(bert=save_bert(bert, tmp_path / "bert"), config=TINY).checkpoint.network

    assert torch.equal(model.cross_encoder.pooler.dense.weight, bert.pooler.dense.weight)


def test_what_of_a_bert_is_not_used_is_reported(bert_folder):
    started = start_base(bert=bert_folder, config=TINY)

    size = CHARACTERS.vocab_size
    assert started.card.skipped == {
        "cls.predictions.": 48 * 48 + 3 * 48 + size + (size * 48 + size),
        "cls.seq_relationship.": 2 * 48 + 2,
    }
    assert started.card.random == (
        "the ResNet",
        "the grid encoder",
        "the visual embeddings",
        "the retrieval head",
    )


@torch.inference_mode()
def test_a_bert_gives_the_pretraining_head_its_words(bert, bert_folder):
    started = start_base(bert=bert_folder, heads=("pretraining",), config=TINY)
    ids, mask = CHARACTERS.encode(["a dog runs"], max_length=20)

    model = started.checkpoint.network
    hidden = model.cross_encoder(model.text_embeddings(ids), mask)
    words = model.heads["pretraining"].words(hidden, model.text_embeddings.word_embeddings.weight)

    expected = bert(input_ids=ids, attention_mask=mask).prediction_logits
    torch.testing.assert_close(words, expected, atol=1e-4, rtol=0)
    assert started.card.random[-1] == "the match output of the pretraining head"


def test_a_bert_whose_output_layer_is_its_own_gives_no_words(tmp_path, bert):
    folder = save_bert(bert, tmp_path / "bert")
    weights = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
    weights["cls.predictions.decoder.weight"] += 1
    save_file(weights, folder / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"decoder\.weight is not equal to bert\.emb"):
        start_base(bert=folder, heads=("pretraining",), config=TINY)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.pop("bert.pooler.dense.bias"), r"1 missing: bert\.pooler\.dense\.bias"),
        (lambda w: w.update({"bert.extra": torch.ones(1)}), r"1 unknown keys: bert\.extra"),
        (
            lambda w: w.update({"bert.embeddings.LayerNorm.weight": torch.ones(3)}),
            r"bert\.embeddings\.LayerNorm\.weight is \(3,\), must be \(48,\)",
        ),
    ],
)
def test_a_bert_that_does_not_fit_is_refused(tmp_path, bert, change, complaint):
    folder = save_bert(bert, tmp_path / "bert")
    weights = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
    change(weights)
    save_file(weights, folder / "model.safetensors")

    with pytest.raises(CheckpointError, match=complaint):
        start_base(bert=folder, config=TINY)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_size": 96}, "hidden_size is 96 in config.json, the weights have 48"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3 in config.json, the weights have 2"),
        ({"hidden_act": "relu"}, "no plain BERT: hidden_act is 'relu', must be 'gelu'"),
        ({"model_type": "roberta"}, "no plain BERT: model_type is 'roberta'"),
        ({"num_attention_heads": 5}, "num_attention_heads is 5: must divide hidden_size 48"),
        ({"num_attention_heads": "4"}, "num_attention_heads is '4': must be an integer"),
    ],
)
def test_a_bert_of_another_kind_is_refused(bert_folder, changes, complaint):
    path = bert_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    with pytest.raises((CheckpointError, ConfigError), match=complaint):
        start_base(bert=bert_folder, config=TINY)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("config.json", r"config\.json cannot be read: No such file"),
        ("model.safetensors", r"no model\.safetensors or pytorch_model\.bin in"),
        ("tokenizer.json", r"no tokenizer\.json or vocab\.txt in"),
    ],
)
def test_a_bert_folder_that_lacks_a_file_is_refused(bert_folder, name, complaint):
    (bert_folder / name).unlink()

    with pytest.raises(CheckpointError, match=complaint):
        start_base(bert=bert_folder, config=TINY)


@pytest.mark.parametrize(("lowercase", "first"), [(None, "a"), (True, "a"), (False, "[UNK]")])
def test_a_vocabulary_makes_the_tokenizer(bert_folder, lowercase, first):
    vocabulary = json.loads((bert_folder / "tokenizer.json").read_text())["model"]["vocab"]
    (bert_folder / "tokenizer.json").unlink()
    (bert_folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    if lowercase is not None:
        settings = {"do_lower_case": lowercase}
        (bert_folder / "tokenizer_config.json").write_text(json.dumps(settings))

    tokenizer = start_base(bert=bert_folder, config=TINY).checkpoint.tokenizer

    ids, _ = tokenizer.encode(["A dog"], max_length=10)
    assert ids[0, 1] == vocabulary[first]
    same, _ = tokenizer.encode(["two dogs, 3 cats!"], max_length=64)
    assert torch.equal(same, CHARACTERS.encode(["two dogs, 3 cats!"], max_length=64)[0])


def test_what_no_file_gives_is_drawn_by_the_seed():
    def draw(seed):
        return start_base(
            config=TINY, heads=("qa",), answers=TINY.answers, seed=seed
        ).checkpoint.network

    one, same, other = draw(1), draw(1), draw(2)

    expected = one.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in same.state_dict().items())
    assert not torch.equal(other.grid_encoder.conv.weight, one.grid_encoder.conv.weight)
    assert [head.name for head in one.config.heads] == ["qa"]


@pytest.mark.parametrize(
    ("heads", "answers", "complaint"),
    [
        (("qa",), (), r"heads\[qa\]\.num_outputs is 0: must be at least 1"),
        (("retrieval",), ("yes",), "answers has 1 texts: must be empty without qa"),
        (("sorting",), (), "heads.name is 'sorting': must be one of"),
    ],
)
def test_heads_that_cannot_be_are_refused(heads, answers, complaint):
    with pytest.raises(ConfigError, match=complaint):
        start_base(config=TINY, heads=heads, answers=answers)


def test_a_tokenizer_with_more_tokens_than_the_bert_has_is_refused(tmp_path):
    small = make_bert(vocab_size=100)

    with pytest.raises(CheckpointError, match="the tokenizer has 141 tokens, the BERT has embe"):
        start_base(bert=save_bert(small, tmp_path / "bert"), config=TINY)


def test_a_started_model_is_saved_with_its_origin(bert_folder, tmp_path):
    started = start_base(bert=bert_folder, config=TINY)

    write_model_folder(started.checkpoint, tmp_path / "base", card=started.card)

    loaded = load_folder(tmp_path / "base")
    assert loaded.network.config == started.checkpoint.network.config
    assert loaded.tokenizer is not None
    assert started.card.sources[0].sha256 in (tmp_path / "base" / "README.md").read_text()
