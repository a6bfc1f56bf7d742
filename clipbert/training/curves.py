"""The curves of a run: its metrics as one JSON file and as a picture."""

import json
from pathlib import Path
from typing import Any

from clipbert.runs.contract import CURVES_FILE, CURVES_PICTURE
from clipbert.runs.whole_files import replace_file, write_beside
from clipbert.training.run_log import read_metrics

_LOSS, _VALIDATION, _RATE = "loss", "validation_loss", "transformer_lr"
_SIZE_INCHES, _DPI = (8.0, 4.5), 100


def draw_curves(metrics: Path) -> None:
    """Write curves.json and curves.png beside a metrics file.

    curves.json is `{"points": [...]}` with the lines of the metrics file, those of training with
    their `learning_rate` besides.

    Args:
        metrics: metrics.jsonl of a run; without lines nothing is written.
    """
    points = [_point(line) for line in read_metrics(metrics)]
    if not points:
        return
    replace_file(metrics.with_name(CURVES_FILE), json.dumps({"points": points}) + "\n")
    _draw(points, metrics.with_name(CURVES_PICTURE))


def _point(line: dict[str, float]) -> dict[str, float]:
    return line | ({"learning_rate": line[_RATE]} if _RATE in line else {})


def _draw(points: list[dict[str, float]], path: Path) -> None:
    # Loading it takes a second, which only who draws should wait.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI)
    FigureCanvasAgg(figure)
    losses = figure.add_subplot()
    measures = {name for point in points for name in point if name.startswith("validation_")}
    _line(losses, points, _LOSS, label="loss", color="tab:blue")
    _line(losses, points, _VALIDATION, label="validation loss", color="tab:orange", marker="o")
    losses.set_xlabel("step")
    losses.set_ylabel("loss")
    losses.set_ylim(bottom=0)
    losses.grid(alpha=0.3)
    others = losses.twinx()
    accuracy = next((name for name in sorted(measures) if "accuracy" in name), None)
    if accuracy is None:
        _line(others, points, "learning_rate", label="learning rate", color="tab:gray")
        others.set_ylabel("learning rate")
    else:
        _line(others, points, accuracy, label="accuracy", color="tab:green", marker="s")
        others.set_ylabel("%")
    # By hand: to measure all texts first, as matplotlib's layouts do, takes as long as to draw.
    figure.subplots_adjust(left=0.13, right=0.89, bottom=0.12, top=0.9)
    figure.legend(loc="upper center", ncols=4)
    with write_beside(path) as beside:
        figure.savefig(beside, format="png")


def _line(axes: Any, points: list[dict[str, float]], name: str, **style: Any) -> None:  # noqa: ANN401
    known = [(point["step"], point[name]) for point in points if name in point]
    if known:
        axes.plot(*zip(*known, strict=True), **style)
