# The public names of the library: the one list. `clipbert/__init__.py` loads them from here when
# they are first used, and type checkers read it.

from .checkpoints.authors_export import export_authors_checkpoint as export_authors_checkpoint
from .checkpoints.authors_import import import_authors_checkpoint as import_authors_checkpoint
from .checkpoints.base_parts import start_base as start_base
from .checkpoints.mini.build import build_mini as build_mini
from .errors import AnnotationError as AnnotationError
from .errors import CheckpointError as CheckpointError
from .errors import ClipBertError as ClipBertError
from .errors import ConfigError as ConfigError
from .errors import MissingHead as MissingHead
from .errors import VideoError as VideoError
from .inference.clipbert import ClipBert as ClipBert
from .inference.clips import decode_clips as decode_clips
from .inference.evidence import ClipEvidence as ClipEvidence
from .inference.evidence import TextScore as TextScore
from .inference.evidence import VideoAnswer as VideoAnswer
from .inference.evidence import VideoTokens as VideoTokens
from .inference.evidence_sheet import draw_evidence as draw_evidence
from .inference.requests import EncodedClips as EncodedClips
from .inference.requests import MatchRequest as MatchRequest
from .inference.requests import QuestionRequest as QuestionRequest
from .inference.results import AnswerResult as AnswerResult
from .inference.results import MatchResult as MatchResult
from .model.config import ClipBertConfig as ClipBertConfig
from .model.config import HeadConfig as HeadConfig
from .model.pixels import to_pixels as to_pixels
from .model.text import TextTokenizer as TextTokenizer
from .sampling.plan import INDEX_PLAN as INDEX_PLAN
from .sampling.plan import Clip as Clip
from .sampling.plan import SamplingPlan as SamplingPlan
from .sampling.plan_clips import plan_clips as plan_clips
from .video.decode import decode_frames as decode_frames
from .video.decode import probe_video as probe_video
from .video.probed_video import MediaLimits as MediaLimits
from .video.probed_video import VideoProbe as VideoProbe
