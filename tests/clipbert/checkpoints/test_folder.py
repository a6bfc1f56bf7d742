import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipbert.checkpoints.folder import load_folder, save_folder
from clipbert.errors import CheckpointError, ConfigError
from clipbert.inference.clipbert import ClipBert
from clipbert.model.config import ClipBertConfig
from clipbert.model.network import Network
from clipbert.model.text import TextTokenizer

TINY = ClipBertConfig.preset("clipbert-tiny")


@pytest.fixture
def folder(tmp_path):
    ClipBert.create(TINY, seed=0).save_pretrained(tmp_path)
    return tmp_path


def change_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_a_model_survives_its_folder(folder):
    loaded = load_folder(folder).network

    expected = Network.create(TINY, seed=0).state_dict()
    assert loaded.config == TINY
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert not loaded.training


def test_a_folder_holds_the_files_of_the_hugging_face_form(folder):
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert json.loads((folder / "config.json").read_text())["model_type"] == "clipbert"
    assert TextTokenizer.from_folder(folder).vocab_size == TINY.vocab_size


def test_other_users_can_read_a_folder(folder):
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())


def test_a_loaded_model_saves_its_tokenizer_again(folder, tmp_path):
    ClipBert.from_pretrained(folder).save_pretrained(tmp_path / "again")

    again = tmp_path / "again" / "tokenizer.json"
    assert again.read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_saving_over_a_folder_replaces_it(folder):
    other = Network.create(TINY, seed=1)

    save_folder(other, folder, tokenizer=None)

    found, wanted = load_folder(folder).network.state_dict(), other.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_converted_to_the_wanted_dtype(folder, dtype):
    model = load_folder(folder, dtype=dtype).network

    assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}


def test_a_folder_of_half_precision_is_loaded_in_full(folder):
    ClipBert.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)

    model = load_folder(folder).network

    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_frozen_layers_are_still_frozen_after_loading(folder):
    model = load_folder(folder).network

    assert not model.backbone.conv1.weight.requires_grad
    assert model.backbone.layer2[0].conv1.weight.requires_grad


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda state: state.pop("grid_encoder.conv.weight"),
            r"1 missing: grid_encoder\.conv\.weight$",
        ),
        (lambda state: state.update(surprise=torch.zeros(1)), "1 unknown: surprise$"),
        (
            lambda state: state.update({"grid_encoder.conv.weight": torch.zeros(48, 3, 3)}),
            r"1 misshapen: grid_encoder\.conv\.weight is \(48, 3, 3\), must be \(48, 128, 3, 3\)",
        ),
        (
            lambda state: [state.pop(name) for name in list(state) if "layer.0" in name],
            r"16 missing: cross_encoder\.encoder\.layer\.0\.\S+(, \S+){4}, \.\.\.$",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_and_counted(folder, change, complaint):
    change_weights(folder, change)

    with pytest.raises(CheckpointError, match=complaint):
        load_folder(folder)


def test_all_that_is_wrong_is_said_at_once(folder):
    def change(state):
        state["other"] = state.pop("grid_encoder.conv.weight")

    change_weights(folder, change)

    with pytest.raises(CheckpointError, match=r"1 missing: grid.*; 1 unknown: other"):
        load_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_without_a_file_is_refused(folder, name):
    (folder / name).unlink()

    with pytest.raises(CheckpointError, match=f"no {name} in"):
        load_folder(folder)


def test_a_truncated_file_of_weights_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(CheckpointError, match="cannot be read"):
        load_folder(folder)


def test_a_contradiction_in_the_folders_configuration_is_named(folder):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"num_attention_heads": 5}))

    with pytest.raises(ConfigError, match="num_attention_heads is 5"):
        load_folder(folder)


def test_a_folded_model_is_not_saved(folder):
    model = load_folder(folder).network
    model.fold_batch_norm()

    with pytest.raises(CheckpointError, match="folded"):
        save_folder(model, folder, tokenizer=None)
