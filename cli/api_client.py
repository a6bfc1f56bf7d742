"""The service as the commands reach it: found by the data folder, spoken of in their words."""

import sys
from pathlib import Path

from cli.data_folder import find_data_folder, read_client
from cli.show.console import print_error
from clipbert_client.client import ApiClient, Json

# What the fields of a request are called on the command line.
OPTION_OF_FIELD = {
    "body.choices": "--choice",
    "body.cron": "--cron",
    "body.dataset_id": "--dataset",
    "body.gate.confidence": "--confidence",
    "body.gate.max_drop": "--max-drop",
    "body.gate.min_gain": "--min-gain",
    "body.gate.min_holdout": "--min-holdout",
    "body.gate.regression_dataset_id": "--regression",
    "body.labels.sources": "--source",
    "body.labels.tags": "--tag",
    "body.limit": "--limit",
    "body.min_new_labels": "--min-new-labels",
    "body.mode": "--mode",
    "body.name": "--name",
    "body.tasks": "--task",
    "body.text": "the text",
    "body.time_zone": "--tz",
    "body.top_k": "--top-k",
    "query.kind": "--kind",
    "query.limit": "--limit",
    "query.name": "the video's name",
    "query.name_part": "the video's name",
    "query.source": "the source",
    "query.split": "--split",
    "query.state": "--state",
    "query.task": "--task",
}


def connect(data: Path | None) -> ApiClient:
    """Return a client with the address and key of the environment or the data folder.

    Args:
        data: as --data has it; None: the nearest data folder.

    Raises:
        CliError: neither says where the API is.
        ClientError: what they say cannot be used.
    """
    settings = read_client(find_data_folder(data))
    return ApiClient(
        settings.api_url,
        settings.api_key,
        field_names=OPTION_OF_FIELD,
        on_other_version=_warn_of_other_version,
    )


def list_first(
    api: ApiClient, path: str, *, limit: int, every: bool = False, **params: str | None
) -> list[Json]:
    """List the first items of a list resource, or every one; say on stderr when there are more."""
    found = list(api.items(path, limit=None if every else limit + 1, **params))
    return first_of(found, limit=limit, every=every)


def first_of(found: list[Json], *, limit: int, every: bool = False) -> list[Json]:
    """Return the first of what was found, or all of it; say on stderr when there are more."""
    if every or len(found) <= limit:
        return found
    print(f"there are more than these {limit}: --all lists all", file=sys.stderr)
    return found[:limit]


def _warn_of_other_version(ours: str, of_service: str) -> None:
    print_error(
        f"warning: this command is version {ours}, the service {of_service}",
        "install one version on both sides: what one knows the other may refuse",
    )
