"""`clipbert models`: which models serve, bringing in another, and going back."""

from pathlib import Path
from typing import Annotated

import typer

from cli.api_client import connect
from cli.data_folder import DataOption, find_data_folder
from cli.deletion import YesOption, confirm_delete
from cli.errors import CliError, check_one_of
from cli.finetune_request import TASKS
from cli.hints import runnable
from cli.local_store import open_store
from cli.model_names import find_model, model_name, serving_model
from cli.show.console import JsonOption, format_time, print_facts, print_json, print_table
from cli.show.facts import facts_of
from clipbert.model.config import CONFIG_FILE
from clipbert_client.client import ApiClient, Json

SERVED_TASKS = (*TASKS, "recall")
MOST_PROMOTIONS = 500  # the most that the API lists

app = typer.Typer(
    help="List and show models; register a model folder; promote and roll back.",
    no_args_is_help=True,
)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Its id, its name or name@version.")
]


@app.command("list")
def list_models(*, as_json: JsonOption = False, data: DataOption = None) -> None:
    """List the registered models and what each serves."""
    with connect(data) as api:
        models = api.all_items("/v1/models")
    if as_json:
        print_json(models)
        return
    print_table(
        ["id", "name", "version", "state", "serves", "heads"],
        [
            (
                str(model["id"]),
                str(model["name"]),
                str(model["version"]),
                str(model.get("state") or ""),
                ", ".join(model.get("serves") or []) or "-",
                ", ".join(model.get("heads") or []),
            )
            for model in models
        ],
    )


@app.command("show")
def show_model(
    model: ModelArgument, *, as_json: JsonOption = False, data: DataOption = None
) -> None:
    """Show one model: what it serves, how well it did, where it comes from."""
    with connect(data) as api:
        found = find_model(api, model)
        promotions = api.all_items(f"/v1/models/{found['id']}/promotions", limit=MOST_PROMOTIONS)
    if as_json:
        print_json({**found, "promotions": promotions})
        return
    print_facts(facts_of(found))
    if promotions:
        print()
        print_table(
            ["when", "task", "what", "why"],
            [_promotion_row(found, promotion) for promotion in promotions],
        )


@app.command("promote")
def promote_model(
    model: ModelArgument,
    *,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Let it serve this task; repeatable. Default: all it can."),
    ] = None,
    data: DataOption = None,
) -> None:
    """Make a model serve, whatever its evaluation said."""
    for each in task or ():
        check_one_of("--task", each, allowed=SERVED_TASKS)
    with connect(data) as api:
        found = find_model(api, model)
        body = {"tasks": task} if task else {}
        found = api.post(f"/v1/models/{found['id']}:promote", body)
    print(_serves(found))


@app.command("delete")
def delete_model(
    model: ModelArgument,
    *,
    yes: YesOption = False,
    data: DataOption = None,
) -> None:
    """Delete a model and its files; refused while it serves or something needs it."""
    with connect(data) as api:
        found = find_model(api, model)
        name = model_name(found)
        if not yes and model not in {str(found["id"]), f"{found['name']}@{found['version']}"}:
            confirm_delete(f"{model!r} may mean {name} ({found['id']})", name)
        api.delete(f"/v1/models/{found['id']}")
    print(f"deleted {name} ({found['id']})")


@app.command("rollback")
def roll_back(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="Its id, its name or name@version.", show_default=False
        ),
    ] = None,
    *,
    task: Annotated[
        str | None, typer.Option(help="Instead of a model: whatever serves this task.")
    ] = None,
    data: DataOption = None,
) -> None:
    """Make what served before a model serve again; workers follow within seconds."""
    if (model is None) == (task is None):
        raise CliError("name a model or a --task", "such as: clipbert models rollback --task qa")
    check_one_of("--task", task, allowed=SERVED_TASKS)
    with connect(data) as api:
        found = find_model(api, model) if model is not None else serving_model(api, str(task))
        tasks = found.get("serves") or []
        rolled_back = api.post(f"/v1/models/{found['id']}:rollback")
        print(_serves(rolled_back))
        for each in tasks:
            print(f"{each}: {_now_serving(api, each)}")


@app.command("register")
def register_model(
    folder: Annotated[Path, typer.Argument(help="A model folder (config.json and weights).")],
    *,
    name: Annotated[str, typer.Option(help="What to call it.")],
    version: Annotated[str, typer.Option(help="Its version.")] = "1",
    promote: Annotated[
        bool, typer.Option("--promote", help="Let it serve every task it has a head for.")
    ] = False,
    data: DataOption = None,
) -> None:
    """Copy a model folder into the blob store and note it in the database."""
    if not (folder / CONFIG_FILE).is_file():
        raise CliError(f"{folder} is not a model folder: it has no {CONFIG_FILE}")
    sessions, blobs = open_store(find_data_folder(data))
    from clipbert.errors import ClipBertError
    from policy import registration as deployment
    from store.errors import InvalidModelFolder

    try:
        model_id = deployment.register_model(sessions, blobs, folder, name=name, version=version)
        if promote:
            deployment.promote(sessions, model_id)
    except (ClipBertError, InvalidModelFolder, ValueError) as error:
        raise CliError(str(error)) from error
    print(f"registered {name} {version} as {model_id}{', promoted' if promote else ''}")


def _serves(model: Json) -> str:
    serves = ", ".join(model.get("serves") or []) or "nothing any more"
    waits = (
        runnable(
            "; until its generation is built, what served before answers (clipbert generations "
            "list)"
        )
        if model.get("waiting_for")
        else ""
    )
    return f"{model_name(model)} serves {serves}{waits}"


def _promotion_row(model: Json, promotion: Json) -> tuple[str, ...]:
    """Describe what a change of the serving model was for this one."""
    began = promotion["model_id"] == model["id"]
    what = "began to serve" if began else "was followed"
    if promotion["action"] == "rollback":
        what = "came back" if began else "was rolled back"
    when = format_time(promotion["created_at"])
    return when, str(promotion["task"]), what, str(promotion.get("reason") or "")


def _now_serving(api: ApiClient, task: str) -> str:
    for model in api.all_items("/v1/models"):
        if task in (model.get("serves") or []):
            return f"{model_name(model)} serves it now"
    return "no model serves it now"
