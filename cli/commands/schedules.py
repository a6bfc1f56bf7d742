"""`clipbert schedule`: finetunes that start by themselves, when there are enough new labels."""

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from cli.api_client import connect, list_first
from cli.commands.finetune import refusal
from cli.data_folder import DataOption
from cli.deletion import YesOption
from cli.errors import CliError, check_one_of
from cli.finetune_request import TASKS, FinetuneOptions, finetune_body, merged
from cli.hints import runnable
from cli.option_groups import with_option_groups
from cli.show.console import (
    EveryOption,
    JsonOption,
    LimitOption,
    format_time,
    print_facts,
    print_json,
    print_table,
)
from cli.show.facts import facts_of
from clipbert.datasets.visible_text import has_visible_text
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem

MISFIRE, OVERLAP = ("skip", "run_once"), ("skip", "queue")

app = typer.Typer(help="Let finetunes start by themselves.", no_args_is_help=True)

ScheduleArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Its name or id.")]
CronOption = Annotated[
    str | None,
    typer.Option(help='When, as cron: minute hour day month weekday; "0 3 * * *" is 3 at night.'),
]
ZoneOption = Annotated[
    str | None, typer.Option("--tz", help="Time zone of it, such as Europe/Berlin. Default: UTC.")
]
NewLabelsOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Do nothing unless this many labels came since its own last finetune; those started "
        "by hand do not count.",
    ),
]
MisfireOption = Annotated[
    str | None,
    typer.Option(help="Of times that passed while nothing ran: skip, or run_once for them all."),
]
OverlapOption = Annotated[
    str | None,
    typer.Option(help="While its last finetune is not over: skip, or queue another."),
]
TaskOption = Annotated[
    str | None, typer.Option("--task", help=f"What to train: {', '.join(TASKS)}.")
]


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """When a schedule fires, and what it trains; what is None is left to the service."""

    cron: CronOption = None
    time_zone: ZoneOption = None
    task: TaskOption = None
    min_new_labels: NewLabelsOption = None
    misfire: MisfireOption = None
    overlap: OverlapOption = None


@app.command("create")
@with_option_groups
def create_schedule(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    times: ScheduleOptions,
    options: FinetuneOptions,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Make a schedule: cron, time zone, and the finetune that it starts."""
    if not has_visible_text(name):
        raise CliError("the name of a schedule is empty")
    if times.cron is None or times.task is None:
        missing = "--cron" if times.cron is None else "--task"
        raise CliError(
            f"give {missing}",
            f'such as: clipbert schedule create {name} --cron "0 3 * * *" --task qa',
        )
    with connect(data) as api:
        body = _times(times)
        body |= {"name": name, "finetune": finetune_body(api, options, task=times.task)}
        try:
            found = api.post("/v1/schedules", body)
        except ApiProblem as problem:
            raise refusal(problem) from problem
    _tell(found, as_json=as_json)


@app.command("update")
@with_option_groups
def update_schedule(
    schedule: ScheduleArgument,
    *,
    times: ScheduleOptions,
    options: FinetuneOptions,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Change what is given of a schedule; the rest stays."""
    with connect(data) as api:
        before = find_schedule(api, schedule)
        changes = _times(times)
        finetune = finetune_body(api, options, task=times.task)
        if finetune:
            changes["finetune"] = merged(before["finetune"], finetune)
        if not changes:
            raise CliError("nothing to change", "see: clipbert schedule update --help")
        try:
            found = api.patch(f"/v1/schedules/{before['id']}", changes)
        except ApiProblem as problem:
            raise refusal(problem) from problem
    _tell(found, as_json=as_json)


@app.command("list")
def list_schedules(*, as_json: JsonOption = False, data: DataOption = None) -> None:
    """List schedules and when each fires next."""
    with connect(data) as api:
        found = api.all_items("/v1/schedules")
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "name", "cron", "time zone", "task", "new labels#", "next"],
        [
            (
                str(each["id"]),
                str(each["name"]),
                str(each["cron"]),
                str(each["time_zone"]),
                str(each["finetune"].get("task") or ""),
                str(each["min_new_labels"]),
                _next(each),
            )
            for each in found
        ],
    )


@app.command("show")
def show_schedule(
    schedule: ScheduleArgument, *, as_json: JsonOption = False, data: DataOption = None
) -> None:
    """Show one schedule."""
    with connect(data) as api:
        found = find_schedule(api, schedule)
    if as_json:
        print_json(found)
        return
    print_facts(facts_of(found))


