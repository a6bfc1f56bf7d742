"""The visual tokens of recently asked videos. Imports torch: for children only."""

import json
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import torch
from safetensors.torch import save
from torch import Tensor

from store.blobs import BlobStore
from store.errors import BlobNotFound
from store.videos.contents import TOKENS
from workers.errors import JobError

_TENSOR: Final = "tokens"
_DTYPE: Final = "F16"
_LENGTH_BYTES: Final = 8  # a safetensors file begins with the length of its header
_FIRST_BYTES: Final = 4096  # holds the header of a file with one tensor
_GAP_BYTES: Final = 1 << 17  # less than this is rather read than asked for in two requests


class TokenCache:
    """Reads visual tokens from blobs and keeps the last used ones in memory.

    Args:
        blobs: where the tokens are.
        capacity_bytes: memory to keep; a video larger than all of it is not kept.
    """

    def __init__(self, blobs: BlobStore, *, capacity_bytes: int) -> None:
        self._blobs = blobs
        self._capacity_bytes = capacity_bytes
        self._size_bytes = 0
        # By blob, and by clip where not all of the video was read.
        self._tokens: OrderedDict[tuple[str, int | None], Tensor] = OrderedDict()

    def get(self, key: str) -> Tensor:
        """Return the tokens of a video's clips, (K, h, w, D) float16.

        Raises:
            JobError: `video_not_ready`: they are gone.
        """
        tokens = self._find(key, None)
        if tokens is None:
            tokens = self._read(key, None)
            self._keep(key, None, tokens)
        return tokens

    def rows(self, key: str, indices: Sequence[int], *, keep: bool = True) -> Tensor:
        """Return the tokens of some of a video's clips, (len(indices), h, w, D) float16.

        Only these are read.

        Args:
            key: the blob.
            indices: of the clips.
            keep: whether somebody may ask for them again soon.

        Raises:
            JobError: `video_not_ready`: they are gone.
        """
        whole = self._find(key, None)
        if whole is not None:
            return whole[torch.tensor(indices)]
        found = {index: self._find(key, index) for index in indices}
        missing = sorted(index for index, tokens in found.items() if tokens is None)
        if missing:
            for index, tokens in zip(missing, self._read(key, missing), strict=True):
                found[index] = tokens
                if keep:
                    self._keep(key, index, tokens.clone())  # not the memory of all that were read
        return torch.stack([tokens for index in indices if (tokens := found[index]) is not None])

    def _find(self, key: str, index: int | None) -> Tensor | None:
        tokens = self._tokens.get((key, index))
        if tokens is not None:
            self._tokens.move_to_end((key, index))
        return tokens

    def _keep(self, key: str, index: int | None, tokens: Tensor) -> None:
        self._tokens[key, index] = tokens
        self._size_bytes += tokens.nbytes
        while self._size_bytes > self._capacity_bytes:
            _, dropped = self._tokens.popitem(last=False)
            self._size_bytes -= dropped.nbytes

    def _read(self, key: str, indices: Sequence[int] | None) -> Tensor:
        try:
            return read_tokens(self._blobs, key, indices=indices)
        except (BlobNotFound, FileNotFoundError) as error:
            raise JobError("video_not_ready", "the video's visual tokens are missing") from error


def tokens_key(generation_id: object, video_id: object) -> str:
    """Name the blob with a video's tokens in a generation; row k is clip k."""
    return f"{TOKENS}/{generation_id}/{video_id}.safetensors"


def put_tokens(blobs: BlobStore, key: str, *, tokens: Tensor) -> None:
    """Store a video's tokens, (K, h, w, D) float16."""
    blobs.put_bytes(key, save({_TENSOR: tokens.contiguous()}))


def read_tokens(blobs: BlobStore, key: str, *, indices: Sequence[int] | None = None) -> Tensor:
    """Read the tokens that put_tokens stored: all, or those of some clips, and little else.

    Args:
        blobs: where they are.
        key: of the blob.
        indices: ascending; None for all.

    Returns:
        (K, h, w, D) float16, one row for each index.

    Raises:
        BlobNotFound: they are gone.
        JobError: `tokens_damaged`: the blob is not what put_tokens wrote.
    """
    if indices is None:
        with blobs.open_read(key) as file:
            beginning = file.read()
    else:
        beginning = blobs.read_range(key, start=0, end=_FIRST_BYTES)
    shape, begin = _read_header(key, beginning)
    row_bytes = 2 * shape[1] * shape[2] * shape[3]
    wanted = range(shape[0]) if indices is None else indices
    if any(not 0 <= index < shape[0] for index in wanted):
        raise _damaged(key, f"has {shape[0]} clips")
    content = bytearray()
    for first, last in _runs(wanted, gap=max(0, _GAP_BYTES // row_bytes)):
        start, end = begin + first * row_bytes, begin + (last + 1) * row_bytes
        piece = (
            beginning[start:end]
            if end <= len(beginning) or indices is None
            else blobs.read_range(key, start=start, end=end)
        )
        if len(piece) != end - start:
            raise _damaged(key, "ends too early")
        for index in wanted:
            if first <= index <= last:
                content += piece[(index - first) * row_bytes : (index - first + 1) * row_bytes]
    return torch.frombuffer(content, dtype=torch.float16).reshape(-1, *shape[1:])


def _read_header(key: str, beginning: bytes) -> tuple[tuple[int, int, int, int], int]:
    """Return the shape of the tokens, and where in the file they begin."""
    try:
        (length,) = struct.unpack_from("<Q", beginning)
        entry = json.loads(beginning[_LENGTH_BYTES : _LENGTH_BYTES + length])[_TENSOR]
        num_clips, height, width, size = (int(side) for side in entry["shape"])
        begin = _LENGTH_BYTES + length + int(entry["data_offsets"][0])
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise _damaged(key, "has no header of tokens") from error
    if entry["dtype"] != _DTYPE or min(num_clips, height, width, size) < 1:
        raise _damaged(key, f"holds {entry['dtype']} {entry['shape']}")
    return (num_clips, height, width, size), begin


def _runs(indices: Iterable[int], *, gap: int) -> Iterator[tuple[int, int]]:
    """Part ascending numbers into runs with no gap larger than this; first and last of each."""
    first = last = None
    for index in indices:
        if first is None or last is None:
            first = index
        elif index - last - 1 > gap:
            yield first, last
            first = index
        last = index
    if first is not None and last is not None:
        yield first, last


def _damaged(key: str, what: str) -> JobError:
    return JobError("tokens_damaged", f"the blob {key} is not a video's visual tokens: it {what}")
