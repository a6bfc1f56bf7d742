"""A labelled corpus and a small model without dropout, for tests that train."""

import dataclasses

import pytest
from corpus import write_corpus

from clipbert.config import ClipBertConfig
from clipbert.model import ClipBert


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
