"""What a training run is asked for, and what it reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipbert.runs.supervision import RunControl
from clipbert.training.recipe import Recipe

if TYPE_CHECKING:
    from clipbert.training.usable_videos import UnusableVideo

DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class RunRequest:
    """What to train, on what, and where.

    Attributes:
        recipe: of the run.
        data: annotation file.
        videos: folder of its videos or pictures; None with tokens.
        out: folder of the run, and at its end of the model.
        model: model folder to start from; None with a preset.
        preset: name of a configuration whose weights are drawn at random; None with a model.
        validation: annotation file to validate with, or None.
        answers: qa: an ans2label file; None takes the vocabulary from the data.
        split: of the data, where its lines have splits; None takes all lines.
        validation_split: likewise, of the validation file.
        resume: go on with the run in the folder; begin one if there is none.
        max_steps: stop after so many steps, as if the run had been interrupted there.
        device: "cpu", "cuda", or "auto": a GPU if there is one.
        num_workers: processes that load examples for each process that trains; 0 loads them in
            it, None takes as many as there are cores, up to 8, and none for tokens.
        tokens: folder of stored visual tokens, see clipbert.datasets.token_folder; None with
            videos.
        control: asked before anything is written, told how far the run is.
    """

    recipe: Recipe
    data: Path
    videos: Path | None
    out: Path
    model: Path | None = None
    preset: str | None = None
    validation: Path | None = None
    answers: Path | None = None
    split: str | None = None
    validation_split: str | None = None
    resume: bool = False
    max_steps: int | None = None
    device: DeviceName = "auto"
    num_workers: int | None = None
    tokens: Path | None = None
    control: RunControl = field(default_factory=RunControl)

    @property
    def start(self) -> str:
        """Name what training starts from."""
        return str(self.model or self.preset)


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes:
        folder: of the model.
        steps: done, those before a resumption included.
        total_steps: that the recipe wants.
        num_annotations: lines that were learned from.
        left_out: lines that were not, by what is wrong with them.
        unusable: videos that were missing or broken before the run.
        dropped: videos that failed during the run, in any process.
        num_dropped: examples that were not seen for that.
        metrics: lines of metrics.jsonl.
    """

    folder: Path
    steps: int
    total_steps: int
    num_annotations: int
    left_out: Mapping[str, int]
    unusable: Sequence["UnusableVideo"]
    dropped: Sequence["UnusableVideo"]
    num_dropped: int
    metrics: Sequence[Mapping[str, float]]
