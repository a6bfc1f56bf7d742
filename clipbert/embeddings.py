"""What the cross-encoder reads: text tokens and visual tokens with their positions."""

from typing import cast

from torch import Tensor, nn

from clipbert.config import ClipBertConfig

_TEXT_TYPES = 2  # BERT's two segments; only the first is used


class TextEmbeddings(nn.Module):
    """BERT's: word, position and type 0 embeddings, with its parameter names."""

    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size)
        self.position_embeddings = nn.Embedding(config.num_positions, size)
        self.token_type_embeddings = nn.Embedding(_TEXT_TYPES, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(N, L) int64 -> (N, L, D)."""
        length = token_ids.shape[1]
        words = self.word_embeddings(token_ids)  # (N, L, D)
        # This order of sums is BERT's; another one differs in the last bit.
        words = words + self.token_type_embeddings.weight[0]
        words = words + self.position_embeddings.weight[:length]
        return cast("Tensor", self.dropout(self.LayerNorm(words)))


class VisualEmbeddings(nn.Module):
    """Row, column and type embeddings for a clip's grid.

    No embedding tells the frames of a clip apart, nor the clips of a video.
    """

    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.row_embeddings = nn.Embedding(config.num_rows, size)
        self.col_embeddings = nn.Embedding(config.num_cols, size)
        self.token_type_embeddings = nn.Embedding(1, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, grid: Tensor) -> Tensor:
        """(N, h, w, D) -> (N, V, D), row after row."""
        rows, cols = grid.shape[1:3]
        grid = grid + self.row_embeddings.weight[:rows, None]  # (N, h, w, D)
        grid = grid + self.col_embeddings.weight[:cols]
        tokens = grid.flatten(1, 2) + self.token_type_embeddings.weight[0]  # (N, V, D)
        return cast("Tensor", self.dropout(self.LayerNorm(tokens)))
