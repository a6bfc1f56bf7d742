import pytest
import torch

from workers.errors import JobError
from workers.token_cache import TokenCache, put_tokens, tokens_key


def stored(blobs, name):
    tokens = torch.randn(4, 2, 2, 8).half()  # 256 bytes
    put_tokens(blobs, tokens_key("g", name), tokens)
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
