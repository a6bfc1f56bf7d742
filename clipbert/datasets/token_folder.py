"""Visual tokens that were made before: a folder of them, read instead of decoding videos."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clipbert.datasets.token_index import INDEX_FILE, StoredVideo, read_index
from clipbert.datasets.video_references import ReferenceIndex, VideoReference, split_ending
from clipbert.errors import MediaNotFound, TokensUnusable
from clipbert.model.config import ClipBertConfig
from clipbert.sampling.plan import PlanName

_TOKENS, _VECTORS = "tokens", "vectors"
_TOKEN_DIMS = 4


class TokenFolder:
    """All videos of a token folder, by name.

    What a name means is said by clipbert.datasets.video_references, of the names of the index.

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
            raise MediaNotFound(
                f"{folder} is not a folder of visual tokens: it has no {INDEX_FILE}"
            )
        self.videos = read_index(folder)
        self._names = ReferenceIndex((VideoReference(name).file, name) for name in self.videos)

    def __len__(self) -> int:
        """Count the videos."""
        return len(self.videos)

    def find(self, name: str) -> StoredVideo:
        """Find a video by its name.

        Raises:
            TokensUnusable: the index has none of this name, or several.
        """
        return self.videos[self.canonical_name(name)]

    def canonical_name(self, name: str) -> str:
        """Return the name that the index has for the video that a name means.

        Raises:
            TokensUnusable: as `find`.
        """
        if name in self.videos:
            return name
        reference = VideoReference(name)
        found = self._names.find(reference) or self._shorter_names(reference)
        if len(found) == 1:
            return found[0]
        if found:
            raise TokensUnusable(f"{name} may be any of {', '.join(found)} in {self.folder}")
        raise TokensUnusable(f"there are no visual tokens of {name} in {self.folder}")

    def _shorter_names(self, reference: VideoReference) -> Sequence[str]:
        """Return the longest name of the index that names the file, and says less of it."""
        parts = reference.file.parts
        ends = ["/".join(parts[place:]) for place in range(len(parts))]
        if parts:
            ends.append(split_ending(parts[-1])[0])
        return [end for end in ends if end in self.videos][:1]

    def grid(self, name: str) -> tuple[int, int, int]:
        """Read h, w and D from the header of a video's file.

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
