"""README.md of a trained model: what it is, from what, how, and how good."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbert.training.recipe import Recipe
from clipbert.training.run_request import RunReport
from clipbert.training.usable_videos import UnusableVideo

CARD_FILE = "README.md"
_MOST_VIDEOS_NAMED = 20


@dataclass(frozen=True)
class CardFacts:
    """What a model card says.

    Attributes:
        start: the model that training began with.
        head_is_new: whether the head began with random weights.
        data: name of the annotation file.
        data_sha256: of the annotation file.
        epochs: how often each example was seen.
        report: what the run did.
    """

    start: str
    head_is_new: bool
    data: str
    data_sha256: str
    epochs: float
    report: RunReport


def write_model_card(folder: Path, recipe: Recipe, *, facts: CardFacts) -> None:
    """Write README.md into a model folder."""
    sections = [
        f"# CLIPBERT for {recipe.task.replace('_', ' ')}",
        _describe(recipe, facts),
        "## Data",
        _table(_data_rows(facts)),
        *_name_videos(facts.report.unusable),
        "## Result",
        _table(_result_rows(facts)),
        "## Recipe",
        f"```toml\n{recipe.to_toml()}```",
    ]
    front = "---\nlibrary_name: clipbert\n---\n\n"
    (folder / CARD_FILE).write_text(front + "\n\n".join(sections) + "\n", encoding="utf-8")


def _extent(recipe: Recipe) -> str:
    return "end to end" if recipe.visual == "trained" else "but for its visual side"


def _describe(recipe: Recipe, facts: CardFacts) -> str:
    steps = f"{facts.report.steps:,} steps"
    if facts.report.steps < facts.report.total_steps:
        steps += f" of {facts.report.total_steps:,} planned"
    head = "a new head" if facts.head_is_new else "its own head"
    return (
        f"Started from `{facts.start}` with {head}, and trained {_extent(recipe)} for {steps} "
        f"({facts.epochs:.2f} epochs), each of {recipe.videos_per_step} examples "
        f"with {recipe.clips} random clips of {recipe.frames_per_clip} frames. Its other heads, "
        "if it has any, were not trained with it and are not to be used."
    )


def _data_rows(facts: CardFacts) -> list[tuple[str, str]]:
    rows = [
        ("annotations", f"`{facts.data}`"),
        ("sha256", f"`{facts.data_sha256}`"),
        ("lines learned from", f"{facts.report.num_annotations:,}"),
    ]
    rows += [
        (f"lines left out, {reason}", f"{count:,}")
        for reason, count in facts.report.left_out.items()
    ]
    rows.append(("videos that could not be used", f"{len(facts.report.unusable):,}"))
    rows.append(("examples that failed during training", f"{facts.report.num_dropped:,}"))
    return rows


def _name_videos(unusable: Sequence[UnusableVideo]) -> list[str]:
    if not unusable:
        return []
    lines = [f"- `{video.video}`: {video.reason}" for video in unusable[:_MOST_VIDEOS_NAMED]]
    if len(unusable) > _MOST_VIDEOS_NAMED:
        lines.append(f"- and {len(unusable) - _MOST_VIDEOS_NAMED:,} more")
    return ["Videos that could not be used:\n\n" + "\n".join(lines)]


def _result_rows(facts: CardFacts) -> list[tuple[str, str]]:
    rows = []
    for kind in ("loss", "validation_loss"):
        last = next((line for line in reversed(facts.report.metrics) if kind in line), None)
        if last is not None:
            shown = last if kind == "validation_loss" else {kind: last[kind]}
            rows += [
                (f"{name.replace('_', ' ')}, step {last['step']}", f"{value:g}")
                for name, value in shown.items()
                if name not in ("step", "epoch")
            ]
    return rows


def _table(rows: Sequence[tuple[str, str]]) -> str:
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)
