"""BERT's layers and pooler, with the parameter names that its checkpoints have.

They are written here rather than taken from transformers, which takes longer to import than torch
itself: whatever holds a model would wait for it, and keep it in memory.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipbert.model.config import ClipBertConfig

# Query, key and value (N, heads, P, D / heads), an additive mask (N, 1, 1, P), the rate of dropout
# -> (N, heads, P, D / heads)
Attend = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


class BertEncoder(nn.Module):
    """The layers one after another (`layer.0...`).

    Source: Devlin et al., BERT, NAACL 2019; exact GELU, the norm after each residual sum.
    """

    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))

    def forward(self, hidden: Tensor, additive_mask: Tensor) -> Tensor:
        """(N, P, D) and a mask of (N, 1, 1, P), added to the scores -> (N, P, D)."""
        for layer in self.layer:
            hidden = layer(hidden, additive_mask)
        return hidden

    def attend_by(self, attend: Attend) -> None:
        """Compute attention another way; without it, `attend` is used."""
        for module in self.modules():
            if isinstance(module, _SelfAttention):
                module.attend = attend


class BertPooler(nn.Module):
    """The first token, [CLS], through a layer and tanh."""

    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, P, D) -> (N, D)."""
        return torch.tanh(self.dense(hidden[:, 0]))


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """Attend by torch's fused kernel, except where its gradient is slow.

    On a CPU the kernel's backward is most of a step for sequences as short as ours; with plain
    products the step takes half the time (benchmarks/attention_on_cpu.py). Without gradients the
    kernel is as fast, and in bfloat16 more exact.
    """
    has_gradient = torch.is_grad_enabled() and query.requires_grad
    plain = has_gradient and query.device.type == "cpu"
    return (attend_plainly if plain else attend_fused)(query, key, value, mask, dropout)


def attend_fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """Attend by torch's own kernel."""
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout
    )


def attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float
) -> Tensor:
    """Attend by two matrix products and a softmax."""
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + mask  # (N, heads, P, P)
    return functional.dropout(scores.softmax(dim=-1), dropout) @ value  # (N, heads, P, D / heads)


class _SelfAttention(nn.Module):
    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.num_heads = config.num_attention_heads
        self.attend: Attend = attend

    def forward(self, hidden: Tensor, additive_mask: Tensor) -> Tensor:
        """(N, P, D) -> (N, P, D)."""
        query, key, value = (
            projection(hidden).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )  # (N, heads, P, D / heads) each
        dropout = self.dropout.p if self.training else 0.0
        attended = self.attend(query, key, value, additive_mask, dropout)
        return attended.transpose(1, 2).flatten(2)  # (N, P, D)


class _AddedProjection(nn.Module):
    """A projection that is added to what came in, and the sum's norm."""

    def __init__(self, num_inputs: int, config: ClipBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(num_inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, residual: Tensor) -> Tensor:
        """(N, P, features) and (N, P, D) -> (N, P, D)."""
        normed: Tensor = self.LayerNorm(self.dropout(self.dense(features)) + residual)
        return normed


class _Attention(nn.Module):
    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _AddedProjection(config.hidden_size, config)

    def forward(self, hidden: Tensor, additive_mask: Tensor) -> Tensor:
        """(N, P, D) -> (N, P, D)."""
        added: Tensor = self.output(self.self(hidden, additive_mask), hidden)
        return added


class _Intermediate(nn.Module):
    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, P, D) -> (N, P, inner size)."""
        return functional.gelu(self.dense(hidden))


class _Layer(nn.Module):
    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = _Intermediate(config)
        self.output = _AddedProjection(config.intermediate_size, config)

    def forward(self, hidden: Tensor, additive_mask: Tensor) -> Tensor:
        """(N, P, D) -> (N, P, D)."""
        attended = self.attention(hidden, additive_mask)
        added: Tensor = self.output(self.intermediate(attended), attended)
        return added
