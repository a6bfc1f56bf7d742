"""CLIPBERT as a library: clips of a video and a text in, scores, answers and evidence out.

Shape letters, used in every module with no other meaning:

    B  videos in a batch, each with one text       h w  grid height and width (H/64 in the paper)
    K  clips per video (the paper's N)             V    visual tokens of a clip: h * w
    T  frames per clip                             L    text tokens, padded
    H W  frame height and width, pixels            D    hidden size (768 in the paper)
    3  colour channels, RGB                        A    answers the head chooses from

and in a few places:

    N  rows of a batch: clips, texts, pairs of    M  clips that are held, of which rows take some
       both or frames, as the line says           Q  texts that each meet the same clips
    S  side of a square frame, pixels             R  length of a recall vector
    C  channels of a CNN's features               O  outputs of a head: A of them for qa
    P  positions of a sequence: L, or L + V

Names are loaded when first used: importing clipbert loads neither torch nor av.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbert.checkpoints.authors_export import (
        export_authors_checkpoint as export_authors_checkpoint,
    )
    from clipbert.checkpoints.authors_import import (
        import_authors_checkpoint as import_authors_checkpoint,
    )
    from clipbert.checkpoints.base_parts import start_base as start_base
    from clipbert.checkpoints.mini.build import build_mini as build_mini
    from clipbert.errors import AnnotationError as AnnotationError
    from clipbert.errors import CheckpointError as CheckpointError
    from clipbert.errors import ClipBertError as ClipBertError
    from clipbert.errors import ConfigError as ConfigError
    from clipbert.errors import MissingHead as MissingHead
    from clipbert.errors import VideoError as VideoError
    from clipbert.inference.clipbert import ClipBert as ClipBert
    from clipbert.inference.clips import decode_clips as decode_clips
    from clipbert.inference.evidence import ClipEvidence as ClipEvidence
    from clipbert.inference.evidence import TextScore as TextScore
    from clipbert.inference.evidence import VideoAnswer as VideoAnswer
    from clipbert.inference.evidence import VideoTokens as VideoTokens
    from clipbert.inference.evidence_sheet import draw_evidence as draw_evidence
    from clipbert.inference.requests import EncodedClips as EncodedClips
    from clipbert.inference.requests import MatchRequest as MatchRequest
    from clipbert.inference.requests import QuestionRequest as QuestionRequest
    from clipbert.inference.results import AnswerResult as AnswerResult
    from clipbert.inference.results import MatchResult as MatchResult
    from clipbert.model.config import ClipBertConfig as ClipBertConfig
    from clipbert.model.config import HeadConfig as HeadConfig
    from clipbert.model.pixels import to_pixels as to_pixels
    from clipbert.model.text import TextTokenizer as TextTokenizer
    from clipbert.sampling.plan import INDEX_PLAN as INDEX_PLAN
    from clipbert.sampling.plan import Clip as Clip
    from clipbert.sampling.plan import SamplingPlan as SamplingPlan
    from clipbert.sampling.plan_clips import plan_clips as plan_clips
    from clipbert.video.decode import decode_frames as decode_frames
    from clipbert.video.decode import probe_video as probe_video
    from clipbert.video.probed_video import MediaLimits as MediaLimits
    from clipbert.video.probed_video import VideoProbe as VideoProbe

_MODULE_OF = {
    "import_authors_checkpoint": "checkpoints.authors_import",
    "export_authors_checkpoint": "checkpoints.authors_export",
    "start_base": "checkpoints.base_parts",
    "ClipBertConfig": "model.config",
    "HeadConfig": "model.config",
    "AnnotationError": "errors",
    "CheckpointError": "errors",
    "ClipBertError": "errors",
    "ConfigError": "errors",
    "MissingHead": "errors",
    "VideoError": "errors",
    "ClipEvidence": "inference.evidence",
    "TextScore": "inference.evidence",
    "VideoAnswer": "inference.evidence",
    "VideoTokens": "inference.evidence",
    "draw_evidence": "inference.evidence_sheet",
    "to_pixels": "model.pixels",
    "AnswerResult": "inference.results",
    "EncodedClips": "inference.requests",
    "MatchRequest": "inference.requests",
    "MatchResult": "inference.results",
    "QuestionRequest": "inference.requests",
    "build_mini": "checkpoints.mini.build",
    "ClipBert": "inference.clipbert",
    "MediaLimits": "video.probed_video",
    "VideoProbe": "video.probed_video",
    "Clip": "sampling.plan",
    "INDEX_PLAN": "sampling.plan",
    "SamplingPlan": "sampling.plan",
    "plan_clips": "sampling.plan_clips",
    "TextTokenizer": "model.text",
    "decode_clips": "inference.clips",
    "decode_frames": "video.decode",
    "probe_video": "video.decode",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 (one table, not two)


def __getattr__(name: str) -> Any:  # noqa: ANN401 (the type of any public name)
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'clipbert' has no attribute {name!r}")
    value = getattr(import_module(f"clipbert.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
