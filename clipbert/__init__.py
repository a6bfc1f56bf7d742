"""CLIPBERT as a library: clips of a video and a text in, scores, answers and evidence out.

Shape letters, used in every module with no other meaning:

    B  videos in a batch, each with one text       h w  grid height and width (H/64 in the paper)
    K  clips per video (the paper's N)             V    visual tokens of a clip: h * w
    T  frames per clip                             L    text tokens, padded
    H W  frame height and width, pixels            D    hidden size (768 in the paper)
    3  colour channels, RGB                        A    answers the head chooses from

and in a few places: N  rows of a batch that mixes videos or texts, S  side of a square frame,
Q  texts of a query batch, R  length of a recall vector.

Names are loaded when first used: importing clipbert loads neither torch nor av.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbert.authors_checkpoint import import_authors_checkpoint as import_authors_checkpoint
    from clipbert.authors_export import export_authors_checkpoint as export_authors_checkpoint
    from clipbert.base_parts import start_base as start_base
    from clipbert.config import ClipBertConfig as ClipBertConfig
    from clipbert.config import HeadConfig as HeadConfig
    from clipbert.errors import AnnotationError as AnnotationError
    from clipbert.errors import CheckpointError as CheckpointError
    from clipbert.errors import ClipBertError as ClipBertError
    from clipbert.errors import ConfigError as ConfigError
    from clipbert.errors import MissingHead as MissingHead
    from clipbert.errors import VideoError as VideoError
    from clipbert.evidence import ClipEvidence as ClipEvidence
    from clipbert.evidence import TextScore as TextScore
    from clipbert.evidence import VideoAnswer as VideoAnswer
    from clipbert.evidence import VideoTokens as VideoTokens
    from clipbert.evidence_sheet import draw_evidence as draw_evidence
    from clipbert.frames import to_pixels as to_pixels
    from clipbert.inference import AnswerResult as AnswerResult
    from clipbert.inference import EncodedClips as EncodedClips
    from clipbert.inference import MatchRequest as MatchRequest
    from clipbert.inference import MatchResult as MatchResult
    from clipbert.inference import Predictor as Predictor
    from clipbert.inference import QuestionRequest as QuestionRequest
    from clipbert.mini import build_mini as build_mini
    from clipbert.model import ClipBert as ClipBert
    from clipbert.probed_video import MediaLimits as MediaLimits
    from clipbert.probed_video import VideoProbe as VideoProbe
    from clipbert.sampling import INDEX_PLAN as INDEX_PLAN
    from clipbert.sampling import Clip as Clip
    from clipbert.sampling import SamplingPlan as SamplingPlan
    from clipbert.sampling import plan_clips as plan_clips
    from clipbert.text import TextTokenizer as TextTokenizer
    from clipbert.video.decode import decode_clips as decode_clips
    from clipbert.video.decode import decode_frames as decode_frames
    from clipbert.video.decode import probe_video as probe_video

_MODULE_OF = {
    "import_authors_checkpoint": "authors_checkpoint",
    "export_authors_checkpoint": "authors_export",
    "start_base": "base_parts",
    "ClipBertConfig": "config",
    "HeadConfig": "config",
    "AnnotationError": "errors",
    "CheckpointError": "errors",
    "ClipBertError": "errors",
    "ConfigError": "errors",
    "MissingHead": "errors",
    "VideoError": "errors",
    "ClipEvidence": "evidence",
    "TextScore": "evidence",
    "VideoAnswer": "evidence",
    "VideoTokens": "evidence",
    "draw_evidence": "evidence_sheet",
    "to_pixels": "frames",
    "AnswerResult": "inference",
    "EncodedClips": "inference",
    "MatchRequest": "inference",
    "MatchResult": "inference",
    "Predictor": "inference",
    "QuestionRequest": "inference",
    "build_mini": "mini",
    "ClipBert": "model",
    "MediaLimits": "probed_video",
    "VideoProbe": "probed_video",
    "Clip": "sampling",
    "INDEX_PLAN": "sampling",
    "SamplingPlan": "sampling",
    "plan_clips": "sampling",
    "TextTokenizer": "text",
    "decode_clips": "video.decode",
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
