"""Which video a person means: its id, its name, a copy's, or a part of one."""

import os
import unicodedata
from http import HTTPStatus
from uuid import UUID

from cli.errors import CliError
from clipbert.datasets.visible_text import has_visible_text
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem
from clipbert_client.text import as_text

MOST_NAMED = 5


def find_video(api: ApiClient, wanted: str) -> Json:
    """Find a video by what may name it, as the labels of a file do, or by a part of its name.

    A part counts only where nothing has the whole name, and only if one name has it. A path from
    here (`./a.mp4`, `../a.mp4`) is the file that it leads to.

    Raises:
        CliError: none fits, or several do.
    """
    if not has_visible_text(wanted):
        raise CliError("name a video", "`clipbert videos list` shows them all")
    found = _with_id(api, wanted)
    if found is not None:
        return found
    fitting = list(api.items("/v1/videos", limit=None, named=as_text(_from_here(wanted))))
    if not fitting and "/" not in wanted:
        part = unicodedata.normalize("NFC", as_text(wanted))  # a terminal of macOS may give NFD
        fitting = list(api.items("/v1/videos", limit=None, name_part=part))
    wanted = as_text(wanted)
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise CliError(f"no video named like {wanted!r}", "`clipbert videos list` shows them all")
    names = ", ".join(f"{video['uri']} ({video['id']})" for video in fitting[:MOST_NAMED])
    raise CliError(
        f"{len(fitting)} videos are named like {wanted!r}: {names}", "give the id or the URI"
    )


def _from_here(wanted: str) -> str:
    """Return the absolute path of one that is said to begin here, and anything else as it is."""
    return os.path.abspath(wanted) if wanted.startswith(("./", "../")) else wanted  # noqa: PTH100


def _with_id(api: ApiClient, wanted: str) -> Json | None:
    try:
        return api.get(f"/v1/videos/{UUID(wanted)}")
    except ValueError:
        return None  # not an id
    except ApiProblem as problem:
        if problem.status != HTTPStatus.NOT_FOUND:
            raise
        return None
