"""How much goes through a network at once: as much as its device takes, and no more."""

from collections.abc import Iterator

from torch import Tensor

from clipbert.model.network import Network

# Bounds of one forward pass, so that its activations stay below about 1 GiB on a CPU.
_CPU_PIXELS = 16 * 448 * 448
_CPU_TOKENS = 16 * 1024
_CUDA_FACTOR = 8


def most_pixels(network: Network) -> int:
    """Return how many pixels may go through the CNN in one pass."""
    return _CPU_PIXELS * _factor(network)


def most_tokens(network: Network) -> int:
    """Return how many text and visual tokens may go through BERT in one pass."""
    return _CPU_TOKENS * _factor(network)


def by_length(
    lengths: Tensor, max_tokens: int, *, extra_tokens: int
) -> Iterator[tuple[Tensor, int]]:
    """Cut rows into chunks of like lengths, so that little is padded and memory is bounded.

    Yields the row numbers of a chunk and its greatest length; a row costs that length and
    extra_tokens.
    """
    order = lengths.argsort(descending=True, stable=True)
    start = 0
    while start < len(order):
        length = int(lengths[order[start]])
        end = start + max(1, max_tokens // (length + extra_tokens))
        yield order[start:end], length
        start = end


def _factor(network: Network) -> int:
    return _CUDA_FACTOR if next(network.parameters()).is_cuda else 1
