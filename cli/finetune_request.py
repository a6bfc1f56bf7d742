"""What a finetune is asked for: options of the command line as the body of POST /v1/finetunes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cli.errors import CliError, check_one_of
from cli.model_names import find_model
from cli.video_names import find_video
from clipbert_client.client import ApiClient, Json

TASKS = ("qa", "multiple_choice", "retrieval")

TaskOption = Annotated[str, typer.Option("--task", help="qa, multiple_choice or retrieval.")]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="Model to start from: id, name or name@version. Default: what made the index.",
        show_default=False,
    ),
]
ModelNameOption = Annotated[
    str | None,
    typer.Option(
        "--name", help="Of the model it makes. Default: clipbert-TASK.", show_default=False
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a field of the recipe: field=value; repeatable.", show_default=False
    ),
]
SourcesOption = Annotated[
    list[str] | None,
    typer.Option("--source", help="Only labels of this source; repeatable.", show_default=False),
]
TagsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tag", help="Only labels of videos with this tag; repeatable.", show_default=False
    ),
]
VideosOption = Annotated[
    list[str] | None,
    typer.Option("--video", help="Only labels of this video; repeatable.", show_default=False),
]
AfterOption = Annotated[
    str | None,
    typer.Option("--after", help="Only labels made after this time, ISO 8601.", show_default=False),
]
BeforeOption = Annotated[
    str | None,
    typer.Option("--before", help="Only labels made before this time.", show_default=False),
]
DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", help="Train again on a data set of an earlier finetune, by its id."),
]
MinHoldoutOption = Annotated[
    int | None,
    typer.Option(
        "--min-holdout",
        min=1,
        help="Promote on no fewer examples. Default: 50.",
        show_default=False,
    ),
]
MinGainOption = Annotated[
    float | None,
    typer.Option(
        "--min-gain", help="Promote if better by this, 0 to 1. Default: 0.", show_default=False
    ),
]
MaxDropOption = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        help="Most that may be lost on the regression set. Default: 0.02.",
        show_default=False,
    ),
]
ConfidenceOption = Annotated[
    float | None,
    typer.Option(
        "--confidence", help="Of the interval of the gain. Default: 0.95.", show_default=False
    ),
]
SignificantOption = Annotated[
    bool | None,
    typer.Option(
        "--significant/--any-gain",
        help="Whether the whole interval of the gain must be above zero. Default: --significant.",
        show_default=False,
    ),
]
PromoteOption = Annotated[
    bool | None,
    typer.Option(
        "--promote/--no-promote",
        help="Whether a model that passes serves at once. Default: --promote.",
        show_default=False,
    ),
]
RegressionOption = Annotated[
    str | None,
    typer.Option("--regression", help="A data set, by id, on which it may not become worse."),
]


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """What a finetune and a schedule of finetunes take; what is None is left to the service."""

    base: BaseOption = None
    model_name: ModelNameOption = None
    settings: SettingsOption = None
    sources: SourcesOption = None
    tags: TagsOption = None
    min_holdout: MinHoldoutOption = None
    min_gain: MinGainOption = None
    max_drop: MaxDropOption = None
    confidence: ConfidenceOption = None
    significant: SignificantOption = None
    promote: PromoteOption = None
    regression: RegressionOption = None


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Which labels one finetune learns from, beside what FinetuneOptions says of them."""

    videos: VideosOption = None
    after: AfterOption = None
    before: BeforeOption = None
    dataset: DatasetOption = None


def finetune_body(
    api: ApiClient,
    options: FinetuneOptions,
    *,
    task: str | None,
    labels: LabelOptions = LabelOptions(),
) -> Json:
    """Return the body of a request; only what was given is in it.

    Raises:
        CliError: a setting is malformed, or a model or a video is not there.
    """
    check_one_of("--task", task, allowed=TASKS)
    base = None if options.base is None else find_model(api, options.base)["id"]
    chosen = _given(
        sources=options.sources,
        tags=options.tags,
        video_ids=[str(find_video(api, video)["id"]) for video in labels.videos or ()],
        created_after=_instant("--after", labels.after),
        created_before=_instant("--before", labels.before),
    )
    gate = _given(
        min_holdout=options.min_holdout,
        min_gain=options.min_gain,
        max_drop=options.max_drop,
        confidence=options.confidence,
        require_significance=options.significant,
        promote=options.promote,
        regression_dataset_id=options.regression,
    )
    return _given(
        task=task,
        base_model_id=base,
        name=options.model_name,
        recipe=read_settings(options.settings or ()),
        labels=chosen,
        dataset_id=labels.dataset,
        gate=gate,
    )


def merged(body: Mapping[str, Any], changes: Mapping[str, Any]) -> Json:
    """Change the fields of a request that are given anew, and within recipe, labels and gate."""
    return {
        **body,
        **{
            name: {**(body.get(name) or {}), **value} if isinstance(value, dict) else value
            for name, value in changes.items()
        },
    }


def read_settings(settings: Iterable[str]) -> Json:
    """Read field=value pairs: values as in TOML, texts also without quotes, `none` for nothing.

        read_settings(["epochs=4", "plan=segments", "steps=none"])
        ->  {"epochs": 4, "plan": "segments", "steps": None}

    Raises:
        CliError: one has no `=`.
    """
    found = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise CliError(f"--set {setting}: must be field=value")
        found[name.strip()] = _value(text.strip())
    return found


def _instant(option: str, text: str | None) -> str | None:
    """Write a time with its zone; one that is given without is this machine's."""
    if text is None:
        return None
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError:
        raise CliError(
            f"{option} {text}: must be a time such as 2026-01-05T09:00 or 2026-01-05"
        ) from None


def _value(text: str) -> object:
    import tomllib

    if text == "none":
        return None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    # TOML has dates too; no field of a recipe is one.
    return value if isinstance(value, bool | int | float | str | list) else text


def _given(**fields: object) -> Json:
    return {name: value for name, value in fields.items() if value not in (None, [], {})}
