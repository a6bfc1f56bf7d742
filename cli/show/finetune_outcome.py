"""What a finetune will train, and what became of it: plan, evaluation, decision."""

from collections.abc import Iterator
from typing import Any

from cli.hints import runnable
from cli.show.console import format_time, print_error, print_facts, print_table
from cli.show.finetune_progress import describe
from clipbert_client.client import Json

MOST_ANSWERS_SHOWN = 8
_METRICS = {"accuracy": "accuracy", "r1": "right video first"}
_ENDINGS = {"failed": "failed", "cancelled": "was cancelled", "quarantined": "was given up"}
_LOWER_RATE = 4  # times lower than the one that diverged
# What people look for in a recipe first, as it is called there.
SHOWN_SETTINGS = ("visual", "epochs", "steps", "clips", "learning_rate", "videos_per_step")


def print_plan(finetune: Json, *, is_check: bool) -> None:
    """Print what will be trained, from what, and what may be amiss."""
    print_facts(_plan_facts(finetune, is_check=is_check))
    for warning in finetune.get("warnings") or ():
        print_error(f"warning: {warning}")
    if is_check:
        print("the request is right; without --check it starts")


def print_finetune(finetune: Json) -> None:
    """Print one finetune as it is now."""
    facts = [("state", describe(finetune))]
    facts += list(_plan_facts(finetune, is_check=False))
    facts += [
        (name, format_time(finetune[f"{name}_at"]))
        for name in ("created", "started", "finished")
        if finetune.get(f"{name}_at")
    ]
    if finetune.get("model_id"):
        facts.append(("model", str(finetune["model_id"])))
    print_facts(facts)
    if finetune["done"]:
        print()
        print_outcome(finetune)


def print_outcome(finetune: Json) -> None:
    """Print how a finetune ended: the evaluation, the decision, and where to look further."""
    if finetune["state"] != "succeeded":
        error = finetune.get("error") or {}
        why = f": {error['message']} ({error['code']})" if error else ""
        again = f"try again: clipbert finetunes retry {finetune['id']}"
        if error.get("code") == "training_diverged":
            # The same recipe on the same labels does the same.
            rate = finetune["recipe"]["learning_rate"] / _LOWER_RATE
            again = f"start another with a lower rate, such as --set learning_rate={rate:.2g}"
        print_error(
            f"the finetune {_ENDINGS[finetune['state']]}{why}",
            f"look closer: clipbert finetunes events {finetune['id']}; {again}",
        )
        return
    decision = read_decision(finetune)
    rows = list(_evaluation_rows(finetune, decision))
    if rows:
        print_table(
            ["on", "candidate#", "compared with", "difference#", "interval#", "examples#"], rows
        )
    verdict = "promoted" if decision.get("promoted") else "kept as a candidate"
    print(f"{verdict}: {decision.get('reason') or decision.get('code') or 'no reason was given'}")
    if finetune.get("model_id"):
        print(f"model {finetune['name']}, {finetune['model_id']}")
        if not decision.get("promoted"):
            print(
                runnable(
                    f"let it serve all the same: clipbert models promote {finetune['model_id']}"
                )
            )
    print(runnable(f"curves: clipbert finetunes curves {finetune['id']} curves.png"))


def decision_words(finetune: Json) -> str:
    """Describe in a word or two what became of a finetune; empty while it is not over."""
    if not finetune["done"]:
        return ""  # its job may still tell of a worker that was lost
    if finetune["state"] == "succeeded":
        return str(read_decision(finetune).get("code") or "").replace("_", " ")
    return str((finetune.get("error") or {}).get("code") or "")


def read_decision(finetune: Json) -> Json:
    """Return what the gate said of the model that came of a finetune."""
    decision: Json = finetune.get("decision") or {}
    return decision


def _evaluation_rows(finetune: Json, decision: Json) -> Iterator[tuple[str, ...]]:
    report: Json = finetune.get("report") or {}
    name = str((report.get("reference") or {}).get("name") or "")
    metric = _METRICS.get(str((report.get("candidate") or {}).get("metric")), "right")
    for what in ("holdout", "regression"):
        measured = decision.get(what)
        if measured:
            yield (
                f"{what}, {metric}",
                f"{measured['candidate']:.1%}",
                f"{name} {measured['reference']:.1%}".lstrip(),
                f"{measured['difference']:+.1%}",
                f"{measured['low']:+.1%} to {measured['high']:+.1%}",
                str(measured["num_examples"]),
            )


def _plan_facts(finetune: Json, *, is_check: bool) -> Iterator[tuple[str, str]]:
    dataset: dict[str, Any] = finetune.get("dataset") or {}
    recipe: dict[str, Any] = finetune.get("recipe") or {}
    if not is_check:
        yield "finetune", str(finetune["id"])
    yield "task", f"{finetune['task']}, as model {finetune['name']}"
    yield "labels", _label_counts(dataset)
    answers = dataset.get("answers") or ()
    if answers:
        shown = ", ".join(map(str, answers[:MOST_ANSWERS_SHOWN]))
        more = ", ..." if len(answers) > MOST_ANSWERS_SHOWN else ""
        yield "answers", f"{len(answers)}: {shown}{more}"
    yield "base", str(finetune.get("base_model") or finetune["base_model_id"])
    settings = [f"{name} {recipe[name]}" for name in SHOWN_SETTINGS if recipe.get(name) is not None]
    yield "recipe", ", ".join(settings)


def _label_counts(dataset: Json) -> str:
    train, holdout = int(dataset["num_train"]), int(dataset["num_holdout"])
    return (
        f"{train + holdout} of {dataset['num_videos']} videos: {train} to train, {holdout} held out"
    )
