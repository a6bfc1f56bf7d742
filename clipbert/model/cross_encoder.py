"""BERT over [text; visual]: transformers' layers, with a mask for both parts."""

from typing import cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, BertConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.bert.modeling_bert import (
    BertEncoder,
    BertPooler,
    eager_attention_forward,
)

from clipbert.model.config import ClipBertConfig

# The authors' (and BERT's first) value: far below any score, yet finite in float16.
_MASKED = -10000.0
_ATTENTION = "clipbert"  # the name under which transformers finds ours


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
            embeddings: (N, P, D), text tokens first.
            mask: (N, P), 1 for tokens, 0 for padding.

        Returns:
            (N, P, D), the last layer's hidden states. Those of padding mean nothing.
        """
        additive = (1.0 - mask.to(embeddings.dtype)) * _MASKED
        hidden = self.encoder(embeddings, attention_mask=additive[:, None, None])
        return cast("Tensor", hidden.last_hidden_state)

    def pool(self, hidden: Tensor) -> Tensor:
        """(N, P, D) -> (N, D): the first token, [CLS], through a layer and tanh."""
        return cast("Tensor", self.pooler(hidden))


def join_masks(text_mask: Tensor, num_visual_tokens: int) -> Tensor:
    """(N, L) -> (N, L + V): visual tokens are never masked, letterbox included."""
    ones = text_mask.new_ones(text_mask.shape[0], num_visual_tokens)
    return torch.cat([text_mask, ones], dim=1)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float,
    **_others: object,  # of decoders
) -> tuple[Tensor, Tensor | None]:
    """Attend by torch's fused kernel, except where its gradient is slow.

    On a CPU the kernel's backward is most of a step for sequences as short as ours; with plain
    products the step takes half the time (benchmarks/attention_on_cpu.py). Without gradients the
    kernel is as fast, and in bfloat16 more exact.
    """
    has_gradient = torch.is_grad_enabled() and query.requires_grad
    plain = has_gradient and query.device.type == "cpu"
    attend = eager_attention_forward if plain else sdpa_attention_forward
    attended: tuple[Tensor, Tensor | None] = attend(
        module, query, key, value, attention_mask, scaling=scaling, dropout=dropout
    )
    return attended


AttentionInterface.register(_ATTENTION, _attend)


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
    bert._attn_implementation = _ATTENTION
    return bert
