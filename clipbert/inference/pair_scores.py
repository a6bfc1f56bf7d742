"""Score pairs of a text and a clip, many at once, within a bound on memory.

Requests of several callers share one forward pass, and none sees the others: padding is masked,
and nothing is averaged over the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbert.inference.pass_sizes import by_length, most_tokens
from clipbert.model.network import Network
from clipbert.model.text import TextTokenizer

_TOKEN_DIMS = 4


@dataclass(frozen=True)
class TextAndClips:
    """One text beside all clips of one video.

    Attributes:
        tokens: (K, h, w, D).
        text: the text.
        places: where in the video each clip's middle lies, 0 to 1; None spreads them evenly.
    """

    tokens: Tensor
    text: str
    places: Sequence[float] | None = None


@dataclass(frozen=True)
class _Pairs:
    """N pairs, as numbers of texts and of clips.

    Attributes:
        texts: Q of them.
        visual: (M, h, w, D), of the clips.
        text_of: (N,), which text.
        clip_of: (N,), which clip.
        places: (N,), where in its video the clip's middle lies.
    """

    texts: Sequence[str]
    visual: Tensor
    text_of: Tensor
    clip_of: Tensor
    places: Tensor


class PairScorer:
    """Runs the cross-encoder and a head on pairs.

    Args:
        network: in eval mode, on its device.
        tokenizer: the network's.
    """

    def __init__(self, network: Network, tokenizer: TextTokenizer) -> None:
        self._network, self._tokenizer = network, tokenizer
        weight = next(network.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        self._max_tokens = most_tokens(network)

    def score_rows(self, head: str, rows: Sequence[TextAndClips]) -> list[Tensor]:
        """Score each row's text with each of its clips: (K, O) float32 on the CPU for each row.

        Raises:
            ValueError: tokens of a wrong shape, or not one place for each clip.
        """
        if not rows:
            return []
        self._check_tokens([row.tokens for row in rows])
        num_clips = [len(row.tokens) for row in rows]
        text_of = torch.arange(len(rows)).repeat_interleave(torch.tensor(num_clips))  # (N,)
        # A question's choices bring the same tokens; they are held once.
        distinct = {id(row.tokens): row.tokens for row in rows}
        starts, num_held = {}, 0
        for key, tokens in distinct.items():
            starts[key] = num_held
            num_held += len(tokens)
        pairs = _Pairs(
            texts=[row.text for row in rows],
            visual=torch.cat(list(distinct.values())),
            text_of=text_of,
            clip_of=torch.cat(
                [starts[id(row.tokens)] + torch.arange(len(row.tokens)) for row in rows]
            ),
            places=torch.cat([clip_places(len(row.tokens), row.places) for row in rows]),
        )
        return list(self._score(head, pairs).split(num_clips))

    def score_video(
        self,
        head: str,
        tokens: Tensor,
        texts: Sequence[str],
        *,
        places: Sequence[float] | None = None,
    ) -> Tensor:
        """Score every text with every clip of one video, whose tokens are held once.

        Args:
            head: name of a head.
            tokens: (K, h, w, D).
            texts: Q texts.
            places: as in TextAndClips.

        Returns:
            (K, Q, O) float32 on the CPU.

        Raises:
            ValueError: tokens of a wrong shape, or not one place for each clip.
        """
        self._check_tokens([tokens])
        num_clips, num_texts = len(tokens), len(texts)
        pairs = _Pairs(
            texts=texts,
            visual=tokens,
            text_of=torch.arange(num_texts).repeat(num_clips),  # (K * Q,)
            clip_of=torch.arange(num_clips).repeat_interleave(num_texts),
            places=clip_places(num_clips, places).repeat_interleave(num_texts),
        )
        logits = self._score(head, pairs)  # (K * Q, O)
        return logits.reshape(num_clips, num_texts, logits.shape[1])

    def _score(self, head: str, pairs: _Pairs) -> Tensor:
        config = self._network.config
        outputs = next(each.num_outputs for each in config.heads if each.name == head)
        logits = torch.empty(len(pairs.text_of), outputs)  # (N, O)
        if not len(logits):
            return logits
        ids, mask = self._tokenizer.encode(pairs.texts, max_length=config.max_text_tokens)
        lengths = mask.sum(dim=1)[pairs.text_of]
        num_visual = pairs.visual.shape[1] * pairs.visual.shape[2]
        with torch.inference_mode():
            for rows, length in by_length(lengths, self._max_tokens, extra_tokens=num_visual):
                texts, clips = pairs.text_of[rows], pairs.clip_of[rows]
                part = self._network(
                    ids[texts, :length].to(self._device),
                    mask[texts, :length].to(self._device),
                    pairs.visual[clips].to(self._device, self._dtype),
                    head=head,
                    places=pairs.places[rows].to(self._device),
                )
                logits[rows] = part.float().cpu()
        return logits

    def _check_tokens(self, tokens: Sequence[Tensor]) -> None:
        first = tokens[0].shape
        size = self._network.config.hidden_size
        for each in tokens:
            shape = each.shape
            if (
                len(shape) != _TOKEN_DIMS
                or shape[0] == 0
                or shape[1:] != first[1:]
                or shape[3] != size
            ):
                raise ValueError(
                    f"need tokens (K, h, w, {size}) of one grid, got {tuple(shape)} beside "
                    f"{tuple(first)}"
                )


def clip_places(num_clips: int, places: Sequence[float] | None) -> Tensor:
    """Return the places of a video's clips, (K,) float32: those given, or evenly spread middles.

    clip_places(4, None)  ->  [0.125, 0.375, 0.625, 0.875]

    Raises:
        ValueError: not one place for each clip.
    """
    if places is None:
        return (torch.arange(num_clips) + 0.5) / num_clips
    if len(places) != num_clips:
        raise ValueError(f"{len(places)} places for {num_clips} clips")
    return torch.tensor(places, dtype=torch.float32)
