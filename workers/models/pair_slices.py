"""Score pairs of a text and a clip in slices of a bounded time. Imports torch.

A row is one text beside the clips of one video. Rows of several jobs share a slice, and a row of
many clips takes several slices.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbert.inference.clipbert import ClipBert
from clipbert.inference.pair_scores import TextAndClips
from workers.jobs.batching import CostLimit, forward_each
from workers.jobs.group import JobGroup
from workers.jobs.lease import RunningJob


class PairRow:
    """One text beside clips of one video.

    Args:
        job: the job.
        text: the text.
        places: where in the video the middle of each clip lies, 0 to 1: as many as there are clips.
        load: reads the clips' tokens, (K, h, w, D), when it is their turn; None if the video was
            deleted meanwhile, and then the row is over without a score.
    """

    def __init__(
        self,
        job: RunningJob,
        text: str,
        *,
        places: Sequence[float],
        load: Callable[[], Tensor | None],
    ) -> None:
        self.job = job
        self.text = text
        self.is_dropped = False
        self._places = tuple(places)
        self._load = load
        self._tokens = torch.empty(0)
        self._is_loaded = False
        self._scored: list[Tensor] = []
        self._num_taken = 0

    @property
    def num_left(self) -> int:
        """How many clips wait to be scored."""
        return 0 if self.is_dropped else len(self._places) - self._num_taken

    @property
    def is_over(self) -> bool:
        """Whether all clips are scored, or none will be."""
        return self.is_dropped or sum(map(len, self._scored)) == len(self._places)

    @property
    def logits(self) -> Tensor:
        """What all clips scored, (K, O)."""
        return torch.cat(self._scored)

    def load(self) -> None:
        """Read the tokens, unless they are there."""
        if self._is_loaded:
            return
        tokens = self._load()
        self._is_loaded = True
        if tokens is None:
            self.is_dropped = True
        else:
            self._tokens = tokens

    def take(self, most: int) -> TextAndClips:
        """Take the next clips, at most so many, into a slice."""
        taken = slice(self._num_taken, self._num_taken + most)
        self._num_taken += most
        return TextAndClips(self._tokens[taken], self.text, self._places[taken])

    def add(self, logits: Tensor) -> None:
        """Add what the clips that were taken next scored, (k, O)."""
        self._scored.append(logits)
        if self.is_over:
            self._tokens = torch.empty(0)


@dataclass(frozen=True)
class _Part:
    """The clips of a row that are in one slice."""

    row: PairRow
    pairs: TextAndClips


def score_slice(
    rows: Iterable[PairRow],
    *,
    group: JobGroup,
    model: ClipBert,
    head: str,
    limit: CostLimit,
) -> list[PairRow]:
    """Score the next clips of some rows, as many as a slice takes.

    Args:
        rows: in their order; read no further than the slice goes.
        group: of the rows' jobs, each of which gets its own errors.
        model: in memory.
        head: its head.
        limit: of a slice, in clips.

    Returns:
        The rows that are over now.
    """
    parts, over = _take_slice(rows, group, int(max(1, limit.allowed)))
    num_clips = sum(len(part.pairs.tokens) for part in parts)
    began_at = time.monotonic()
    outcomes = group.attempt(
        lambda: forward_each(
            parts,
            lambda some: model.score_rows(head, [part.pairs for part in some]),
            on_out_of_memory=lambda some: limit.lower_below(
                sum(len(part.pairs.tokens) for part in some)
            ),
        ),
        *(part.row.job for part in parts),
    )
    limit.note(num_clips, time.monotonic() - began_at)
    for part, outcome in zip(parts, outcomes or (), strict=bool(outcomes)):
        if isinstance(outcome, Exception):
            group.settle(part.row.job, outcome)
        else:
            part.row.add(outcome)
            if part.row.is_over:
                over.append(part.row)
    return over


def _take_slice(
    rows: Iterable[PairRow], group: JobGroup, most: int
) -> tuple[list[_Part], list[PairRow]]:
    """Return the parts of a slice, and the rows that are over without being scored."""
    parts: list[_Part] = []
    dropped: list[PairRow] = []
    for row in rows:
        if not group.advance(row.job):
            continue
        group.attempt(row.load, row.job)
        if row.is_dropped:
            dropped.append(row)
        elif group.is_open(row.job):
            num_clips = min(row.num_left, most)
            parts.append(_Part(row, row.take(num_clips)))
            most -= num_clips
        if most <= 0:
            break
    return parts, dropped
