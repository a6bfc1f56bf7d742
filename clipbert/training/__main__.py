"""Train in one of several processes.

    torchrun --nproc-per-node 4 -m clipbert.training recipes/msrvtt_retrieval.toml \
        --data train.jsonl --videos videos --model clipbert-base --out run

The arguments are those of `clipbert train`, and a few for a service that runs it: with --supervised
the process dies with its parent, keeps progress.json and on failure error.json in its folder, and
ends with 0, 1 (failed), 3 (another attempt holds the fence), 4 (out of memory) or 5 (SIGTERM, after
a checkpoint).
"""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from clipbert.errors import ClipBertError
from clipbert.runs.contract import PROGRESS_FILE
from clipbert.runs.supervision import (
    Fence,
    RunControl,
    add_supervision,
    die_with_parent,
    limit_memory,
    run_supervised,
)
from clipbert.training.recipe import read_recipe
from clipbert.training.run_request import RunRequest
from clipbert.training.starting_config import check_request


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    parsed = _parser().parse_args(arguments)
    if parsed.supervised:
        return _train_supervised(parsed)
    try:
        _train(parsed, RunControl())
    except (ClipBertError, OSError) as error:
        sys.stderr.write(f"clipbert: {error}\n")
        return 1
    return 0


def _train_supervised(parsed: argparse.Namespace) -> int:
    die_with_parent()
    return run_supervised(
        lambda control: _train(parsed, control),
        progress_path=parsed.out / PROGRESS_FILE,
        error_folder=parsed.out,
        fence=None if parsed.fence is None else Fence(parsed.fence, parsed.token),
        is_main=int(os.environ.get("RANK", "0")) == 0,
    )


def _train(parsed: argparse.Namespace, control: RunControl) -> None:
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("clipbert").setLevel(logging.INFO)
    # Gradients of 1x1 convolutions: their two layouts are the same bytes.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # What has no repeatable kernel on a GPU is computed all the same.
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
    request = _request(parsed, control)
    check_request(request)
    from clipbert.training.run import train  # noqa: PLC0415 (--help need not wait for it)

    limit_memory(parsed.memory_share)
    train(request)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clipbert.training", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("recipe", type=Path, help="a recipe file")
    parser.add_argument("--data", type=Path, required=True, help="annotation file (JSONL)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--videos", type=Path, help="folder of the videos")
    source.add_argument("--tokens", type=Path, help="folder of stored tokens, instead of videos")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run and the model")
    parser.add_argument("--model", type=Path, help="model folder to start from")
    parser.add_argument("--init", help="start from random weights instead: clipbert-tiny")
    parser.add_argument("--validation", type=Path, help="annotation file to validate with")
    parser.add_argument("--answers", type=Path, help="answers of questions (ans2label JSON)")
    parser.add_argument("--split", help="only the data's lines of this split")
    parser.add_argument("--validation-split", help="only the validation's lines of this split")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], help="field=value of the recipe"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument("--max-steps", type=int, help="stop after so many steps")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--workers", type=int, help="processes that load videos, for each process")
    add_supervision(parser)
    return parser


def _request(parsed: argparse.Namespace, control: RunControl) -> RunRequest:
    return RunRequest(
        recipe=read_recipe(parsed.recipe).replace(parsed.settings),
        data=parsed.data,
        videos=parsed.videos,
        out=parsed.out,
        model=parsed.model,
        preset=parsed.init,
        validation=parsed.validation,
        answers=parsed.answers,
        split=parsed.split,
        validation_split=parsed.validation_split,
        resume=parsed.resume,
        max_steps=parsed.max_steps,
        device=parsed.device,
        num_workers=parsed.workers,
        tokens=parsed.tokens,
        control=control,
    )


if __name__ == "__main__":
    sys.exit(main())
