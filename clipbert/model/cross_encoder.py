"""BERT over [text; visual], with a mask for both parts."""

from typing import cast

import torch
from torch import Tensor, nn

from clipbert.model.bert import BertEncoder, BertPooler
from clipbert.model.config import ClipBertConfig

# The authors' (and BERT's first) value: far below any score, yet finite in float16.
_MASKED = -10000.0


class CrossEncoder(nn.Module):
    """BERT's layers and pooler, with its parameter names (`encoder.layer.0...`, `pooler.dense`)."""

    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Have every token attend to every token that is not padding.

        Args:
            embeddings: (N, P, D), text tokens first.
            mask: (N, P), 1 for tokens, 0 for padding.

        Returns:
            (N, P, D), the last layer's hidden states. Those of padding mean nothing.
        """
        additive = (1.0 - mask.to(embeddings.dtype)) * _MASKED  # (N, P)
        return cast("Tensor", self.encoder(embeddings, additive[:, None, None]))

    def pool(self, hidden: Tensor) -> Tensor:
        """(N, P, D) -> (N, D): the first token, [CLS], through a layer and tanh."""
        return cast("Tensor", self.pooler(hidden))


def join_masks(text_mask: Tensor, num_visual_tokens: int) -> Tensor:
    """(N, L) -> (N, L + V): visual tokens are never masked, letterbox included."""
    ones = text_mask.new_ones(text_mask.shape[0], num_visual_tokens)
    return torch.cat([text_mask, ones], dim=1)
