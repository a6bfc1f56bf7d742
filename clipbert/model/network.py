"""The network: wires the parts. Pixels -> visual tokens; text and visual tokens -> logits."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from clipbert.errors import MissingHead
from clipbert.model.backbone import build_backbone, fold_batch_norm
from clipbert.model.config import ClipBertConfig
from clipbert.model.cross_encoder import CrossEncoder, join_masks
from clipbert.model.embeddings import TextEmbeddings, VisualEmbeddings
from clipbert.model.grid import ClassMixtureGridEncoder, build_grid_encoder
from clipbert.model.heads import CountHead, PretrainingHead, PretrainingLogits, build_heads
from clipbert.model.recall import RecallEncoder, pool_images, sentence_vectors

INIT_STD = 0.02


class Network(nn.Module):
    """CLIPBERT on tensors: a 2D CNN, and a cross-encoder over a text and one clip.

    A video is K clips, each scored with the same text; clipbert.model.aggregation joins their
    logits. clipbert.inference.clipbert.ClipBert reads videos and texts for it.

        visual = network.encode_pixels(pixels)                              # (N, h, w, D)
        logits = network(token_ids, mask, visual, head="retrieval")         # (N, 2)

    Attributes:
        config: what the network was made from.
        backbone, grid_encoder: frames -> visual tokens; what cached tokens depend on.
        text_embeddings, visual_embeddings, cross_encoder: BERT over [text; visual].
        heads: task heads by name.
        recall: makes recall vectors, or None.
        is_folded: batch norm was folded: it can no longer be trained or saved.

    Source: Lei et al., "Less Is More: ClipBERT", CVPR 2021.
    """

    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        self.config = config
        self.is_folded = False
        self.backbone = build_backbone(config.backbone)
        self.grid_encoder = build_grid_encoder(
            config.grid_encoder,
            channels=self.backbone.num_channels,
            hidden_size=config.hidden_size,
        )
        self.text_embeddings = TextEmbeddings(config)
        self.visual_embeddings = VisualEmbeddings(config)
        self.cross_encoder = CrossEncoder(config)
        self.heads = build_heads(config)
        self.recall: RecallEncoder | None = None
        if config.recall is not None:
            self.recall = RecallEncoder(
                num_classes=config.grid_encoder.num_classes,
                dim=config.hidden_size,
                num_likeliest=config.recall_likeliest,
            )

    @classmethod
    def create(cls, config: ClipBertConfig, *, seed: int) -> "Network":
        """Make a network with random weights, the same for the same seed.

        Linear and embedding weights are drawn from N(0, 0.02), except that the row and column
        embeddings of a class mixture start at zero. torch's global generator is left as it was.

        Raises:
            ConfigError: the backbone cannot be built.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = cls(config)
            network._init_weights()
        return network

    @property
    def recall_dim(self) -> int | None:
        """R, the length of recall vectors; None if the model makes none."""
        return None if self.recall is None else self.config.hidden_size

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Run the CNN on clips, once for all texts.

        Args:
            pixels: (N, T, 3, S, S) as clipbert.model.pixels.clips_to_pixels gives them, in the
                model's dtype.

        Returns:
            (N, h, w, D), the mean over frames, before row, column and type embeddings: what is
            cached. With frame embeddings (N, T * h, w, D), frame after frame.

        Raises:
            ValueError: another shape.
        """
        return self._tokens(self._features(pixels), pixels.shape[1])

    def encode_clips(
        self, pixels: Tensor, frame_sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor | None]:
        """Run the CNN on clips for visual tokens and recall vectors together.

        Args:
            pixels: (N, T, 3, S, S), as for encode_pixels.
            frame_sizes: N pairs (height, width) of the frames before they were fitted into the
                square: the letterbox is left out of recall vectors.

        Returns:
            Visual tokens (N, h, w, D), and recall vectors (N, R) float32 of length 1, or None if
            the model makes none.

        Raises:
            ValueError: another shape.
        """
        features = self._features(pixels)  # (N*T, C, 2h, 2w)
        num_frames = pixels.shape[1]
        tokens = self._tokens(features, num_frames)
        if self.recall is None:
            return tokens, None
        grid_encoder = cast("ClassMixtureGridEncoder", self.grid_encoder)  # as the config checks
        sizes = [size for size in frame_sizes for _ in range(num_frames)]
        logits = grid_encoder.class_logits(pool_images(features, sizes))  # (N*T, classes)
        return tokens, self.recall(logits.unflatten(0, (-1, num_frames)))

    def encode_texts(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Return the recall vectors of texts.

        Args:
            token_ids: (N, L) int64.
            mask: (N, L), 1 for tokens, 0 for padding.

        Returns:
            (N, R) float32, of length 1.

        Raises:
            MissingHead: the model makes no recall vectors.
        """
        if self.recall is None:
            raise MissingHead("recall")
        self._check_text(token_ids, mask)
        return sentence_vectors(self.cross_encoder(self.text_embeddings(token_ids), mask), mask)

    def sequence_output(
        self,
        token_ids: Tensor,
        mask: Tensor,
        visual: Tensor,
        *,
        places: Tensor | None = None,
        cells: Tensor | None = None,
    ) -> Tensor:
        """Encode each text together with one clip.

        Args:
            token_ids: (N, L) int64, as TextTokenizer.encode gives them.
            mask: (N, L), 1 for tokens, 0 for padding.
            visual: (N, h, w, D), as encode_pixels gave it; converted to the model's dtype.
            places: (N,), where in its video each clip's middle lies, 0 to 1; needed only by a
                model with clip embeddings.
            cells: int64, ascending: the visual tokens that are kept, as pretraining does; None
                keeps all V.

        Returns:
            (N, L + V, D), the cross-encoder's hidden states.

        Raises:
            ValueError: shapes or dtypes that do not go together.
        """
        self._check_text(token_ids, mask)
        self._check_visual(visual, len(token_ids))
        visual = self.visual_embeddings(
            visual.to(self.visual_embeddings.LayerNorm.weight.dtype), places=places, cells=cells
        )  # (N, V, D)
        text = self.text_embeddings(token_ids)  # (N, L, D)
        joint = torch.cat([text, visual], dim=1)  # (N, L + V, D)
        return cast("Tensor", self.cross_encoder(joint, join_masks(mask, visual.shape[1])))

    def pooled_output(
        self, token_ids: Tensor, mask: Tensor, visual: Tensor, *, places: Tensor | None = None
    ) -> Tensor:
        """Encode each text together with one clip, and return what the heads read: (N, D).

        Arguments and errors are those of sequence_output.
        """
        hidden = self.sequence_output(token_ids, mask, visual, places=places)
        return self.cross_encoder.pool(hidden)

    def pretrain(
        self,
        token_ids: Tensor,
        mask: Tensor,
        visual: Tensor,
        *,
        places: Tensor | None = None,
        cells: Tensor | None = None,
    ) -> PretrainingLogits:
        """Predict masked words, and whether text and clip belong together.

        Arguments are those of sequence_output.

        Raises:
            MissingHead: the model has no pretraining head.
            ValueError: shapes or dtypes that do not go together.
        """
        if "pretraining" not in self.heads:
            raise MissingHead("pretraining")
        head = cast("PretrainingHead", self.heads["pretraining"])
        hidden = self.sequence_output(token_ids, mask, visual, places=places, cells=cells)
        pooled = self.cross_encoder.pool(hidden)
        dtype = head.bias.dtype
        with torch.autocast(pooled.device.type, enabled=False):
            words = head.words(
                hidden[:, : token_ids.shape[1]].to(dtype),
                self.text_embeddings.word_embeddings.weight.to(dtype),
            )
            return PretrainingLogits(words, head(pooled.to(dtype)))

    def forward(
        self,
        token_ids: Tensor,
        mask: Tensor,
        visual: Tensor,
        *,
        head: str,
        places: Tensor | None = None,
        num_clips: int = 1,
    ) -> Tensor:
        """Score texts, each with one clip.

        Args:
            token_ids: (N, L) int64.
            mask: (N, L), 1 for tokens, 0 for padding.
            visual: (N, h, w, D), as encode_pixels gave it.
            head: name of a head.
            places: as for sequence_output.
            num_clips: K, if the N rows are K clips of N / K texts, clip after clip: in training the
                count head normalises over one clip at a time.

        Returns:
            Logits (N, O).

        Raises:
            MissingHead: the model has no such head.
            ValueError: shapes or dtypes that do not go together.
        """
        if head not in self.heads:
            raise MissingHead(head)
        pooled = self.pooled_output(token_ids, mask, visual, places=places)
        chosen = self.heads[head]
        # In the head's own precision, float32 beside a network of 16 bits and under autocast.
        with torch.autocast(pooled.device.type, enabled=False):
            pooled = pooled.to(next(chosen.parameters()).dtype)
            if isinstance(chosen, CountHead):
                return cast("Tensor", chosen(pooled, num_clips=num_clips))
            return cast("Tensor", chosen(pooled))

    def fold_batch_norm(self) -> None:
        """Fold the backbone's batch norm into its convolutions: for inference, cannot be undone.

        Best done in float32, before the weights are converted to bfloat16.
        """
        if not self.is_folded:
            fold_batch_norm(self.backbone)
            self.is_folded = True

    def _features(self, pixels: Tensor) -> Tensor:
        side = self.config.max_side_px
        if pixels.ndim != 5 or pixels.shape[2:] != (3, side, side) or 0 in pixels.shape:  # noqa: PLR2004
            raise ValueError(f"need pixels (N, T, 3, {side}, {side}), got {tuple(pixels.shape)}")
        frames = pixels.flatten(0, 1)  # (N*T, 3, S, S)
        return cast("Tensor", self.backbone(frames))

    def _tokens(self, features: Tensor, num_frames: int) -> Tensor:
        grid = self.grid_encoder(features).unflatten(0, (-1, num_frames))  # (N, T, h, w, D)
        if self.config.frame_positions:
            return cast("Tensor", grid.flatten(1, 2))  # (N, T * h, w, D)
        # A clip is its frames' mean.
        return cast("Tensor", grid.mean(dim=1))  # (N, h, w, D)

    def _check_text(self, token_ids: Tensor, mask: Tensor) -> None:
        if token_ids.ndim != 2 or token_ids.dtype != torch.int64:  # noqa: PLR2004
            raise ValueError(
                f"need int64 token ids (N, L), got {token_ids.dtype} {tuple(token_ids.shape)}"
            )
        if mask.shape != token_ids.shape:
            raise ValueError(f"mask is {tuple(mask.shape)}, ids are {tuple(token_ids.shape)}")
        if token_ids.shape[1] > self.config.num_positions:
            raise ValueError(
                f"text of {token_ids.shape[1]} tokens, the model has {self.config.num_positions} "
                "positions"
            )

    def _check_visual(self, visual: Tensor, rows: int) -> None:
        config = self.config
        if (
            visual.ndim != 4  # noqa: PLR2004
            or len(visual) != rows
            or visual.shape[3] != config.hidden_size
            or not self._has_rows(visual.shape[1])
            or visual.shape[2] > config.num_cols
        ):
            raise ValueError(
                f"need visual tokens ({rows}, h, w, {config.hidden_size}), got "
                f"{tuple(visual.shape)}"
            )

    def _has_rows(self, rows: int) -> bool:
        if self.config.frame_positions:
            return rows % self.config.grid_side == 0
        return rows <= self.config.num_rows

    def _init_weights(self) -> None:
        parts = (self.text_embeddings, self.visual_embeddings, self.cross_encoder, self.heads)
        with torch.no_grad():
            for part in parts:
                for module in part.modules():
                    if isinstance(module, nn.Linear | nn.Embedding):
                        module.weight.normal_(0.0, INIT_STD)
                    if isinstance(module, nn.Linear):
                        module.bias.zero_()
            for table in (
                self.visual_embeddings.frame_embeddings,
                self.visual_embeddings.clip_embeddings,
            ):
                if table is not None:
                    table.weight.zero_()
            if self.config.grid_encoder.kind == "class_mixture":
                # The tokens already mean words; random positions would only be noise on them.
                self.visual_embeddings.row_embeddings.weight.zero_()
                self.visual_embeddings.col_embeddings.weight.zero_()
