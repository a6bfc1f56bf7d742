"""The reference engine: torch, operation by operation."""

import torch

from clipbert.engines.devices import default_dtype
from clipbert.model.network import Network


def prepare_for_serving(network: Network, *, device: str, dtype: torch.dtype | None = None) -> None:
    """Change a network so that it answers as fast as its device can; it cannot be saved again.

    Batch norm is folded, weights go to the device in its own dtype, and convolutions read channels
    last. Heads, and the vectors that recall mixes, stay float32: they cost little, and their
    results are compared with one another.

    Args:
        network: as it was loaded, in float32.
        device: "cpu", "cuda" or "cuda:N".
        dtype: None takes that of `default_dtype`.
    """
    network.fold_batch_norm()  # in float32, where it is exact
    recall_vectors = None if network.recall is None else network.recall.class_vectors
    network.to(device, default_dtype(device) if dtype is None else dtype)
    network.heads.float()
    network.to(memory_format=torch.channels_last)
    if network.recall is not None and recall_vectors is not None:
        network.recall.class_vectors = recall_vectors.to(device)
