import pytest
import torch

from workers.errors import JobError
from workers.models.token_cache import TokenCache, put_tokens, read_tokens, tokens_key


def stored(blobs, name):
    tokens = torch.randn(4, 2, 2, 8).half()  # 256 bytes
    put_tokens(blobs, tokens_key("g", name), tokens=tokens)
    return tokens


def test_tokens_come_back_as_they_were_stored(blobs):
    tokens = stored(blobs, "a")

    cached = TokenCache(blobs, capacity_bytes=1000).get(tokens_key("g", "a"))

    assert cached.dtype == torch.float16
    assert torch.equal(cached, tokens)


def test_the_least_recently_used_tokens_go_first(blobs):
    for name in "abcd":
        stored(blobs, name)
    cache = TokenCache(blobs, capacity_bytes=3 * 256)
    kept = [cache.get(tokens_key("g", name)) for name in "abc"]
    cache.get(tokens_key("g", "a"))

    cache.get(tokens_key("g", "d"))

    assert cache.get(tokens_key("g", "a")) is kept[0]
    assert cache.get(tokens_key("g", "c")) is kept[2]
    assert cache.get(tokens_key("g", "b")) is not kept[1]


def test_a_video_larger_than_the_cache_is_not_kept(blobs):
    stored(blobs, "a")
    cache = TokenCache(blobs, capacity_bytes=100)

    assert cache.get(tokens_key("g", "a")) is not cache.get(tokens_key("g", "a"))


def test_missing_tokens_are_the_videos_fault_not_a_retry(blobs):
    with pytest.raises(JobError) as caught:
        TokenCache(blobs, capacity_bytes=100).get(tokens_key("g", "gone"))

    assert caught.value.code == "video_not_ready"


class CountingBlobs:
    """Counts the bytes that are read from other blobs."""

    def __init__(self, blobs):
        self._blobs = blobs
        self.num_bytes = 0

    def read_range(self, key, *, start, end):
        content = self._blobs.read_range(key, start=start, end=end)
        self.num_bytes += len(content)
        return content


@pytest.mark.parametrize("indices", [[0], [7, 255], [100, 101, 103], [255], list(range(256))])
def test_rows_are_those_of_the_whole(blobs, indices):
    tokens = torch.randn(256, 7, 7, 8).half()
    put_tokens(blobs, "tokens/g/long.safetensors", tokens=tokens)

    rows = TokenCache(blobs, capacity_bytes=0).rows("tokens/g/long.safetensors", indices)

    assert torch.equal(rows, tokens[indices])


def test_only_the_rows_that_are_asked_for_are_read(blobs):
    tokens = torch.randn(256, 7, 7, 384).half()  # 37,632 bytes a clip, 9.6 MB in all
    put_tokens(blobs, "tokens/g/long.safetensors", tokens=tokens)
    counting = CountingBlobs(blobs)
    cache = TokenCache(counting, capacity_bytes=10**6)

    first = cache.rows("tokens/g/long.safetensors", [3, 90, 200])
    num_bytes = counting.num_bytes
    again = cache.rows("tokens/g/long.safetensors", [200, 3])

    assert torch.equal(first, tokens[[3, 90, 200]])
    assert torch.equal(again, tokens[[200, 3]])
    assert num_bytes <= 3 * 37_632 + 4096
    assert counting.num_bytes == num_bytes


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 64, b"\x02" + bytes(7) + b"{}"])
def test_a_damaged_blob_is_named(blobs, content):
    blobs.put_bytes("tokens/g/bad.safetensors", content)

    for indices in (None, [0]):
        with pytest.raises(JobError, match="not a video's visual tokens") as caught:
            read_tokens(blobs, "tokens/g/bad.safetensors", indices=indices)

        assert caught.value.code == "tokens_damaged"
