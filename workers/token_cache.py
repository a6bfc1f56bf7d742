"""The visual tokens of recently asked videos. Imports torch: for children only."""

from collections import OrderedDict
from typing import Final

from safetensors.torch import load, save
from torch import Tensor

from store.blobs import BlobStore
from store.contents import TOKENS
from store.errors import BlobNotFound
from workers.errors import JobError

_TENSOR: Final = "tokens"


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
        self._tokens: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, key: str) -> Tensor:
        """Give the tokens of a video's clips, (K, h, w, D) float16.

        Raises:
            JobError: `video_not_ready`: they are gone.
        """
        tokens = self._tokens.get(key)
        if tokens is not None:
            self._tokens.move_to_end(key)
            return tokens
        try:
            with self._blobs.open_read(key) as file:
                tokens = load(file.read())[_TENSOR]
        except (BlobNotFound, FileNotFoundError) as error:
            raise JobError("video_not_ready", "the video's visual tokens are missing") from error
        self._tokens[key] = tokens
        self._size_bytes += tokens.nbytes
        while self._size_bytes > self._capacity_bytes:
            _, dropped = self._tokens.popitem(last=False)
            self._size_bytes -= dropped.nbytes
        return tokens


def tokens_key(generation_id: object, video_id: object) -> str:
    """Name the blob with a video's tokens in a generation; row k is clip k."""
    return f"{TOKENS}/{generation_id}/{video_id}.safetensors"


def put_tokens(blobs: BlobStore, key: str, tokens: Tensor) -> None:
    """Store a video's tokens, (K, h, w, D) float16."""
    blobs.put_bytes(key, save({_TENSOR: tokens.contiguous()}))
