"""Files on their way into a batch: by uri where the API may read the path, by upload elsewhere."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.show.batch_outcome import NotSent
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem
from clipbert_client.text import sendable_name


@dataclass(frozen=True)
class SaidOfAll:
    """What is said of every video that is sent.

    Attributes:
        tags: that it gets.
        strict: refuse it if a part of it cannot be decoded.
    """

    tags: Sequence[str] = ()
    strict: bool = False


NOTHING_SAID = SaidOfAll()


def start_batch(
    api: ApiClient,
    files: Sequence[Path],
    *,
    name: str | None,
    upload_all: bool = False,
    said: SaidOfAll = NOTHING_SAID,
) -> tuple[str, list[Path]]:
    """Make a batch of all files that the API may read where they are.

    Args:
        api: the service.
        files: absolute paths.
        name: of the batch.
        upload_all: send the content of every file, for an API that does not see this disk.
        said: of every video.

    Returns:
        The batch's id, and the files that are to be uploaded into it.
    """
    inside: Sequence[Path] = [] if upload_all else files
    while True:
        try:
            batch = _create_batch(api, inside, name, said)
            break
        except ApiProblem as problem:
            if problem.code != "outside_media_roots":
                raise
            # The answer lists the first of them only.
            remaining = without_outside(inside, problem.errors)
            if len(remaining) == len(inside):
                raise
            inside = remaining
    kept = set(inside)
    return str(batch["id"]), [file for file in files if file not in kept]


def upload_files(
    api: ApiClient, batch_id: str, *, files: Sequence[Path], said: SaidOfAll = NOTHING_SAID
) -> list[NotSent]:
    """Upload files into a batch, one after the other.

    Returns:
        Those that could not be read or that the API refused; they do not keep back the others.
    """
    fields = [("batch_id", batch_id), *(("tags", tag) for tag in said.tags)]
    if said.strict:
        fields.append(("strict", "true"))
    not_sent = []
    for number, file in enumerate(files, start=1):
        print(f"uploading {number} of {len(files)}: {sendable_name(file.name)}", file=sys.stderr)
        try:
            api.upload("/v1/videos", file, fields)
        except ApiProblem as problem:
            not_sent.append(NotSent(file, problem.code, problem.detail))
        except OSError as error:
            not_sent.append(NotSent(file, "not_readable", error.strerror or str(error)))
    return not_sent


def without_outside(files: Sequence[Path], errors: Sequence[dict[str, object]]) -> Sequence[Path]:
    """Leave out the files that the API named, and all below the folders they are in.

    A link may lead out of a folder that is inside, so it stands for itself only.
    """
    named = [files[i] for error in errors if isinstance(i := error.get("index"), int)]
    links = {file for file in named if file.is_symlink()}
    folders = {file.parent for file in named if file not in links}
    return [
        file
        for file in files
        if file not in links and (file.is_symlink() or folders.isdisjoint(file.parents))
    ]


def _create_batch(api: ApiClient, files: Sequence[Path], name: str | None, said: SaidOfAll) -> Json:
    more: Json = {"tags": [*said.tags]} if said.tags else {}
    if said.strict:
        more["strict"] = True
    body: Json = {"items": [{"uri": file.as_uri(), **more} for file in files]}
    if name is not None:
        body["name"] = name
    return api.post("/v1/batches", body)
