"""Frames -> clip tokens; tokens and texts -> scores, answers and evidence, many requests at once.

The CNN runs once per clip (encode_clips); what it gives is stored and read by every text that
comes later (match, answer, choose, count).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipbert.engines.devices import default_dtype
from clipbert.errors import CheckpointError, MissingHead
from clipbert.inference.pair_scores import PairScorer, TextAndClips, by_length
from clipbert.inference.requests import (
    AnswerResult,
    CountResult,
    EncodedClips,
    MatchRequest,
    MatchResult,
    QuestionRequest,
    ScoredAnswer,
)
from clipbert.model.aggregation import aggregate, clip_shares, match_probability
from clipbert.model.config import ClipBertConfig
from clipbert.model.network import ClipBert
from clipbert.model.pixels import clips_to_pixels
from clipbert.model.text import TOKENIZER_FILE, TextTokenizer

__all__ = [
    "AnswerResult",
    "CountResult",
    "EncodedClips",
    "MatchRequest",
    "MatchResult",
    "Predictor",
    "QuestionRequest",
    "ScoredAnswer",
    "default_dtype",
]

# Bounds of one forward pass, so that its activations stay below about 1 GiB on a CPU.
_CPU_PIXELS = 16 * 448 * 448
_CPU_TOKENS = 16 * 1024
_CUDA_FACTOR = 8

# Cosines of sentence vectors differ by a few hundredths between a good choice and a bad one. This
# spreads them over the probabilities; it is not calibrated, and zero_shot says so.
ZERO_SHOT_TEMPERATURE = 0.05


class Predictor:
    """A model ready to answer: on its device, in its dtype, batch norm folded, with its tokenizer.

    predictor = Predictor.load(Path("clipbert-mini"))
    encoded = predictor.encode_clips(decode_clips(path, plan_clips(probe, INDEX_PLAN)))
    similarity = encoded.recall @ predictor.encode_texts(["a white parrot"]).T    # (K, 1)
    """

    def __init__(self, model: ClipBert, tokenizer: TextTokenizer, *, device: torch.device) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._device = device
        self._dtype = next(model.parameters()).dtype
        factor = _CUDA_FACTOR if device.type == "cuda" else 1
        self._max_pixels = _CPU_PIXELS * factor
        self._max_tokens = _CPU_TOKENS * factor
        self._pairs = PairScorer(
            model, tokenizer, device=device, dtype=self._dtype, max_tokens=self._max_tokens
        )
        self.config: ClipBertConfig = model.config

    @classmethod
    def load(
        cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> "Predictor":
        """Load a model folder.

        Args:
            folder: a model folder in the Hugging Face form.
            device: "cpu", "cuda" or "cuda:N".
            dtype: None takes bfloat16 where the device multiplies it in hardware, float16 on older
                GPUs, else float32; see default_dtype. Heads and logits are float32 always.

        Raises:
            CheckpointError: the folder is incomplete or does not fit.
        """
        model = ClipBert.from_pretrained(folder)
        if model.tokenizer is None:
            raise CheckpointError(f"no {TOKENIZER_FILE} in {folder}")
        model.fold_batch_norm()  # in float32, where it is exact
        recall_vectors = None if model.recall is None else model.recall.class_vectors
        model.to(device, default_dtype(device) if dtype is None else dtype)
        model.heads.float()  # few operations, whose results are compared with one another
        model.to(memory_format=torch.channels_last)
        if model.recall is not None and recall_vectors is not None:
            model.recall.class_vectors = recall_vectors.to(device)  # stays float32
        return cls(model, model.tokenizer, device=torch.device(device))

    @property
    def recall_dim(self) -> int | None:
        """R, the length of recall vectors; None if the model is no recall encoder."""
        return self._model.recall_dim

    def has_head(self, name: str) -> bool:
        """Tell whether the model has a head of this name, trained or not."""
        return self.config.head(name) is not None

    def has_trained_head(self, name: str) -> bool:
        """Tell whether the model has a head of this name whose weights were trained."""
        return name in self.config.trained_heads

    def encode_clips(
        self, clips: Sequence[NDArray[np.uint8]], *, token_dtype: torch.dtype = torch.float16
    ) -> EncodedClips:
        """Run the CNN on clips, of one video or of several.

        Args:
            clips: N arrays (T, H, W, 3), RGB, uint8, with one T; H and W may differ.
            token_dtype: of the visual tokens. float16, as they are stored, moves the logits of a
                full-size model by up to 1.5e-3; float32 keeps those of the authors within 1e-4.

        Returns:
            Visual tokens and, if the model is a recall encoder, recall vectors: one CNN pass
            gives both.

        Raises:
            ExtremeAspectRatio: a frame is more than five times as long as wide.
            CheckpointError: visual tokens that token_dtype cannot hold.
            ValueError: no clips, or arrays of another shape or dtype.
        """
        if not clips:
            raise ValueError("encode_clips needs at least one clip")
        config = self.config
        pixels_per_clip = len(clips[0]) * config.max_side_px**2
        chunk_size = max(1, self._max_pixels // max(1, pixels_per_clip))
        tokens, recall = [], []
        for start in range(0, len(clips), chunk_size):
            chunk = clips[start : start + chunk_size]
            pixels = clips_to_pixels(
                chunk,
                max_side_px=config.max_side_px,
                mean=config.mean,
                std=config.std,
                channel_order=config.channel_order,
                device=self._device,
            ).to(self._dtype)  # (N, T, 3, S, S)
            sizes = [(clip.shape[1], clip.shape[2]) for clip in chunk]
            with torch.inference_mode():
                visual, vectors = self._model.encode_clips(pixels, sizes)
            kept = visual.to("cpu", token_dtype)
            if not kept.isfinite().all():
                name = str(token_dtype).removeprefix("torch.")
                raise CheckpointError(f"the model's visual tokens are too large for {name}")
            tokens.append(kept)
            if vectors is not None:
                recall.append(vectors.float().cpu())
        return EncodedClips(torch.cat(tokens), torch.cat(recall) if recall else None)

    def match(self, requests: Sequence[MatchRequest]) -> list[MatchResult]:
        """Say how likely each text describes its video.

        Args:
            requests: any number, of videos with any numbers of clips.

        Returns:
            One result a request, in their order.

        Raises:
            MissingHead: the model has no retrieval head.
            ValueError: tokens of a wrong shape.
        """
        rows = [TextAndClips(each.tokens, each.text, each.places) for each in requests]
        return [self.match_of(logits) for logits in self.score_rows("retrieval", rows)]

    def match_of(self, logits: Tensor) -> MatchResult:
        """Sum up what score_rows("retrieval", ...) says of the clips of a video.

        Args:
            logits: (K, 2) or (K, 1), of all clips that count.
        """
        score = match_probability(aggregate(logits, self.config.aggregation))
        return MatchResult(float(score), logits, clip_shares(logits[:, -1]))

    def answer(self, requests: Sequence[QuestionRequest], *, top_k: int = 5) -> list[AnswerResult]:
        """Answer open-ended questions from the head's vocabulary.

        Args:
            requests: any number; their choices are not looked at.
            top_k: answers to give, at least 1.

        Returns:
            One result a request, in their order.

        Raises:
            MissingHead: the model has no question answering head.
            ValueError: tokens of a wrong shape, or top_k below 1.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        rows = [TextAndClips(each.tokens, each.question, each.places) for each in requests]
        return [self.answer_of(logits, top_k=top_k) for logits in self.score_rows("qa", rows)]

    def answer_of(self, logits: Tensor, *, top_k: int = 5) -> AnswerResult:
        """Sum up what score_rows("qa", ...) says of the clips of a video.

        Args:
            logits: (K, A), of all clips that count.
            top_k: answers to give, at least 1.
        """
        return self._ranked(logits, self.config.answers, top_k)

    def choose(self, requests: Sequence[QuestionRequest]) -> list[AnswerResult]:
        """Choose among the answers that each request brings.

        A trained multiple-choice head reads the question with each choice. Without one, a request
        that has recall vectors is answered zero-shot: its choices are ranked by their similarity
        to the best clip, the question itself is not read. (With the question before each choice,
        6 of 11 questions about the sample clips came out right, without it 8.)

        Args:
            requests: any number, each with at least one choice.

        Returns:
            One result a request, in their order, with all of its choices ranked.

        Raises:
            MissingHead: no multiple-choice head, and no recall vectors to do without.
            ValueError: a request has no choices, or tensors of a wrong shape.
        """
        for request in requests:
            if not request.choices:
                raise ValueError("a multiple-choice question needs at least one choice")
        if self.has_trained_head("multiple_choice"):
            return self._choose_by_head(requests)
        recalls = [request.recall for request in requests if request.recall is not None]
        if self.recall_dim is not None and len(recalls) == len(requests):
            return self._choose_by_recall(requests, recalls)
        self._require_head("multiple_choice")
        return self._choose_by_head(requests)

    def count(self, requests: Sequence[QuestionRequest]) -> list[CountResult]:
        """Answer questions for a number.

        Args:
            requests: any number; their choices are not looked at.

        Returns:
            One result a request, in their order.

        Raises:
            MissingHead: the model has no count head.
            ValueError: tokens of a wrong shape.
        """
        self._require_head("count")
        rows = [TextAndClips(each.tokens, each.question, each.places) for each in requests]
        # A sum of exponentials of numbers is no number: such a model counts by the mean.
        how = "mean" if self.config.aggregation == "lse" else self.config.aggregation
        return [
            CountResult(float(aggregate(logits[:, 0], how)), logits)
            for logits in self._pairs.score_rows("count", rows)
        ]

    def score_rows(self, head: str, rows: Sequence[TextAndClips]) -> list[Tensor]:
        """Score each row's text with each of its clips, before any aggregation.

        A video's clips may come in several calls: what a clip scores does not depend on others.

        Returns:
            (K, C) float32 on the CPU for each row.

        Raises:
            MissingHead: the model has no such head.
            ValueError: tokens of a wrong shape, or not one place for each clip.
        """
        self._require_head(head)
        return self._pairs.score_rows(head, rows)

    def score_pairs(
        self,
        head: str,
        tokens: Tensor,
        texts: Sequence[str],
        *,
        places: Sequence[float] | None = None,
    ) -> Tensor:
        """Score every text with every clip of one video, within a bound on memory.

        Args:
            head: name of a head.
            tokens: (K, h, w, D), as encode_clips gave them.
            texts: Q texts.
            places: where in the video each clip's middle lies, 0 to 1; None spreads them evenly.

        Returns:
            Logits (K, Q, C) float32 on the CPU, before any aggregation.

        Raises:
            MissingHead: the model has no such head.
            ValueError: tokens of a wrong shape.
        """
        self._require_head(head)
        return self._pairs.score_video(head, tokens, texts, places=places)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Give the recall vectors of texts.

        Args:
            texts: Q texts.

        Returns:
            (Q, R) float32 on the CPU, of length 1.

        Raises:
            MissingHead: the model is no recall encoder.
        """
        if self.recall_dim is None:
            raise MissingHead("recall")
        ids, mask = self._tokenizer.encode(texts, max_length=self.config.max_text_tokens)
        vectors = torch.empty(len(texts), self.recall_dim)
        with torch.inference_mode():
            for rows, length in by_length(mask.sum(dim=1), self._max_tokens, extra_tokens=0):
                vectors[rows] = self._model.encode_texts(
                    ids[rows, :length].to(self._device), mask[rows, :length].to(self._device)
                ).cpu()
        return vectors

    def _require_head(self, name: str) -> None:
        if not self.has_head(name):
            raise MissingHead(name)

    def _choose_by_head(self, requests: Sequence[QuestionRequest]) -> list[AnswerResult]:
        rows = [
            TextAndClips(request.tokens, f"{request.question} {choice}", request.places)
            for request in requests
            for choice in request.choices
        ]
        logits = iter(self.score_rows("multiple_choice", rows))  # each (K, 1)
        return [
            self.choice_of([next(logits) for _ in request.choices], request.choices)
            for request in requests
        ]

    def choice_of(self, logits: Sequence[Tensor], choices: Sequence[str]) -> AnswerResult:
        """Sum up what score_rows("multiple_choice", ...) says of a question with each choice.

        Args:
            logits: (K, 1) for each choice, of all clips that count.
            choices: at least one.
        """
        return self._ranked(torch.cat(list(logits), dim=1), choices, len(choices))

    def _choose_by_recall(
        self, requests: Sequence[QuestionRequest], recalls: Sequence[Tensor]
    ) -> list[AnswerResult]:
        texts = list(dict.fromkeys(choice for request in requests for choice in request.choices))
        vectors = dict(zip(texts, self.encode_texts(texts), strict=True))
        results = []
        for request, recall in zip(requests, recalls, strict=True):
            choices = torch.stack([vectors[choice] for choice in request.choices])  # (A, R)
            cosines = recall.float() @ choices.T  # (K, A)
            best = cosines.max(dim=0).values  # (A,)
            probabilities = (best / ZERO_SHOT_TEMPERATURE).softmax(0)
            order = best.argsort(descending=True, stable=True)
            results.append(
                AnswerResult(
                    answers=_scored(request.choices, probabilities, best, order),
                    clip_logits=cosines,
                    clip_shares=clip_shares(cosines[:, order[0]] / ZERO_SHOT_TEMPERATURE),
                    zero_shot=True,
                )
            )
        return results

    def _ranked(self, logits: Tensor, answers: Sequence[str], top_k: int) -> AnswerResult:
        video = aggregate(logits, self.config.aggregation)  # (A,)
        order = video.argsort(descending=True, stable=True)
        return AnswerResult(
            answers=_scored(answers, video.softmax(0), video, order[:top_k]),
            clip_logits=logits,
            clip_shares=clip_shares(logits[:, order[0]]),
        )


def _scored(
    answers: Sequence[str], probabilities: Tensor, logits: Tensor, order: Tensor
) -> tuple[ScoredAnswer, ...]:
    return tuple(
        ScoredAnswer(answers[index], float(probabilities[index]), float(logits[index]))
        for index in order.tolist()
    )
