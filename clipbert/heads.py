"""Task heads: the pooled output of a (text, clip) pair -> logits."""

from typing import cast

from torch import Tensor, nn

from clipbert.config import ClipBertConfig, HeadConfig

# The authors' configurations name a scale, but their code always takes this one.
_HIDDEN_SCALE = 2


class TaskHead(nn.Module):
    """Dropout, a hidden layer of twice the size with ReLU, an output layer.

    One shape serves every task: retrieval puts out 2 logits (no match, match) or 1, question
    answering one an answer, multiple choice 1 for the pair of question and choice.
    """

    def __init__(self, head: HeadConfig, config: ClipBertConfig) -> None:
        super().__init__()
        hidden = _HIDDEN_SCALE * config.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(config.hidden_size, hidden)
        self.output = nn.Linear(hidden, head.num_outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, D) -> (N, num_outputs)."""
        return cast("Tensor", self.output(self.hidden(self.dropout(pooled)).relu()))


def build_heads(config: ClipBertConfig) -> nn.ModuleDict:
    """Make all heads of a configuration, by name, with random weights."""
    return nn.ModuleDict({head.name: TaskHead(head, config) for head in config.heads})
