"""ClipBert, the model that people use: the network with its tokenizer, on its device.

The CNN runs once per clip (encode_video, encode_clips); what it gives is stored and read by every
text that comes later.

The module is long because it is what people read first: two thirds of it are docstrings. What is
done lies in modules of its own: decoding (clips), the CNN and the text encoder (encoding), scoring
(pair_scores), summing up (results).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipbert.checkpoints.folder import Checkpoint, load_folder, save_folder
from clipbert.engines.eager import prepare_for_serving
from clipbert.errors import CheckpointError, MissingHead
from clipbert.inference.clips import read_clips
from clipbert.inference.encoding import encode_clips, encode_texts
from clipbert.inference.evidence import TextScore, VideoAnswer, VideoTokens, join_evidence
from clipbert.inference.pair_scores import PairScorer, TextAndClips
from clipbert.inference.requests import EncodedClips, MatchRequest, QuestionRequest
from clipbert.inference.results import (
    AnswerResult,
    CountResult,
    MatchResult,
    rank_by_similarity,
    sum_up_answers,
    sum_up_count,
    sum_up_match,
)
from clipbert.model.aggregation import aggregate, clip_shares, match_probability
from clipbert.model.config import ClipBertConfig
from clipbert.model.head_names import HeadName
from clipbert.model.network import Network
from clipbert.model.text import TOKENIZER_FILE, TextTokenizer
from clipbert.sampling.plan import SamplingPlan


class ClipBert:
    """CLIPBERT as people use it: a network in eval mode with its tokenizer, on its device.

        model = ClipBert.from_pretrained(folder)
        tokens = model.encode_video(path)                                 # what it saw, K clips
        model.answer(tokens, "what is the dog doing?").answer             # with evidence by clip
        model.score(tokens, ["a dog runs", "a cat sleeps"])               # P(match) for each text

    Each of answer, choose, count and score asks about one video and says which clips the answer
    rests on. The same names with _all (answer_all, ...) take any number of requests about any
    videos, which share forward passes, and return plain results: the service calls these.

    A model is loaded in one of two ways. from_pretrained keeps the weights as they are, in float32:
    such a model can be saved. for_serving prepares them for nothing but answers, as fast as the
    device can: batch norm folded, in the device's own dtype, with heads and logits in float32.

    Args:
        network: on its device, in its dtype.
        tokenizer: the network's; None if unknown, and then texts cannot be read.

    Attributes:
        network: the tensors' side of it.
        tokenizer: as given.
        config: what the network was made from.

    Source: Lei et al., "Less Is More: ClipBERT", CVPR 2021.
    """

    def __init__(self, network: Network, tokenizer: TextTokenizer | None) -> None:
        self.network, self.tokenizer = network, tokenizer

    @classmethod
    def create(cls, config: ClipBertConfig, *, seed: int) -> "ClipBert":
        """Make a model with random weights, the same for the same seed; see Network.create.

        It spells texts by characters if the configuration has as many tokens, as clipbert-tiny
        has; otherwise it has no tokenizer.

        Raises:
            ConfigError: the backbone cannot be built.
        """
        created = Checkpoint.create(config, seed=seed)
        return cls(created.network.eval(), created.tokenizer)

    @classmethod
    def from_pretrained(
        cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "ClipBert":
        """Load a model folder: config.json, model.safetensors and, if there, tokenizer.json.

        Args:
            folder: as save_pretrained wrote it.
            device: "cpu", "cuda" or "cuda:N".
            dtype: float32, bfloat16 or float16; all weights are converted to it.

        Raises:
            CheckpointError: a file is missing or damaged, or its weights do not fit: unknown or
                missing keys, wrong shapes.
            ConfigError: config.json contradicts itself.
        """
        loaded = load_folder(folder, device=device, dtype=dtype)
        return cls(loaded.network, loaded.tokenizer)

    @classmethod
    def for_serving(
        cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> "ClipBert":
        """Load a model folder to answer as fast as the device can; the model cannot be saved again.

        Args:
            folder: as save_pretrained wrote it.
            device: "cpu", "cuda" or "cuda:N".
            dtype: None takes bfloat16 where the device multiplies it in hardware, float16 on older
                GPUs, else float32; see default_dtype. Heads and logits are float32 always.

        Raises:
            CheckpointError: as from_pretrained; or there is no tokenizer.json.
            ConfigError: config.json contradicts itself.
        """
        loaded = load_folder(folder)
        if loaded.tokenizer is None:
            raise CheckpointError(f"no {TOKENIZER_FILE} in {folder}")
        prepare_for_serving(loaded.network, device=device, dtype=dtype)
        return cls(loaded.network, loaded.tokenizer)

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json, model.safetensors and, if known, tokenizer.json.

        The folder is made if need be; each file replaces its predecessor at once.

        Raises:
            CheckpointError: batch norm was folded, so that the weights are no longer the model's.
        """
        save_folder(self.network, folder, tokenizer=self.tokenizer)

    @property
    def config(self) -> ClipBertConfig:
        """What the network was made from."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def recall_dim(self) -> int | None:
        """R, the length of recall vectors; None if the model makes none."""
        return self.network.recall_dim

    def has_head(self, name: str) -> bool:
        """Whether the model has a head of this name, trained or not."""
        return self.config.head(name) is not None

    def has_trained_head(self, name: str) -> bool:
        """Whether the model has a head of this name whose weights were trained."""
        return name in self.config.trained_heads

    def eval(self) -> "ClipBert":
        """Put the network into eval mode, which everything below needs, and return the model."""
        self.network.eval()
        return self

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
            ValueError: the network is in training mode.
        """
        self._require_eval()
        plan = plan or self.config.plan
        decoded = read_clips(
            Path(path), plan, max_side_px=self.config.max_side_px, num_threads=num_threads
        )
        encoded = self.encode_clips(decoded.frames, token_dtype=dtype)
        return VideoTokens(
            decoded.clips, encoded.tokens, encoded.recall, plan, decoded.duration_seconds
        )

    def answer(self, tokens: VideoTokens, question: str, *, top_k: int = 5) -> VideoAnswer:
        """Answer an open-ended question from the answers that the model knows.

        Args:
            tokens: as encode_video gave them.
            question: the text.
            top_k: answers to return, at least 1.

        Raises:
            MissingHead: the model has no qa head.
        """
        request = QuestionRequest(tokens.tokens, question, places=tokens.places)
        return _as_answer(tokens, self.answer_all([request], top_k=top_k)[0])

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
        return _as_answer(tokens, self.choose_all([request])[0])

    def count(self, tokens: VideoTokens, question: str) -> float:
        """Answer a question for a number; not rounded.

        Raises:
            MissingHead: the model has no count head.
        """
        request = QuestionRequest(tokens.tokens, question, places=tokens.places)
        return self.count_all([request])[0].count

    def score(self, tokens: VideoTokens, texts: Sequence[str]) -> list[TextScore]:
        """Score how likely each text describes the video.

        Args:
            tokens: as encode_video gave them.
            texts: any number; all clips meet all texts, within a bound on memory.

        Returns:
            One result a text, in their order.

        Raises:
            MissingHead: the model has no retrieval head.
        """
        logits = self.score_pairs(
            "retrieval", tokens.tokens, texts, places=tokens.places
        )  # (K, Q, 2)
        scores = match_probability(aggregate(logits, self.config.aggregation))  # (Q,)
        return [
            TextScore(
                text,
                float(scores[row]),
                join_evidence(tokens.clips, logits[:, row], shares=clip_shares(logits[:, row, -1])),
            )
            for row, text in enumerate(texts)
        ]

    def answer_all(
        self, requests: Sequence[QuestionRequest], *, top_k: int = 5
    ) -> list[AnswerResult]:
        """Answer open-ended questions from the head's vocabulary.

        Args:
            requests: any number; their choices are not looked at.
            top_k: answers to return, at least 1.

        Returns:
            One result a request, in their order.

        Raises:
            MissingHead: the model has no question answering head.
            ValueError: tokens of a wrong shape, or top_k below 1.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        rows = [TextAndClips(each.tokens, each.question, each.places) for each in requests]
        answers, how = self.config.answers, self.config.aggregation
        return [
            sum_up_answers(logits, answers, aggregation=how, top_k=top_k)
            for logits in self.score_rows("qa", rows)
        ]

    def choose_all(self, requests: Sequence[QuestionRequest]) -> list[AnswerResult]:
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
        return self._choose_by_head(requests)

    def count_all(self, requests: Sequence[QuestionRequest]) -> list[CountResult]:
        """Answer questions for a number.

        Args:
            requests: any number; their choices are not looked at.

        Returns:
            One result a request, in their order.

        Raises:
            MissingHead: the model has no count head.
            ValueError: tokens of a wrong shape.
        """
        rows = [TextAndClips(each.tokens, each.question, each.places) for each in requests]
        how = self.config.aggregation
        return [sum_up_count(logits, aggregation=how) for logits in self.score_rows("count", rows)]

    def score_all(self, requests: Sequence[MatchRequest]) -> list[MatchResult]:
        """Score how likely each text describes its video.

        Args:
            requests: any number, of videos with any numbers of clips.

        Returns:
            One result a request, in their order.

        Raises:
            MissingHead: the model has no retrieval head.
            ValueError: tokens of a wrong shape.
        """
        rows = [TextAndClips(each.tokens, each.text, each.places) for each in requests]
        how = self.config.aggregation
        return [
            sum_up_match(logits, aggregation=how) for logits in self.score_rows("retrieval", rows)
        ]

    def score_rows(self, head: str, rows: Sequence[TextAndClips]) -> list[Tensor]:
        """Score each row's text with each of its clips, before any aggregation.

        A video's clips may come in several calls: what a clip scores does not depend on others.

        Returns:
            (K, O) float32 on the CPU for each row.

        Raises:
            MissingHead: the model has no such head.
            ValueError: tokens of a wrong shape, or not one place for each clip.
        """
        return self._pairs(head).score_rows(head, rows)

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
            Logits (K, Q, O) float32 on the CPU, before any aggregation.

        Raises:
            MissingHead: the model has no such head.
            ValueError: tokens of a wrong shape.
        """
        return self._pairs(head).score_video(head, tokens, texts, places=places)

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
            ValueError: no clips, or arrays of another shape or dtype; or the network is in
                training mode.
        """
        self._require_eval()
        return encode_clips(self.network, clips, token_dtype=token_dtype)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return the recall vectors of texts.

        Args:
            texts: Q texts.

        Returns:
            (Q, R) float32 on the CPU, of length 1.

        Raises:
            MissingHead: the model is not a recall encoder.
        """
        if self.recall_dim is None:
            raise MissingHead("recall")
        self._require_eval()
        return encode_texts(self.network, self._read_by(), texts)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Run the CNN on pixels that are there already; as Network.encode_pixels."""
        return self.network.encode_pixels(pixels)

    def __call__(
        self,
        token_ids: Tensor,
        mask: Tensor,
        visual: Tensor,
        *,
        head: HeadName,
        places: Tensor | None = None,
    ) -> Tensor:
        """Score texts that are token ids already, each with one clip; as Network.forward."""
        logits: Tensor = self.network(token_ids, mask, visual, head=head, places=places)
        return logits

    def _choose_by_head(self, requests: Sequence[QuestionRequest]) -> list[AnswerResult]:
        rows = [
            TextAndClips(request.tokens, f"{request.question} {choice}", request.places)
            for request in requests
            for choice in request.choices
        ]
        logits = iter(self.score_rows("multiple_choice", rows))  # each (K, 1)
        return [
            sum_up_answers(
                torch.cat([next(logits) for _ in request.choices], dim=1),  # (K, A)
                request.choices,
                aggregation=self.config.aggregation,
                top_k=len(request.choices),
            )
            for request in requests
        ]

    def _choose_by_recall(
        self, requests: Sequence[QuestionRequest], recalls: Sequence[Tensor]
    ) -> list[AnswerResult]:
        texts = list(dict.fromkeys(choice for request in requests for choice in request.choices))
        vectors = dict(zip(texts, self.encode_texts(texts), strict=True))
        return [
            rank_by_similarity(
                recall,
                request.choices,
                vectors=torch.stack([vectors[choice] for choice in request.choices]),  # (A, R)
            )
            for request, recall in zip(requests, recalls, strict=True)
        ]

    def _pairs(self, head: str) -> PairScorer:
        if not self.has_head(head):
            raise MissingHead(head)
        self._require_eval()
        return PairScorer(self.network, self._read_by())

    def _read_by(self) -> TextTokenizer:
        if self.tokenizer is None:
            raise CheckpointError(f"the model has no {TOKENIZER_FILE}: it cannot read texts")
        return self.tokenizer

    def _require_eval(self) -> None:
        if self.network.training:
            raise ValueError("the model is in training mode, where dropout is random: call eval()")


def _as_answer(tokens: VideoTokens, result: AnswerResult) -> VideoAnswer:
    evidence = join_evidence(tokens.clips, result.clip_logits, shares=result.clip_shares)
    return VideoAnswer(result.answers, evidence, result.zero_shot)
