"""Visual tokens that were made before: a folder of them, read instead of decoding videos.

`index.jsonl` has a line a video:

    {"video": "v7", "file": "v7.safetensors", "clips": [[0.0, 4.0], [4.0, 8.0]],
     "duration_seconds": 8.0, "vectors_file": "v7.vectors.safetensors"}

`file` is a safetensors file, absolute or relative to the folder, with `tokens` (M, h, w, D) of the
M clips. Recall vectors (M, R), if there are any, are `vectors` in the same file or in
`vectors_file`.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clipbert.datasets.annotation import Span
from clipbert.datasets.line_fields import LineFields, read_lines
from clipbert.datasets.media_folder import media_name
from clipbert.errors import AnnotationError, MediaNotFound, TokensUnusable
from clipbert.model.config import ClipBertConfig
from clipbert.sampling.plan import PlanName, clip_place

INDEX_FILE = "index.jsonl"
_TOKENS, _VECTORS = "tokens", "vectors"
_TOKEN_DIMS = 4
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


class TokenFolder:
    """All videos of a token folder, by name.

    A name is that of the index, without folder and extension, as in annotation files.

        tokens = TokenFolder(folder)
        tokens.read("v7", [0, 1])    # (2, h, w, D)

    Args:
        folder: with an index; it is read once, when the object is made. Token files are read anew
            at each look: the system keeps them in memory as long as there is room.

    Raises:
        MediaNotFound: there is no index.
        AnnotationError: a line of it is wrong.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / INDEX_FILE).is_file():
            raise MediaNotFound(f"{folder} is no folder of visual tokens: it has no {INDEX_FILE}")
        self.videos = _read_index(folder)

    def __len__(self) -> int:
        """Count the videos."""
        return len(self.videos)

    def find(self, name: str) -> StoredVideo:
        """Find a video by its name.

        Raises:
            TokensUnusable: the index has none of this name.
        """
        found = self.videos.get(media_name(name))
        if found is None:
            raise TokensUnusable(f"there are no visual tokens of {name} in {self.folder}")
        return found

    def grid(self, name: str) -> tuple[int, int, int]:
        """Look at the header of a video's file, and give h, w and D.

        Raises:
            TokensUnusable: the file is missing or damaged, or has not one row for each clip.
        """
        video = self.find(name)
        try:
            with safe_open(video.path, "pt") as file:
                shape = tuple(file.get_slice(_TOKENS).get_shape())
        except (OSError, SafetensorError) as error:
            raise TokensUnusable(f"{video.path} cannot be read: {error}") from error
        if len(shape) != _TOKEN_DIMS or shape[0] != len(video.clips) or 0 in shape:
            raise TokensUnusable(
                f"{video.path} holds tokens {shape} of {len(video.clips)} clips: must be "
                "(clips, h, w, D)"
            )
        return shape[1:]

    def read(self, name: str, rows: Sequence[int]) -> Tensor:
        """Read the tokens of some of a video's clips.

        Args:
            name: of the video.
            rows: numbers of clips, at least one; the same one may come twice.

        Returns:
            (len(rows), h, w, D), as they are stored: mostly float16.

        Raises:
            TokensUnusable: the file is missing or damaged, or has no such clip.
        """
        video = self.find(name)
        return _read_rows(video.path, _TOKENS, rows)

    def read_vectors(self, name: str, rows: Sequence[int]) -> Tensor:
        """Read recall vectors, (len(rows), R) float32.

        Raises:
            TokensUnusable: there are none.
        """
        video = self.find(name)
        return _read_rows(video.vectors_path or video.path, _VECTORS, rows).float()


def choose_clips(
    inside: Sequence[int],
    num_clips: int,
    *,
    plan: PlanName,
    generator: random.Random | None,
) -> list[int]:
    """Choose K of the clips of a video whose tokens are stored.

        choose_clips([0, 1, 2, 3, 4, 5], 2, plan="segments", generator=None)  ->  [1, 4]

    Args:
        inside: numbers of the clips to choose from, ascending, at least one.
        num_clips: K.
        plan: `segments` and `keyframes` cut the clips into K equal groups and take one of each;
            `authors` takes any.
        generator: source of every draw; None takes the middle one of each group (`authors`: its
            first).

    Returns:
        K numbers, ascending. A clip is taken twice only if there are fewer than K.
    """
    count = len(inside)
    if plan == "authors":
        places = _anywhere(count, num_clips, generator)
    elif count >= num_clips:
        edges = [index * count // num_clips for index in range(num_clips + 1)]
        groups = [(edges[index], edges[index + 1] - 1) for index in range(num_clips)]
        places = [
            (first + last) // 2 if generator is None else generator.randint(first, last)
            for first, last in groups
        ]
    else:  # a group is less than a clip, and may straddle two
        shares = [0.5 if generator is None else generator.random() for _ in range(num_clips)]
        places = [int((index + share) * count / num_clips) for index, share in enumerate(shares)]
    return [inside[min(place, count - 1)] for place in places]


def check_grid(grid: Sequence[int], config: ClipBertConfig) -> None:
    """Raise TokensUnusable unless a clip's tokens (h, w, D) are what a model's CNN would make."""
    side, (rows, cols, size) = config.grid_side, grid
    fits = rows % side == 0 if config.frame_positions else rows == side
    if not fits or cols != side or size != config.hidden_size:
        raise TokensUnusable(
            f"the stored tokens of a clip are {tuple(grid)}: the model makes ({side}, {side}, "
            f"{config.hidden_size}) of one"
        )


def _anywhere(count: int, num_clips: int, generator: random.Random | None) -> list[int]:
    if generator is None:
        return [index * count // num_clips for index in range(num_clips)]
    if count >= num_clips:
        return sorted(generator.sample(range(count), num_clips))
    return sorted(generator.choices(range(count), k=num_clips))


def _read_index(folder: Path) -> dict[str, StoredVideo]:
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


def _read_rows(path: Path, name: str, rows: Sequence[int]) -> Tensor:
    try:
        with safe_open(path, "pt") as file:
            stored = file.get_slice(name)
            found = {row: stored[row : row + 1] for row in set(rows)}
    except (OSError, SafetensorError) as error:
        raise TokensUnusable(f"{path} cannot be read: {error}") from error
    missing = [row for row, tensor in found.items() if not len(tensor)]
    if missing:
        raise TokensUnusable(f"{path} cannot be read: its {name} have no row {missing[0]}")
    return torch.cat([found[row] for row in rows])


def _distance(clip: tuple[float, float], instant: float) -> float:
    return abs(sum(clip) / 2 - instant)


def write_index(folder: Path, videos: dict[str, StoredVideo]) -> None:
    """Write the index of a token folder; the files themselves are there already."""
    lines = [
        json.dumps(
            {
                "video": name,
                "file": str(video.path),
                "clips": [list(clip) for clip in video.clips],
                "duration_seconds": video.duration_seconds,
            }
            | ({} if video.vectors_path is None else {"vectors_file": str(video.vectors_path)})
        )
        for name, video in videos.items()
    ]
    (folder / INDEX_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
