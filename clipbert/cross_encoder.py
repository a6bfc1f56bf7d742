"""BERT over [text; visual]: transformers' layers, with a mask for both parts."""

from typing import cast

import torch
from torch import Tensor, nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder, BertPooler

from clipbert.config import ClipBertConfig

# The authors' (and BERT's first) value: far below any score, yet finite in float16.
_MASKED = -10000.0


class CrossEncoder(nn.Module):
    """BERT's layers and pooler, with its parameter names (`encoder.layer.0...`, `pooler.dense`)."""

    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        bert = _bert_config(config)
        self.encoder = BertEncoder(bert)  # type: ignore[no-untyped-call]
        self.pooler = BertPooler(bert)  # type: ignore[no-untyped-call]

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Let every token attend to every token that is no padding.

        Args:
            embeddings: (N, S, D), text tokens first.
            mask: (N, S), 1 for tokens, 0 for padding.

        Returns:
            (N, S, D), the last layer's hidden states. Those of padding mean nothing.
        """
        additive = (1.0 - mask.to(embeddings.dtype)) * _MASKED
        hidden = self.encoder(embeddings, attention_mask=additive[:, None, None])
        return cast("Tensor", hidden.last_hidden_state)

    def pool(self, hidden: Tensor) -> Tensor:
        """(N, S, D) -> (N, D): the first token, [CLS], through a layer and tanh."""
        return cast("Tensor", self.pooler(hidden))


def join_masks(text_mask: Tensor, num_visual_tokens: int) -> Tensor:
    """(N, L) -> (N, L + V): visual tokens are never masked, letterbox included."""
    ones = text_mask.new_ones(text_mask.shape[0], num_visual_tokens)
    return torch.cat([text_mask, ones], dim=1)


def _bert_config(config: ClipBertConfig) -> BertConfig:
    bert = BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        hidden_act="gelu",  # the exact one, with erf
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        max_position_embeddings=config.num_positions,
        layer_norm_eps=config.layer_norm_eps,
    )
    bert._attn_implementation = "sdpa"
    return bert
