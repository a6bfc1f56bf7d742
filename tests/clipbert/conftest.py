"""Models of the tests: clipbert-mini, clipbert-tiny with random heads; a labelled corpus."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from corpus import write_corpus

from clipbert.checkpoints.mini.build import build_mini
from clipbert.errors import CheckpointError
from clipbert.inference.clipbert import ClipBert
from clipbert.model.config import ClipBertConfig

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def mini_folder():
    """Where clipbert-mini is: CLIPBERT_MINI, or the folder that `make setup` builds it in."""
    if "CLIPBERT_MINI" in os.environ:
        return Path(os.environ["CLIPBERT_MINI"])
    cache = REPOSITORY / ".cache"
    try:
        return build_mini(cache / "clipbert-mini", cache=cache / "wheels")
    except CheckpointError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def mini(mini_folder):
    return ClipBert.for_serving(mini_folder, dtype=torch.float32)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    ClipBert.create(ClipBertConfig.preset("clipbert-tiny"), seed=7).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    return ClipBert.for_serving(tiny_folder, dtype=torch.float32)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory):
    """clipbert-tiny with random weights and no dropout."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    config = dataclasses.replace(ClipBertConfig.preset("clipbert-tiny"), dropout=0.0)
    ClipBert.create(config, seed=7).save_pretrained(folder)
    return folder
