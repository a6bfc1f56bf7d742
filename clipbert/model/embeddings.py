"""What the cross-encoder reads: text tokens and visual tokens with their positions."""

from typing import cast

from torch import Tensor, nn

from clipbert.model.config import ClipBertConfig

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

    The paper has no embedding that tells the frames of a clip apart, nor the clips of a video.
    Both are options of the configuration; their tables start at zero, where they change nothing.
    """

    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.grid_side = config.grid_side
        self.row_embeddings = nn.Embedding(config.num_rows, size)
        self.col_embeddings = nn.Embedding(config.num_cols, size)
        self.frame_embeddings = _table(config.frame_positions, size)
        self.clip_embeddings = _table(config.clip_positions, size)
        self.token_type_embeddings = nn.Embedding(1, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, grid: Tensor, *, places: Tensor | None = None, cells: Tensor | None = None
    ) -> Tensor:
        """Make a clip's grid the tokens that the cross-encoder reads, row after row.

        Args:
            grid: (N, h, w, D); with frame embeddings (N, T * h, w, D), frame after frame.
            places: (N,), where in its video each clip's middle lies, 0 to 1. Needed with clip
                embeddings, and not looked at without them.
            cells: int64, ascending: the tokens to keep, of all clips alike; None keeps all.

        Returns:
            (N, V, D), V the number of cells kept.

        Raises:
            ValueError: there are clip embeddings and no places, or more frames than embeddings.
        """
        rows = grid.shape[1]
        if self.frame_embeddings is not None:
            rows = self.grid_side
            grid = grid + self._frame_table(grid.shape[1] // rows)  # (N, T * h, w, D)
        row_table = self.row_embeddings.weight[:rows, None]  # (h, 1, D)
        grid = grid + row_table.repeat(grid.shape[1] // rows, 1, 1)
        grid = grid + self.col_embeddings.weight[: grid.shape[2]]
        if self.clip_embeddings is not None:
            grid = grid + self._clip_rows(places)[:, None, None]
        tokens = grid.flatten(1, 2)  # (N, V, D)
        if cells is not None:
            tokens = tokens[:, cells]
        tokens = tokens + self.token_type_embeddings.weight[0]
        return cast("Tensor", self.dropout(self.LayerNorm(tokens)))

    def _frame_table(self, num_frames: int) -> Tensor:
        table = cast("nn.Embedding", self.frame_embeddings).weight
        if num_frames > len(table):
            raise ValueError(f"a clip has {num_frames} frames, the model knows {len(table)} places")
        return table[:num_frames].repeat_interleave(self.grid_side, dim=0)[:, None]  # (T*h, 1, D)

    def _clip_rows(self, places: Tensor | None) -> Tensor:
        """Return the embedding of each clip's part of the video: (N, D)."""
        if places is None:
            raise ValueError("the model tells clips apart by their places: give places")
        table = cast("nn.Embedding", self.clip_embeddings)
        parts = (places.float() * table.num_embeddings).floor().long()
        return cast(
            "Tensor", table(parts.clamp(0, table.num_embeddings - 1).to(table.weight.device))
        )


def _table(num_places: int, size: int) -> nn.Embedding | None:
    return nn.Embedding(num_places, size) if num_places else None
