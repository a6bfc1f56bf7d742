"""Examples of a data set: the clips of one video with its texts, drawn anew in every epoch."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch.utils.data import Dataset, Sampler

from clipbert.datasets.annotation import Annotation, Span
from clipbert.errors import VideoError
from clipbert.training.draws import generator_at
from clipbert.training.example_clips import ClipReader, ClipTensors
from clipbert.training.task_texts import TaskTexts, VideoTexts
from clipbert.training.usable_videos import UnusableVideo


@dataclass(frozen=True)
class Example:
    """A video, or a part of it, and as many of its annotations as are seen together."""

    video: str
    annotations: tuple[Annotation, ...]

    @property
    def span(self) -> Span:
        """The part of the video that all of its annotations hold for."""
        return self.annotations[0].span


class Draw(NamedTuple):
    """One example at one step of a run.

    Attributes:
        batch: number of the forward pass, the same in all processes, from 0.
        epoch: from 0.
        example: its index.
    """

    batch: int
    epoch: int
    example: int


@dataclass(frozen=True)
class LoadedExample:
    """An example that is ready to be learned from.

    Attributes:
        draw: its place in the run.
        clips: of its video.
        texts: that meet each of the clips.
    """

    draw: Draw
    clips: ClipTensors
    texts: VideoTexts


@dataclass(frozen=True)
class DroppedExample:
    """An example whose video could not be decoded."""

    draw: Draw
    video: UnusableVideo


Item = LoadedExample | DroppedExample
"""What a dataset has for a draw."""


def group_by_video(
    annotations: Sequence[Annotation], *, texts_per_video: int
) -> tuple[Example, ...]:
    """Put the annotations of a video together, so that its clips are encoded once for them.

    Args:
        annotations: in any order.
        texts_per_video: a video with more annotations makes several examples.

    Returns:
        Examples, in the order in which their videos come first. Annotations of different parts of
        a video are never in one: they are about other clips.
    """
    of_moment: dict[tuple[str, Span], list[Annotation]] = {}
    for annotation in annotations:
        of_moment.setdefault((annotation.video, annotation.span), []).append(annotation)
    return tuple(
        Example(video, tuple(group[start : start + texts_per_video]))
        for (video, _), group in of_moment.items()
        for start in range(0, len(group), texts_per_video)
    )


def fingerprint(examples: Sequence[Example]) -> str:
    """Hash which examples there are, in which order: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.video, [each.line for each in example.annotations])).encode())
    return digest.hexdigest()


class ExampleDataset(Dataset[Item]):
    """Reads the clips of examples and makes their texts; looked up by a Draw.

    What an example looks like depends on (seed, epoch, example) alone.

    Args:
        examples: in their order.
        clips: of every video of the examples.
        random_clips: draw them anew at each look; otherwise the fixed ones are taken.
        texts: what the task makes of annotations.
        seed: of the run.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        clips: ClipReader,
        *,
        random_clips: bool,
        texts: TaskTexts,
        seed: int,
    ) -> None:
        self.examples = examples
        self._clips, self._random_clips = clips, random_clips
        self._texts, self._seed = texts, seed

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.examples)

    def __getitem__(self, draw: Draw) -> Item:
        """Load one example; that its video fails is a result, not an error."""
        example = self.examples[draw.example]
        key = (draw.epoch, draw.example)
        generator = generator_at(self._seed, "clips", *key) if self._random_clips else None
        try:
            clips = self._clips.read(example.video, example.span, generator=generator)
        except VideoError as error:
            return DroppedExample(draw, UnusableVideo.from_error(example.video, error))
        texts = self._texts(example.annotations, generator_at(self._seed, "texts", *key))
        return LoadedExample(draw, clips, texts)


class StepSampler(Sampler[list[Draw]]):
    """Determines which examples each forward pass of one process sees, over a whole run.

    The examples are shuffled anew in each epoch, by (seed, epoch), and the epochs follow each
    other without a gap: a step may take the end of one and the beginning of the next. Steps are
    cut into forward passes, and these into processes, so that a step has the same examples
    whatever the number of processes.

    Args:
        num_examples: of the data set, at least 1.
        total_steps: of the run.
        videos_per_step: over all processes.
        videos_per_forward: of one process; divides videos_per_step / num_processes.
        seed: of the run.
        process: number of this one, from 0.
        num_processes: that share the steps.

    Raises:
        ValueError: videos_per_step cannot be shared so.
    """

    def __init__(
        self,
        *,
        num_examples: int,
        total_steps: int,
        videos_per_step: int,
        videos_per_forward: int,
        seed: int,
        process: int = 0,
        num_processes: int = 1,
    ) -> None:
        if videos_per_step % (videos_per_forward * num_processes):
            raise ValueError(
                f"{videos_per_step} videos a step cannot be shared by {num_processes} processes "
                f"of {videos_per_forward} videos a forward pass"
            )
        self._num_examples, self._total_steps = num_examples, total_steps
        self._videos_per_forward, self._seed = videos_per_forward, seed
        self._process, self._num_processes = process, num_processes
        self.forwards_per_step = videos_per_step // (videos_per_forward * num_processes)

    def __len__(self) -> int:
        """Count the forward passes of this process."""
        return self._total_steps * self.forwards_per_step

    def __iter__(self) -> Iterator[list[Draw]]:
        """Return the draws of each forward pass in turn."""
        orders = _Orders(self._num_examples, self._seed)
        for batch in range(len(self)):
            first = batch * self._num_processes + self._process
            positions = range(
                first * self._videos_per_forward, (first + 1) * self._videos_per_forward
            )
            yield [Draw(batch, *orders.example_at(position)) for position in positions]


class _Orders:
    """The order of the examples in the epoch at hand."""

    def __init__(self, num_examples: int, seed: int) -> None:
        self._num_examples, self._seed = num_examples, seed
        self._epoch, self._order = -1, [0]

    def example_at(self, position: int) -> tuple[int, int]:
        """Return epoch and example of a position in the run."""
        epoch, index = divmod(position, self._num_examples)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(self._num_examples))
            generator_at(self._seed, "order", epoch).shuffle(self._order)
        return epoch, self._order[index]
