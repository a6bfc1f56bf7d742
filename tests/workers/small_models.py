"""Small models with random weights, which run in no time."""

from dataclasses import replace
from pathlib import Path

import torch

from clipbert.inference.clipbert import ClipBert
from clipbert.model.config import ClipBertConfig, GridEncoderConfig

NUM_CLASSES = 20


def save_recall_model(folder: Path, *, seed: int = 0) -> Path:
    """Write a clipbert-tiny that makes recall vectors too, as clipbert-mini does."""
    config = replace(
        ClipBertConfig.preset("clipbert-tiny"),
        grid_encoder=GridEncoderConfig("class_mixture", NUM_CLASSES),
        recall="zero_shot",
        recall_likeliest=5,
    )
    model = ClipBert.create(config, seed=seed)
    network = model.network
    generator = torch.Generator().manual_seed(seed)
    # Left at zero by the constructor: the real ones are the class names' embeddings.
    for vectors in (network.grid_encoder.class_embeddings, network.recall.class_vectors):
        vectors.copy_(torch.randn(vectors.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


def save_tiny(folder: Path, *, seed: int = 1) -> Path:
    """Write a clipbert-tiny whose retrieval and QA heads count as trained."""
    config = replace(ClipBertConfig.preset("clipbert-tiny"), trained_heads=("retrieval", "qa"))
    ClipBert.create(config, seed=seed).save_pretrained(folder)
    return folder
