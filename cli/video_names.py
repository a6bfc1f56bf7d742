"""Which video a person means: its id, its name, a copy's, or a part of one."""

import unicodedata
from http import HTTPStatus
from uuid import UUID

from cli.errors import CliError
from cli.show.console import file_name, is_same_name
from clipbert.datasets.visible_text import has_visible_text
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem
from clipbert_client.text import as_text

MOST_NAMED = 5


def find_video(api: ApiClient, wanted: str) -> Json:
    """Find a video by id, by its file name or a copy's, or by a part that only one such name has.

    Raises:
        CliError: none fits, or several do.
    """
    if not has_visible_text(wanted):
        raise CliError("name a video", "`clipbert videos list` shows them all")
    found = _with_id(api, wanted)
    if found is not None:
        return found
    wanted = unicodedata.normalize("NFC", as_text(wanted))  # a terminal of macOS may give NFD
    fitting = list(api.items("/v1/videos", limit=None, name=wanted))
    # The video that has the name itself comes before those that have a copy of this name.
    own = [video for video in fitting if is_same_name(file_name(str(video["uri"])), wanted)]
    fitting = own or fitting or list(api.items("/v1/videos", limit=None, name_part=wanted))
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise CliError(f"no video named like {wanted!r}", "`clipbert videos list` shows them all")
    names = ", ".join(
        f"{file_name(str(video['uri']))} ({video['id']})" for video in fitting[:MOST_NAMED]
    )
    raise CliError(f"{len(fitting)} videos are named like {wanted!r}: {names}", "give the id")


def _with_id(api: ApiClient, wanted: str) -> Json | None:
    try:
        return api.get(f"/v1/videos/{UUID(wanted)}")
    except ValueError:
        return None  # not an id
    except ApiProblem as problem:
        if problem.status != HTTPStatus.NOT_FOUND:
            raise
        return None
