"""The index of a folder of visual tokens, read and written. Imports no torch.

`index.jsonl` has a line a video:

    {"video": "v7", "file": "v7.safetensors", "clips": [[0.0, 4.0], [4.0, 8.0]],
     "duration_seconds": 8.0, "vectors_file": "v7.vectors.safetensors"}

`file` is a safetensors file, absolute or relative to the folder, with `tokens` (M, h, w, D) of the
M clips. Recall vectors (M, R), if there are any, are `vectors` in the same file or in
`vectors_file`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbert.datasets.annotation import Span
from clipbert.datasets.line_fields import LineFields, read_lines
from clipbert.errors import AnnotationError
from clipbert.runs.whole_files import write_beside
from clipbert.sampling.plan import clip_place

INDEX_FILE = "index.jsonl"
_ENDS = 2


@dataclass(frozen=True)
class StoredVideo:
    """The clips of one video.

    Attributes:
        path: file of the tokens.
        clips: M pairs of seconds, where each clip begins and ends.
        duration_seconds: of the video; 0 for a picture.
        vectors_path: file of the recall vectors; None: that of the tokens, if it has any.
    """

    path: Path
    clips: tuple[tuple[float, float], ...]
    duration_seconds: float
    vectors_path: Path | None = None

    def clips_in(self, span: Span) -> list[int]:
        """List the clips that overlap a part of the video, in their order; at least one.

        Raises:
            OutsideVideo: it begins after the video's end.
        """
        window = span.window_in(self.duration_seconds)
        if window is None:
            return list(range(len(self.clips)))
        start, end = window
        inside = [row for row, clip in enumerate(self.clips) if clip[0] < end and clip[1] > start]
        if inside:
            return inside
        # Clips need not tile the video: the nearest one then stands for what lies between them.
        middle = (start + end) / 2
        return [min(range(len(self.clips)), key=lambda row: _distance(self.clips[row], middle))]

    def places(self, rows: Sequence[int]) -> tuple[float, ...]:
        """Return where in the video the middle of each of these clips lies, 0 to 1."""
        return tuple(
            clip_place(*self.clips[row], duration_seconds=self.duration_seconds) for row in rows
        )


def read_index(folder: Path) -> dict[str, StoredVideo]:
    """Read the videos of a folder of tokens, by name.

    Raises:
        AnnotationError: a line is wrong.
    """
    path = folder / INDEX_FILE
    videos: dict[str, StoredVideo] = {}
    for line in read_lines(path):
        if isinstance(line, AnnotationError):
            raise line
        name = line.media("video")
        if name in videos:
            raise line.error("video", f"stands there twice: {name}")
        vectors = line.optional_text("vectors_file")
        videos[name] = StoredVideo(
            path=folder / line.text("file"),  # an absolute one stays as it is
            clips=_read_clips(line),
            duration_seconds=line.optional_seconds("duration_seconds") or 0.0,
            vectors_path=None if vectors is None else folder / vectors,
        )
    return videos


def write_index(folder: Path, videos: Iterable[tuple[str, StoredVideo]]) -> None:
    """Write the index of a folder of tokens; it is there whole or not at all.

    Args:
        folder: of the files, which are there when their video comes.
        videos: name and clips of each; read one by one.
    """
    with (
        write_beside(folder / INDEX_FILE) as beside,
        beside.open("w", encoding="utf-8") as file,
    ):
        for name, video in videos:
            line: dict[str, object] = {
                "video": name,
                "file": str(video.path),
                "clips": [list(clip) for clip in video.clips],
                "duration_seconds": video.duration_seconds,
            }
            if video.vectors_path is not None:
                line["vectors_file"] = str(video.vectors_path)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _read_clips(line: LineFields) -> tuple[tuple[float, float], ...]:
    value = line.value("clips")
    clips = [_as_pair(clip) for clip in value] if isinstance(value, list) else []
    read = tuple(clip for clip in clips if clip is not None)
    if not read or len(read) < len(clips):
        raise line.error("clips", "must be a list of pairs of seconds, at least one")
    return read


def _as_pair(value: object) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != _ENDS:
        return None
    start, end = value
    if not isinstance(start, int | float) or not isinstance(end, int | float):
        return None
    return float(start), float(end)


def _distance(clip: tuple[float, float], instant: float) -> float:
    return abs(sum(clip) / 2 - instant)
