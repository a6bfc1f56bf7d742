"""Does the whole loop learn, and do several clips help? Both on data that is at hand anywhere.

    python -m benchmarks.learning [--only easy-vqa|moving-shapes] [--quick]

`easy-vqa` goes through the whole service: index, import labels, finetune, evaluation. For
`moving-shapes` videos are generated, looked at once, and models trained from their stored tokens.
Prints tables and writes them to benchmarks/out/learning.{json,md,png}. What is done already in
--folder is not done again, so that an interrupted run goes on. Needs the default model in
.cache/clipbert-mini (make setup).
"""

import argparse
import datetime
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.learning import report, shape_tables
from benchmarks.learning.easy_vqa import question_only_accuracy, unpack
from benchmarks.learning.service import finetune, import_labels, index, running_service

PROJECT = Path(__file__).resolve().parents[2]
PARTS = ("easy-vqa", "moving-shapes")
# Besides the defaults of the service, which are for libraries of any kind. Three of four questions
# are yes or no, and mostly answered by their text: in larger steps the rest is less noisy. A shape
# on a plain ground needs no protection against learning by heart. 6 epochs are 1,809 steps.
EASY_VQA_RECIPE = {
    "epochs": 6,
    "learning_rate": 3e-4,
    "dropout": 0.0,
    "videos_per_step": 128,
    "videos_per_forward": 64,
}
_QUICK_PICTURES = 8
_QUICK_RECIPE = {"steps": 2, "videos_per_step": 8, "videos_per_forward": 8}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--quick", action="store_true", help="a few videos and steps: no figures")
    parser.add_argument("--model", type=Path, default=PROJECT / ".cache" / "clipbert-mini")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks" / "out")
    parser.add_argument(
        "--folder", type=Path, help="of videos, tokens and runs; default .cache/learning"
    )
    arguments = parser.parse_args()
    folder = arguments.folder or PROJECT / ".cache" / (
        "learning-quick" if arguments.quick else "learning"
    )
    parts = [arguments.only] if arguments.only else list(PARTS)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / ("learning-quick.json" if arguments.quick else "learning.json")
    # A part that is not asked for keeps its last figures.
    figures: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    figures |= {
        "machine": f"{os.cpu_count()} cores of {_processor()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if "easy-vqa" in parts:
        figures["easy_vqa"] = run_easy_vqa(arguments.model, quick=arguments.quick)
    if "moving-shapes" in parts:
        size = shape_tables.QUICK if arguments.quick else shape_tables.Size()
        figures["moving_shapes"] = shape_tables.run(folder / "moving-shapes", arguments.model, size)
        report.draw(figures, path.with_suffix(".png"))
    path.write_text(json.dumps(figures, indent=2) + "\n")
    path.with_suffix(".md").write_text(report.to_markdown(figures))
    print(f"\n{report.to_markdown(figures)}\nwrote {path} and its .md and .png")


def run_easy_vqa(model: Path, *, quick: bool) -> dict[str, Any]:
    """Index, label, finetune and evaluate through the service, in a folder that is gone after."""
    with tempfile.TemporaryDirectory(prefix="clipbert-easy-vqa-") as scratch:
        Path(scratch).chmod(0o755)  # as root, PostgreSQL runs as another user
        media = Path(scratch) / "media"
        data_set = unpack(
            PROJECT / ".cache" / "wheels",
            media,
            pictures_per_split=_QUICK_PICTURES if quick else None,
        )
        num_train = sum(label["split"] == "train" for label in data_set.labels)
        recipe = {**EASY_VQA_RECIPE, **(_QUICK_RECIPE if quick else {})}
        with running_service(Path(scratch) / "data", media=media, model=model) as api:
            index_seconds = index(api, data_set.pictures)
            import_seconds = import_labels(api, data_set.labels)
            done = finetune(api, {"task": "qa", "recipe": recipe})
        resource = done.resource
        if resource["state"] != "succeeded":
            raise SystemExit(f"the finetune {resource['state']}: {resource['error']}")
    decision = resource["decision"]
    return {
        "num_pictures": len(data_set.pictures),
        "num_train": num_train,
        "num_holdout": len(data_set.labels) - num_train,
        "index_seconds": round(index_seconds, 1),
        "import_seconds": round(import_seconds, 1),
        "stage_seconds": done.stage_seconds,
        "training_seconds": done.stage_seconds.get("training", 0.0),
        "evaluation_seconds": done.stage_seconds.get("evaluating", 0.0),
        "question_only": question_only_accuracy(data_set.labels),
        "accuracy": decision["holdout"]["candidate"],
        "decision": f"{decision['code']}: {decision['reason']}",
        "recipe": resource["recipe"],
        "report": resource["report"],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
