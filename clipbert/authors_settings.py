"""What a checkpoint of the authors does not tell: the paper's choice for each task, or another."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipbert.authors_names import AuthorsHead
from clipbert.config import Aggregation
from clipbert.config_json import dataclass_from_json
from clipbert.errors import ConfigError
from clipbert.sampling import SamplingPlan


@dataclass(frozen=True)
class AuthorsSettings:
    """What a checkpoint of the authors does not tell.

    Attributes:
        max_side_px: S, of the frames it was trained on.
        max_text_tokens: longest text it was trained on, special tokens included. None: the paper's
            for the task, if the checkpoint has as many positions, else as many as it has.
        aggregation: over clips, as in its training. None: the paper's for the task, or the mean
            for a retrieval head that was trained by ranking.
        plan: how a video is looked at unless the caller says otherwise.
        num_attention_heads: of the cross-encoder.
    """

    max_side_px: int
    max_text_tokens: int | None
    aggregation: Aggregation | None
    plan: SamplingPlan
    num_attention_heads: int = 12

    @classmethod
    def of_paper(cls, head: AuthorsHead) -> "AuthorsSettings":
        """Give the paper's: MSRVTT's for retrieval and qa, TGIF-QA's actions' for multiple choice.

        DiDeMo's and ActivityNet's paragraphs have up to 100 tokens; TGIF's frameQA is as its
        actions. Videos are looked at through the paper's 16 test clips.

        Source: the authors' configurations; Lei et al., CVPR 2021, section 4.
        """
        return _OF_PAPER[head]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], *, head: AuthorsHead) -> "AuthorsSettings":
        """Read settings; those that are left out are the paper's for the head.

            from_json({"max_text_tokens": 100, "plan": {"num_clips": 8}}, head="retrieval")

        Raises:
            ConfigError: a field is unknown or of a wrong type, or the plan contradicts itself.
        """
        paper = dataclasses.asdict(cls.of_paper(head))
        merged = {**paper, "max_text_tokens": None, "aggregation": None, **fields}
        plan = fields.get("plan")
        if isinstance(plan, Mapping):
            merged["plan"] = {**paper["plan"], **plan}
        if not isinstance(merged["plan"], Mapping):
            raise ConfigError(f"plan is {plan!r}: must be an object")
        return dataclass_from_json(cls, merged)


_OF_PAPER: dict[AuthorsHead, AuthorsSettings] = {
    "retrieval": AuthorsSettings(
        max_side_px=448,
        max_text_tokens=20,
        aggregation="lse",
        plan=SamplingPlan("authors", num_clips=16, frames_per_clip=2, frames_per_second=2.0),
    ),
    "qa": AuthorsSettings(
        max_side_px=448,
        max_text_tokens=100,
        aggregation="lse",
        plan=SamplingPlan("authors", num_clips=16, frames_per_clip=2, frames_per_second=2.0),
    ),
    "multiple_choice": AuthorsSettings(
        max_side_px=768,
        max_text_tokens=25,
        aggregation="mean",
        plan=SamplingPlan("authors", num_clips=16, frames_per_clip=1, frames_per_second=1.0),
    ),
    # Pretraining sees images: one clip of one frame, from the middle of a video.
    "pretraining": AuthorsSettings(
        max_side_px=768,
        max_text_tokens=30,
        aggregation="mean",
        plan=SamplingPlan(
            "authors", num_clips=1, frames_per_clip=1, frames_per_second=1.0, strategy="middle"
        ),
    ),
}
