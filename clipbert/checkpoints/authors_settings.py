"""What a checkpoint of the authors does not tell: the paper's choice for each data set."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clipbert.errors import ConfigError
from clipbert.model.config import Aggregation
from clipbert.model.config_json import dataclass_from_json
from clipbert.model.head_names import HeadName
from clipbert.sampling.plan import SamplingPlan

AuthorsDataSet = Literal[
    "msrvtt_retrieval",
    "didemo_retrieval",
    "activitynet_retrieval",
    "msrvtt_qa",
    "tgif_frameqa",
    "vqa",
    "tgif_action",
    "tgif_transition",
    "tgif_count",
    "pretraining",
]
"""What the authors have configurations for, called as our recipes are."""


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
    def of_paper(cls, head: HeadName) -> "AuthorsSettings":
        """Return those of the head's main data set: MSRVTT for retrieval and qa, else TGIF-QA.

        Source: the authors' configurations; Lei et al., CVPR 2021, section 4.
        """
        return _OF_DATA_SET[_MAIN[head]]

    @classmethod
    def of_data_set(cls, data_set: AuthorsDataSet) -> "AuthorsSettings":
        """Return those that the authors trained with on a data set.

        Videos are looked at through the paper's 16 test clips, of as many frames as in training;
        pictures (VQA, pretraining) are one clip of one frame.
        """
        return _OF_DATA_SET[data_set]

    @classmethod
    def from_json(
        cls,
        fields: Mapping[str, Any],
        *,
        head: HeadName,
        data_set: AuthorsDataSet | None = None,
    ) -> "AuthorsSettings":
        """Read settings; those that are left out are the data set's, or the head's main one's.

            from_json({"max_text_tokens": 100, "plan": {"num_clips": 8}}, head="retrieval")

        Raises:
            ConfigError: a field is unknown or of a wrong type, the plan contradicts itself, or the
                data set is for another head.
        """
        if data_set is not None and head_of(data_set) != head:
            raise ConfigError(f"the data set {data_set} is for {head_of(data_set)}, not for {head}")
        start = cls.of_paper(head) if data_set is None else cls.of_data_set(data_set)
        own = dataclasses.asdict(start)
        # Not known for certain without the data set: chosen by what the weights allow.
        unsure = {} if data_set else {"max_text_tokens": None, "aggregation": None}
        merged = {**own, **unsure, **fields}
        plan = fields.get("plan")
        if isinstance(plan, Mapping):
            merged["plan"] = {**own["plan"], **plan}
        if not isinstance(merged["plan"], Mapping):
            raise ConfigError(f"plan is {plan!r}: must be an object")
        return dataclass_from_json(cls, merged)

    def describe(self) -> str:
        """Name the three that change every score: `448 px, 20 tokens, lse`."""
        tokens = "?" if self.max_text_tokens is None else self.max_text_tokens
        return f"{self.max_side_px} px, {tokens} tokens, {self.aggregation or '?'}"


def head_of(data_set: AuthorsDataSet) -> HeadName:
    """Return the head that a checkpoint for a data set has."""
    return next(head for head, data_sets in _DATA_SETS.items() if data_set in data_sets)


def data_sets_of(head: HeadName) -> tuple[AuthorsDataSet, ...]:
    """List the data sets that a head was trained on, the main one first."""
    return _DATA_SETS[head]


def doubts(
    settings: AuthorsSettings,
    *,
    head: HeadName,
    data_set: AuthorsDataSet | None,
    num_outputs: int,
) -> list[str]:
    """Return what may be wrong with the settings of an import, as sentences.

    A file does not tell which data set it was trained on, and the wrong frame size, text length or
    aggregation makes other scores without any error.

    Args:
        settings: as the model will have them.
        head: of the checkpoint.
        data_set: if it was named.
        num_outputs: of the checkpoint's output layer, answers or not.
    """
    found = []
    likely = _likely_data_set(head, num_outputs)
    if likely is not None and data_set not in (None, likely):
        found.append(
            f"its {num_outputs} outputs are those of {likely}, and the data set named is {data_set}"
        )
    usual = {name: AuthorsSettings.of_data_set(name) for name in _DATA_SETS[head]}
    mine = settings.describe()
    listed = "; ".join(f"{name} {each.describe()}" for name, each in usual.items())
    if data_set is not None:
        if mine != usual[data_set].describe():
            found.append(
                f"{mine} is not what {data_set} was trained with: {usual[data_set].describe()}"
            )
    elif mine not in {each.describe() for each in usual.values()}:
        found.append(f"{mine} is of none of the data sets for {head}: {listed}")
    elif len({each.describe() for each in usual.values()}) > 1:
        hint = f" (its {num_outputs} outputs are those of {likely})" if likely else ""
        found.append(
            f"the file does not tell its data set, and {mine} is taken{hint}: if it is another, "
            f"name it. Settings by data set: {listed}"
        )
    return found


def _likely_data_set(head: HeadName, num_outputs: int) -> AuthorsDataSet | None:
    """Infer the data set of a question head from its size: theirs have at least so many outputs."""
    if head != "qa":
        return None
    sizes: dict[int, AuthorsDataSet] = {1500: "msrvtt_qa", 1540: "tgif_frameqa", 3129: "vqa"}
    return sizes.get(num_outputs)


def _videos(frames_per_clip: int, frames_per_second: float) -> SamplingPlan:
    return SamplingPlan(
        "authors",
        num_clips=16,
        frames_per_clip=frames_per_clip,
        frames_per_second=frames_per_second,
    )


# One clip of one frame, from the middle of a video.
_PICTURES = SamplingPlan(
    "authors", num_clips=1, frames_per_clip=1, frames_per_second=1.0, strategy="middle"
)
_TGIF = AuthorsSettings(768, 25, "mean", _videos(1, 1.0))
_OF_DATA_SET: dict[AuthorsDataSet, AuthorsSettings] = {
    "msrvtt_retrieval": AuthorsSettings(448, 20, "lse", _videos(2, 2.0)),
    "didemo_retrieval": AuthorsSettings(448, 100, "lse", _videos(2, 2.0)),
    "activitynet_retrieval": AuthorsSettings(448, 100, "lse", _videos(2, 1.0)),
    "msrvtt_qa": AuthorsSettings(448, 100, "lse", _videos(2, 2.0)),
    "tgif_frameqa": _TGIF,
    "tgif_action": _TGIF,
    "tgif_transition": _TGIF,
    "tgif_count": _TGIF,
    "vqa": AuthorsSettings(768, 20, "mean", _PICTURES),
    "pretraining": AuthorsSettings(768, 30, "mean", _PICTURES),
}
_DATA_SETS: dict[HeadName, tuple[AuthorsDataSet, ...]] = {
    "retrieval": ("msrvtt_retrieval", "didemo_retrieval", "activitynet_retrieval"),
    "qa": ("msrvtt_qa", "tgif_frameqa", "vqa"),
    "multiple_choice": ("tgif_action", "tgif_transition"),
    "count": ("tgif_count",),
    "pretraining": ("pretraining",),
}
_MAIN: dict[HeadName, AuthorsDataSet] = {
    head: data_sets[0] for head, data_sets in _DATA_SETS.items()
}
