"""One video at a time: look at it once, ask it, and see which clips the answer rests on.

    model = ClipBert.from_pretrained("folder")
    tokens = model.encode_video("video.mp4")
    answer = model.answer(tokens, "what is the dog doing?")
    for clip in answer.evidence:
        print(clip.instants, clip.share)

Clips are scored by themselves and their logits aggregated, so that each clip's part in the answer
is exact: exp(logit of the clip) over the sum of them, the log-sum-exp's own gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from clipbert.inference.results import ScoredAnswer
from clipbert.sampling.plan import Clip, SamplingPlan


@dataclass(frozen=True)
class VideoTokens:
    """What a model saw of a video; every text that comes later reads it.

    Attributes:
        clips: K clips, when they are and which instants were looked at.
        tokens: (K, h, w, D) on the CPU, float16 unless asked otherwise: visual tokens before row,
            column and type embeddings.
        recall: (K, R) float32, for search by vector; None if the model makes no such vectors.
        plan: how the clips were chosen.
        duration_seconds: of the video.
    """

    clips: tuple[Clip, ...]
    tokens: Tensor
    recall: Tensor | None
    plan: SamplingPlan
    duration_seconds: float

    @property
    def places(self) -> tuple[float, ...]:
        """Where in the video each clip's middle lies, from 0 to 1."""
        return tuple(clip.place_in(self.duration_seconds) for clip in self.clips)


@dataclass(frozen=True)
class ClipEvidence:
    """What one clip says.

    Attributes:
        index: of the clip, from 0.
        start_seconds: where the moment begins that the clip stands for.
        end_seconds: where it ends.
        instants: what was looked at, seconds from the first frame.
        logits: (O,) float32: for an answer one a class, for a text those of the retrieval head.
        share: the clip's exact part in the log-sum-exp of the best answer or of "match", 0 to 1;
            the shares of a video's clips add up to 1.
    """

    index: int
    start_seconds: float
    end_seconds: float
    instants: tuple[float, ...]
    logits: Tensor
    share: float


@dataclass(frozen=True)
class VideoAnswer:
    """The answers to a question about a video.

    Attributes:
        answers: best first, each with its probability and its aggregated logit.
        evidence: one a clip, in the order of the video.
        zero_shot: no head was trained for it; the choices were ranked by recall vectors.
    """

    answers: tuple[ScoredAnswer, ...]
    evidence: tuple[ClipEvidence, ...]
    zero_shot: bool = False

    @property
    def answer(self) -> str:
        """The best answer."""
        return self.answers[0].answer


@dataclass(frozen=True)
class TextScore:
    """How well a text describes a video: P(match), 0 to 1, and what each clip says."""

    text: str
    score: float
    evidence: tuple[ClipEvidence, ...]


def join_evidence(
    clips: Sequence[Clip], logits: Tensor, *, shares: Tensor
) -> tuple[ClipEvidence, ...]:
    """Put what each clip says beside when it is: logits (K, O), shares (K,)."""
    return tuple(
        ClipEvidence(
            clip.index, clip.start_seconds, clip.end_seconds, clip.instants, row, float(share)
        )
        for clip, row, share in zip(clips, logits, shares, strict=True)
    )
