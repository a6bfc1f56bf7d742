import hashlib

import pytest
import yaml

from clipbert.checkpoints.card import ModelCard, SourceFile
from clipbert.checkpoints.folder import Checkpoint
from clipbert.checkpoints.new_folder import write_model_folder
from clipbert.errors import CheckpointError
from clipbert.inference.clipbert import ClipBert
from clipbert.model.config import ClipBertConfig

TINY = ClipBertConfig.preset("clipbert-tiny")


def read_fields(markdown):
    _, fields, text = markdown.split("---\n", 2)
    return yaml.safe_load(fields), text


@pytest.mark.parametrize("name", ["model_step_9.pt", "a: |b|\n---\nc.pt", "видео.pt"])
def test_a_card_says_where_the_weights_come_from(tmp_path, name):
    (tmp_path / name).write_bytes(b"weights")
    card = ModelCard(
        summary="A model.",
        sources=(SourceFile.of("checkpoint", tmp_path / name),),
        skipped={"cnn.feature.roi_heads.": 12_619_729},
        random=("the grid encoder",),
    )

    fields, text = read_fields(card.to_markdown(TINY, name="tiny", dtype="float16"))

    sha256 = hashlib.sha256(b"weights").hexdigest()
    source = {"role": "checkpoint", "name": name, "size_bytes": 7, "sha256": sha256}
    assert fields == {
        "library_name": "clipbert",
        "clipbert": {
            "heads": ["retrieval", "qa", "multiple_choice"],
            "dtype": "float16",
            "sources": [source],
            "skipped": {"cnn.feature.roi_heads.": 12_619_729},
            "random": ["the grid encoder"],
        },
    }
    assert sha256 in text
    assert "`cnn.feature.roi_heads.`: 12,619,729 elements" in text
    assert "Drawn at random, to be trained: the grid encoder." in text


def test_a_card_describes_the_model():
    _, text = read_fields(ModelCard("A model.").to_markdown(TINY, name="tiny", dtype="float32"))

    assert text.strip().startswith("# tiny\n\nA model.")
    assert "| heads (outputs) | retrieval (2), qa (8), multiple_choice (1) |" in text
    assert "| frames | 128 px, BGR |" in text
    assert "Where the weights come from" not in text


def test_a_model_folder_has_its_card(tmp_path):
    model = Checkpoint.create(TINY, seed=0)

    write_model_folder(model, tmp_path / "tiny", card=ModelCard("A model."))

    names = {path.name for path in (tmp_path / "tiny").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert ClipBert.from_pretrained(tmp_path / "tiny").config == TINY
    assert (tmp_path / "tiny").stat().st_mode & 0o055 == 0o055  # other users may read it


def test_a_folder_that_cannot_be_finished_is_not_there(tmp_path):
    model = Checkpoint.create(TINY, seed=0)
    model.network.fold_batch_norm()

    with pytest.raises(CheckpointError, match="folded batch norm cannot be saved"):
        write_model_folder(model, tmp_path / "tiny", card=ModelCard("A model."))

    assert list(tmp_path.iterdir()) == []
