"""Task heads: the pooled output of a (text, clip) pair -> logits."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipbert.model.config import ClipBertConfig, HeadConfig

# The authors' configurations name a scale, but their code always takes this one.
_HIDDEN_SCALE = 2


class TaskHead(nn.Module):
    """Dropout, a hidden layer of twice the size with ReLU, an output layer.

    One shape serves most tasks: retrieval puts out 2 logits (no match, match) or 1, question
    answering one an answer, multiple choice 1 for the pair of question and choice.
    """

    def __init__(self, head: HeadConfig, config: ClipBertConfig) -> None:
        super().__init__()
        hidden = _HIDDEN_SCALE * config.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(config.hidden_size, hidden)
        self.output = nn.Linear(hidden, head.num_outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, D) -> (N, O)."""
        return cast("Tensor", self.output(self.hidden(self.dropout(pooled)).relu()))


class CountHead(nn.Module):
    """A number: dropout, a hidden layer with ELU and batch norm, dropout, one output.

    The batch norm is trained, and uses its running statistics in eval mode. In training it sees
    the pairs of one clip at a time, and needs at least two of them.

    Source: the authors' regression head, which their code defines and never runs. Their training
    passes the clips one by one, so that batch statistics are those of one clip of each video; all
    clips at once train another function.
    """

    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(size, size)
        self.norm = nn.BatchNorm1d(size)
        self.output = nn.Linear(size, 1)

    def forward(self, pooled: Tensor, *, num_clips: int = 1) -> Tensor:
        """(K * N, D), clip after clip -> (K * N, 1)."""
        hidden = functional.elu(self.hidden(self.dropout(pooled)))
        if self.training:
            # One after another, as the running statistics follow them.
            hidden = torch.cat([self.norm(of_clip) for of_clip in hidden.chunk(num_clips)])
        else:
            hidden = self.norm(hidden)
        return cast("Tensor", self.output(self.dropout(hidden)))


class PretrainingLogits(NamedTuple):
    """What pretraining predicts for a pair of text and clip.

    Attributes:
        words: (N, L, vocabulary), for each text token which word stands there.
        match: (N, 2): no match, match.
    """

    words: Tensor
    match: Tensor


class PretrainingHead(nn.Module):
    """BERT's two heads: masked words from the text tokens, match from the pooled output.

    The words' output layer is the table of word embeddings, which belongs to the text embeddings
    and is handed in; only its bias is here.
    """

    def __init__(self, head: HeadConfig, config: ClipBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.match = nn.Linear(config.hidden_size, head.num_outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, D) -> (N, 2), the match logits."""
        return cast("Tensor", self.match(pooled))

    def words(self, text: Tensor, word_embeddings: Tensor) -> Tensor:
        """(N, L, D) hidden states of the text, (vocabulary, D) -> (N, L, vocabulary)."""
        hidden = self.LayerNorm(functional.gelu(self.dense(text)))
        return functional.linear(hidden, word_embeddings, self.bias)


def build_heads(config: ClipBertConfig) -> nn.ModuleDict:
    """Make all heads of a configuration, by name, with random weights."""
    return nn.ModuleDict({head.name: _build_head(head, config) for head in config.heads})


def _build_head(head: HeadConfig, config: ClipBertConfig) -> nn.Module:
    if head.name == "count":
        return CountHead(config)
    if head.name == "pretraining":
        return PretrainingHead(head, config)
    return TaskHead(head, config)
