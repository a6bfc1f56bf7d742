"""Score a model, or a baseline, on each line of a split, in a process of its own.

    python -m clipbert.training.score --data labels.jsonl --split holdout --task qa \
        --tokens tokens --model run --out scores.json

writes `{"metric": "accuracy", "metrics": {...}, "examples": [{"line": 1, "score": 1.0}, ...]}`.
Instead of a model `--baseline majority` scores the most frequent answer of the training lines, and
`--baseline recall` the recall vectors in the tokens' folder, with the model that made them.
Beside the file, progress.json says how far it is; exit statuses are those of training.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from clipbert.errors import ConfigError
from clipbert.evaluation.majority import score_majority
from clipbert.model.head_names import EvaluatedTask
from clipbert.runs.contract import PROGRESS_FILE
from clipbert.runs.supervision import (
    Fence,
    RunControl,
    add_supervision,
    die_with_parent,
    limit_memory,
    run_supervised,
)
from clipbert.runs.whole_files import replace_file

if TYPE_CHECKING:
    from clipbert.evaluation.line_scores import Scores
    from clipbert.inference.clipbert import ClipBert


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    parsed = _parser().parse_args(arguments)
    if parsed.supervised:
        die_with_parent()
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    return run_supervised(
        lambda control: _score_into(parsed, control),
        progress_path=parsed.out.with_name(PROGRESS_FILE),
        error_folder=parsed.out.parent,
        fence=None if parsed.fence is None else Fence(parsed.fence, parsed.token),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clipbert.training.score", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="annotation file (JSONL)")
    parser.add_argument("--split", help="only the data's lines of this split")
    parser.add_argument("--task", choices=get_args(EvaluatedTask), required=True)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--videos", type=Path, help="folder of the videos")
    source.add_argument("--tokens", type=Path, help="folder of stored tokens, instead of videos")
    parser.add_argument("--model", type=Path, help="model folder")
    parser.add_argument("--baseline", choices=("majority", "recall"))
    parser.add_argument(
        "--training-data", type=Path, help="of the majority baseline, where it is not --data"
    )
    parser.add_argument("--clips", type=int, help="clips of each video, at the most")
    parser.add_argument("--out", type=Path, required=True, help="file of the scores")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add_supervision(parser)
    return parser


def _score_into(parsed: argparse.Namespace, control: RunControl) -> None:
    control.progress.enter("scoring")
    scores = _score(parsed, control)
    control.check_fence()
    replace_file(parsed.out, json.dumps(scores.to_json()) + "\n")


def _score(parsed: argparse.Namespace, control: RunControl) -> "Scores":
    if parsed.baseline == "majority":
        if parsed.task != "qa":
            raise ConfigError(f"task is {parsed.task!r}: the majority baseline is for qa")
        return score_majority(parsed.data, split=parsed.split, training=parsed.training_data)
    # --help, progress.json and the majority baseline need not wait for torch.
    from clipbert.datasets.media_folder import MediaFolder  # noqa: PLC0415
    from clipbert.datasets.token_folder import TokenFolder  # noqa: PLC0415
    from clipbert.evaluation import scoring  # noqa: PLC0415

    model, tell = _load(parsed), control.progress.move
    if parsed.baseline == "recall":
        if parsed.tokens is None:
            raise ConfigError("the recall baseline needs stored tokens, with recall vectors")
        tokens = TokenFolder(parsed.tokens)
        return scoring.score_recall(
            model, parsed.data, task=parsed.task, split=parsed.split, tokens=tokens, tell=tell
        )
    if parsed.tokens is None and parsed.videos is None:
        raise ConfigError("a model is scored on videos or on stored tokens: name one of them")
    media = TokenFolder(parsed.tokens) if parsed.tokens else MediaFolder(parsed.videos)
    return scoring.score_model(
        model,
        parsed.data,
        task=parsed.task,
        split=parsed.split,
        media=media,
        num_clips=parsed.clips,
        tell=tell,
    )


def _load(parsed: argparse.Namespace) -> "ClipBert":
    import torch  # noqa: PLC0415 (as above)

    from clipbert.inference.clipbert import ClipBert  # noqa: PLC0415

    if parsed.model is None:
        raise ConfigError("no model is given")
    limit_memory(parsed.memory_share)
    has_gpu = torch.cuda.is_available()
    if parsed.device == "cuda" and not has_gpu:
        raise ConfigError("device is 'cuda': there is no GPU here")
    device = "cuda" if has_gpu and parsed.device != "cpu" else "cpu"
    return ClipBert.for_serving(parsed.model, device=device)


if __name__ == "__main__":
    sys.exit(main())
