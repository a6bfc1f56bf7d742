"""`clipbert finetune`: from labels to a model that is better, or a sentence that says why not."""

import sys
from typing import Annotated

import typer

from cli.api_client import connect
from cli.data_folder import DataOption
from cli.errors import INTERRUPTED, CliError
from cli.finetune_request import FinetuneOptions, LabelOptions, TaskOption, finetune_body
from cli.hints import runnable
from cli.option_groups import with_option_groups
from cli.show.console import JsonOption, print_json
from cli.show.finetune_outcome import print_outcome, print_plan
from cli.show.finetune_progress import follow_finetune
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem, ServiceUnreachable

# What else to do about a refusal, beside what its sentence says.
CURES = {
    "no_labels": "`clipbert label list` shows the labels that are there",
    "one_answer": "`clipbert label answers` counts them",
    "no_active_generation": "index something first: clipbert index FOLDER --wait",
    "tokens_missing": "`clipbert videos list` shows their states; --set visual=trained needs none",
}


@with_option_groups
def finetune(
    task: TaskOption,
    *,
    options: FinetuneOptions,
    labels: LabelOptions,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the request and show what it would train.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show progress until it is over, through pauses.")
    ] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Train a model on the labels; it serves if it beats what serves now on the holdout.

    Exit code 1 if it failed or was cancelled; a candidate that was not promoted is not a failure.
    """
    with connect(data) as api:
        body = finetune_body(api, options, task=task, labels=labels)
        found = request_finetune(api, body, check=check)
        if not as_json:
            print_plan(found, is_check=check)
        if not check and wait:
            found = wait_for_finetune(api, found, as_json=as_json)
        elif not check and not as_json:
            print(runnable(f"follow it with: clipbert finetunes show {found['id']} --wait"))
    if as_json:
        print_json(found)
    elif not check and wait:
        print_outcome(found)
    if found.get("state") in {"failed", "cancelled", "quarantined"}:
        raise typer.Exit(1)


def request_finetune(api: ApiClient, body: Json, *, check: bool) -> Json:
    """Request a finetune, or only the check of one.

    Raises:
        CliError: it is refused; says everything that is missing, and what to do about it.
    """
    try:
        return api.post("/v1/finetunes", body, validate_only="true" if check else None)
    except ApiProblem as problem:
        raise refusal(problem) from problem


def refusal(problem: ApiProblem) -> CliError:
    """Return a refusal with its cure, and all fields that are wrong."""
    # The sentence is about the first one already.
    fields = [str(error["message"]) for error in problem.errors[1:] if "message" in error]
    said = problem.detail.lower()
    more = [message for message in fields if message.lower() not in said]
    return CliError(
        "; ".join([problem.detail, *more]) + f" ({problem.code})", CURES.get(problem.code)
    )


def wait_for_finetune(api: ApiClient, finetune: Json, *, as_json: bool) -> Json:
    """Follow a finetune to its end; whoever interrupts that leaves it running, and is told how.

    Raises:
        ServiceUnreachable: the service stays away.
        typer.Exit: Ctrl-C.
    """
    output = sys.stderr if as_json else sys.stdout
    finetune_id = str(finetune["id"])
    try:
        return follow_finetune(api, finetune_id, output=output)
    except KeyboardInterrupt:
        print("\nthe finetune goes on; look, pause or cancel it with:", file=output)
        for command in ("show", "pause", "cancel"):
            line = runnable(f"  clipbert finetunes {command} {finetune_id}")
            print(line, file=output, flush=True)
        raise typer.Exit(INTERRUPTED) from None
    except ServiceUnreachable as error:
        cure = f"the finetune is safe; follow it with: clipbert finetunes show {finetune_id} --wait"
        raise ServiceUnreachable(error.message, cure) from error
