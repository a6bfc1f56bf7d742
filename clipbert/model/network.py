"""ClipBert: wires the parts. Frames -> visual tokens; text and visual tokens -> logits."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from clipbert.errors import CheckpointError, MissingHead
from clipbert.inference.clips import read_clips
from clipbert.inference.evidence import TextScore, VideoAnswer, VideoTokens, join_evidence
from clipbert.inference.requests import AnswerResult, QuestionRequest
from clipbert.model.aggregation import aggregate, clip_shares, match_probability
from clipbert.model.backbone import build_backbone, fold_batch_norm
from clipbert.model.config import ClipBertConfig
from clipbert.model.cross_encoder import CrossEncoder, join_masks
from clipbert.model.embeddings import TextEmbeddings, VisualEmbeddings
from clipbert.model.grid import ClassMixtureGridEncoder, build_grid_encoder
from clipbert.model.heads import CountHead, PretrainingHead, PretrainingLogits, build_heads
from clipbert.model.recall import RecallEncoder, pool_images, sentence_vectors
from clipbert.model.text import TextTokenizer
from clipbert.sampling.plan import SamplingPlan

if TYPE_CHECKING:
    from clipbert.inference.predictor import Predictor

INIT_STD = 0.02


class ClipBert(nn.Module):
    """CLIPBERT: a 2D CNN and a cross-encoder over a text and one clip.

    A video is K clips, each scored with the same text; clipbert.model.aggregation joins their
    logits.

        model = ClipBert.from_pretrained(folder)
        tokens = model.encode_video(path)                                 # what it saw, K clips
        model.answer(tokens, "what is the dog doing?").answer             # with evidence by clip
        model.score(tokens, ["a dog runs", "a cat sleeps"])               # P(match) for each text

    and, one step further down, with tensors:

        visual = model.encode_pixels(pixels)                              # (N, h, w, D)
        logits = model(token_ids, mask, visual, head="retrieval")         # (N, 2)

    Attributes:
        config: what the model was made from.
        backbone, grid_encoder: frames -> visual tokens; what cached tokens depend on.
        text_embeddings, visual_embeddings, cross_encoder: BERT over [text; visual].
        heads: task heads by name.
        recall: makes recall vectors, or None.
        tokenizer: saved with the model; None if unknown.

    Source: Lei et al., "Less Is More: ClipBERT", CVPR 2021.
    """

    def __init__(self, config: ClipBertConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer: TextTokenizer | None = None
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
    def create(cls, config: ClipBertConfig, *, seed: int) -> "ClipBert":
        """Make a model with random weights, the same for the same seed.

        Linear and embedding weights are drawn from N(0, 0.02), except that the row and column
        embeddings of a class mixture start at zero. torch's global generator is left as it was.

        Raises:
            ConfigError: the backbone cannot be built.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config)
            model._init_weights()
        spelling = TextTokenizer.from_characters()
        if config.vocab_size == spelling.vocab_size:
            model.tokenizer = spelling
        return model

    @classmethod
    def from_pretrained(
        cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "ClipBert":
        """Load a model folder: config.json, model.safetensors and, if there, tokenizer.json.

        Args:
            folder: as save_pretrained wrote it.
            device: "cpu", "cuda" or "cuda:N".
            dtype: float32, bfloat16 or float16; the weights are converted to it.

        Returns:
            The model in eval mode.

        Raises:
            CheckpointError: a file is missing or damaged, or its weights do not fit: unknown or
                missing keys, wrong shapes.
            ConfigError: config.json contradicts itself.
        """
        from clipbert.checkpoints.folder import load_folder  # noqa: PLC0415 (which imports this module)

        return load_folder(folder, device=device, dtype=dtype)

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json, model.safetensors and, if known, tokenizer.json.

        The folder is made if need be; each file replaces its predecessor at once.

        Raises:
            CheckpointError: batch norm was folded, so that the weights are no longer the model's.
        """
        from clipbert.checkpoints.folder import save_folder  # noqa: PLC0415 (which imports this module)

        save_folder(self, folder)

    def encode_video(
        self,
        path: Path | str,
        plan: SamplingPlan | None = None,
        *,
        num_threads: int = 0,
        dtype: torch.dtype = torch.float16,
    ) -> VideoTokens:
        """Look at a video: choose its clips, decode them, run the CNN on each once.

        Args:
            path: a video, or a picture, which is a video of one frame.
            plan: which clips; None is the model's own plan, config.plan.
            num_threads: of the decoder; 0 is one for each core.
            dtype: of the visual tokens. float16, as the service stores them, moves the logits of a
                full-size model by up to 1.5e-3; float32 gives those of the authors within 1e-4.

        Raises:
            VideoError: one of its subclasses says what is wrong with the file.
            ValueError: the model was not put into eval mode.
        """
        plan = plan or self.config.plan
        predictor = self._predictor()
        decoded = read_clips(
            Path(path), plan, max_side_px=self.config.max_side_px, num_threads=num_threads
        )
        encoded = predictor.encode_clips(decoded.frames, token_dtype=dtype)
        return VideoTokens(
            decoded.clips, encoded.tokens, encoded.recall, plan, decoded.duration_seconds
        )

    def answer(self, tokens: VideoTokens, question: str, *, top_k: int = 5) -> VideoAnswer:
        """Answer an open-ended question from the answers that the model knows.

        Args:
            tokens: as encode_video gave them.
            question: the text.
            top_k: answers to give, at least 1.

        Raises:
            MissingHead: the model has no qa head.
        """
        request = QuestionRequest(tokens.tokens, question, places=tokens.places)
        return _as_answer(tokens, self._predictor().answer([request], top_k=top_k)[0])

    def choose(self, tokens: VideoTokens, question: str, choices: Sequence[str]) -> VideoAnswer:
        """Choose among answers; without a trained multiple-choice head, by recall vectors.

        Args:
            tokens: as encode_video gave them.
            question: the text.
            choices: at least one.

        Raises:
            MissingHead: the model has no multiple-choice head and makes no recall vectors.
        """
        request = QuestionRequest(
            tokens.tokens, question, tuple(choices), tokens.recall, tokens.places
        )
        return _as_answer(tokens, self._predictor().choose([request])[0])

    def count(self, tokens: VideoTokens, question: str) -> float:
        """Answer a question for a number; not rounded.

        Raises:
            MissingHead: the model has no count head.
        """
        request = QuestionRequest(tokens.tokens, question, places=tokens.places)
        return self._predictor().count([request])[0].count

    def score(self, tokens: VideoTokens, texts: Sequence[str]) -> list[TextScore]:
        """Say how likely each text describes the video.

        Args:
            tokens: as encode_video gave them.
            texts: any number; all clips meet all texts, within a bound on memory.

        Returns:
            One result a text, in their order.

        Raises:
            MissingHead: the model has no retrieval head.
        """
        logits = self._predictor().score_pairs(
            "retrieval", tokens.tokens, texts, places=tokens.places
        )  # (K, Q, 2)
        scores = match_probability(aggregate(logits, self.config.aggregation))  # (Q,)
        return [
            TextScore(
                text,
                float(scores[row]),
                join_evidence(tokens.clips, logits[:, row], clip_shares(logits[:, row, -1])),
            )
            for row, text in enumerate(texts)
        ]

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
        """Give the recall vectors of texts.

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
        """Let each text meet one clip.

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
        """Let each text meet one clip, and give what the heads read: (N, D).

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
            Logits (N, num_outputs of the head).

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

    def _predictor(self) -> "Predictor":
        from clipbert.inference.predictor import Predictor  # noqa: PLC0415 (which imports this module)

        if self.training:
            raise ValueError("the model is in training mode, where dropout is random: call eval()")
        if self.tokenizer is None:
            raise CheckpointError("the model has no tokenizer")
        return Predictor(
            self, self.tokenizer, device=self.visual_embeddings.LayerNorm.weight.device
        )

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


def _as_answer(tokens: VideoTokens, result: AnswerResult) -> VideoAnswer:
    evidence = join_evidence(tokens.clips, result.clip_logits, result.clip_shares)
    return VideoAnswer(result.answers, evidence, result.zero_shot)