@app.command("pause")
def pause_schedule(schedule: ScheduleArgument, *, data: DataOption = None) -> None:
    """Pause a schedule: it starts nothing until it is resumed."""
    _act(schedule, "pause", data)


@app.command("resume")
def resume_schedule(schedule: ScheduleArgument, *, data: DataOption = None) -> None:
    """Resume a paused schedule; what it missed meanwhile is not made up for."""
    _act(schedule, "resume", data)


@app.command("run-now")
def run_schedule_now(
    schedule: ScheduleArgument, *, as_json: JsonOption = False, data: DataOption = None
) -> None:
    """Fire a schedule once, now; its own times stay as they are."""
    with connect(data) as api:
        found = find_schedule(api, schedule)
        try:
            fire = api.post(f"/v1/schedules/{found['id']}:run_now")
        except ApiProblem as problem:
            raise refusal(problem) from problem
    if as_json:
        print_json(fire)
        return
    print(_sentence(str(found["name"]), fire))
    if fire.get("finetune_id"):
        print(runnable(f"follow it with: clipbert finetunes show {fire['finetune_id']} --wait"))


@app.command("fires")
def list_fires(
    schedule: ScheduleArgument,
    *,
    limit: LimitOption = 30,
    every: EveryOption = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List when a schedule fired, newest first, what each did, and why one did nothing."""
    with connect(data) as api:
        found = find_schedule(api, schedule)
        fires = list_first(api, f"/v1/schedules/{found['id']}/fires", limit=limit, every=every)
    if as_json:
        print_json(fires)
        return
    print_table(
        ["time", "outcome", "reason", "detail", "finetune"],
        [
            (
                format_time(fire["fire_time"]) + (" (by hand)" if fire.get("is_manual") else ""),
                str(fire["outcome"]),
                str(fire.get("reason") or ""),
                str(fire.get("detail") or ""),
                str(fire.get("finetune_id") or ""),
            )
            for fire in fires
        ],
    )


@app.command("delete")
def delete_schedule(
    schedule: ScheduleArgument,
    *,
    yes: YesOption = False,
    data: DataOption = None,
) -> None:
    """Delete a schedule. The finetunes that it started stay."""
    with connect(data) as api:
        found = find_schedule(api, schedule)
        api.delete(f"/v1/schedules/{found['id']}")
    print(f"deleted schedule {found['name']}")


def find_schedule(api: ApiClient, wanted: str) -> Json:
    """Find a schedule by its id or its name.

    Raises:
        CliError: there is none.
    """
    try:
        return api.get(f"/v1/schedules/{UUID(wanted)}")
    except ValueError:
        pass  # no id
    except ApiProblem as problem:
        if problem.status != HTTPStatus.NOT_FOUND:
            raise
    for schedule in api.all_items("/v1/schedules"):
        if schedule["name"] == wanted:
            return schedule
    raise CliError(f"no schedule is named {wanted!r}", "`clipbert schedule list` shows all")


def _act(schedule: str, verb: str, data: Path | None) -> None:
    with connect(data) as api:
        found = find_schedule(api, schedule)
        found = api.post(f"/v1/schedules/{found['id']}:{verb}")
    print(f"schedule {found['name']}: {_next(found)}")


def _times(times: ScheduleOptions) -> Json:
    check_one_of("--misfire", times.misfire, allowed=MISFIRE)
    check_one_of("--overlap", times.overlap, allowed=OVERLAP)
    fields = {
        "cron": times.cron,
        "time_zone": times.time_zone,
        "min_new_labels": times.min_new_labels,
        "misfire_policy": times.misfire,
        "overlap_policy": times.overlap,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _tell(schedule: Json, *, as_json: bool) -> None:
    if as_json:
        print_json(schedule)
        return
    zone = schedule["time_zone"]
    print(f"schedule {schedule['name']}: {schedule['cron']} ({zone}), next {_next(schedule)}")


def _next(schedule: Json) -> str:
    if not schedule["enabled"]:
        return "paused"
    fires_at = schedule.get("next_fire_at")
    return "never" if fires_at is None else f"{format_time(fires_at)} UTC"


def _sentence(name: str, fire: Json) -> str:
    reason = fire.get("detail") or fire.get("reason")
    return f"schedule {name}: {fire['outcome']}{f', {reason}' if reason else ''}"
