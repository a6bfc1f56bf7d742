"""The clips that an evaluation looks at: decoded from videos, or stored as tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from clipbert.datasets.annotation import Span
from clipbert.datasets.media_folder import MediaFolder
from clipbert.datasets.token_folder import TokenFolder, check_grid, choose_clips
from clipbert.errors import VideoError
from clipbert.evaluation.decode_ahead import decode_ahead
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.clips import DecodedClips
from clipbert.sampling.plan import PlanName, SamplingPlan


@dataclass(frozen=True)
class Moment:
    """What is looked at: a video, or a part of it.

    Attributes:
        name: of the moment, as Annotation.moment gives it.
        video: name of the video.
        span: the part.
        path: its file.
    """

    name: str
    video: str
    span: Span
    path: Path


class MomentClips(Protocol):
    """The clips of one moment, decoded or stored; nothing else need know which."""

    @property
    def places(self) -> tuple[float, ...]:
        """Where in the video each clip's middle lies, 0 to 1."""

    def encode(self, model: ClipBert) -> Tensor:
        """Return the clips' visual tokens, (K, h, w, D).

        Raises:
            VideoError: the model cannot see them.
        """


@dataclass(frozen=True)
class FreshClips:
    """The clips of one moment as a decoder gave them."""

    decoded: DecodedClips

    @property
    def places(self) -> tuple[float, ...]:
        """Where in the video each clip's middle lies, 0 to 1."""
        return self.decoded.places

    def encode(self, model: ClipBert) -> Tensor:
        """Run the model's CNN on them."""
        return model.encode_clips(self.decoded.frames).tokens


@dataclass(frozen=True)
class StoredClips:
    """The clips of one moment, as they were stored.

    Attributes:
        tokens: (K, h, w, D).
        places: where in the video each clip's middle lies, 0 to 1.
    """

    tokens: Tensor
    places: tuple[float, ...]

    def encode(self, model: ClipBert) -> Tensor:
        """Return the tokens, if they are such as the model makes."""
        check_grid(self.tokens.shape[1:], model.config)
        return self.tokens


ClipsOrError = MomentClips | VideoError


class ClipSource(Protocol):
    """Where the clips of an evaluation come from."""

    def find(self, video: str) -> Path:
        """Find a video's file.

        Raises:
            VideoError: there is none.
        """

    def read(
        self, moments: Sequence[Moment], *, max_side_px: int, num_threads: int
    ) -> Iterator[tuple[Moment, ClipsOrError]]:
        """Yield the clips of moments, in their order, or what is wrong with them."""


class MediaClips:
    """A plan's clips, decoded from a folder of videos a little ahead of the model."""

    def __init__(self, media: MediaFolder, plan: SamplingPlan) -> None:
        self._media, self._plan = media, plan

    def find(self, video: str) -> Path:
        """Find the file."""
        return self._media.find(video)

    def read(
        self, moments: Sequence[Moment], *, max_side_px: int, num_threads: int
    ) -> Iterator[tuple[Moment, ClipsOrError]]:
        """Decode in threads."""
        spans = [(moment.path, moment.span) for moment in moments]
        decoded = decode_ahead(spans, self._plan, max_side_px=max_side_px, num_threads=num_threads)
        for moment, clips in zip(moments, decoded, strict=True):
            yield moment, clips if isinstance(clips, VideoError) else FreshClips(clips)


class TokenClips:
    """K of each video's stored clips, or all if it has fewer."""

    def __init__(self, tokens: TokenFolder, *, num_clips: int, plan: PlanName) -> None:
        self._tokens, self._num_clips, self._plan = tokens, num_clips, plan

    def find(self, video: str) -> Path:
        """Find the file of the tokens."""
        return self._tokens.find(video).path

    def read(
        self,
        moments: Sequence[Moment],
        *,
        max_side_px: int,
        num_threads: int,
    ) -> Iterator[tuple[Moment, ClipsOrError]]:
        """Read one after the other."""
        for moment in moments:
            yield moment, self._read(moment)

    def _read(self, moment: Moment) -> ClipsOrError:
        try:
            video = self._tokens.find(moment.video)
            inside = video.clips_in(moment.span)
            rows = inside
            if len(inside) > self._num_clips:
                rows = choose_clips(inside, self._num_clips, plan=self._plan, generator=None)
            return StoredClips(self._tokens.read(moment.video, rows), video.places(rows))
        except VideoError as error:
            return error
