"""Check now and then whether the files that are indexed in place are still there.

One that is gone, or of another length, makes its video `missing`: it is found still, and people are
told. It is there again as soon as the file is. Nothing is read: that the bytes are the same is
checked when they are used.
"""

from typing import Final
from uuid import UUID

import structlog

from store.errors import MediaFileError
from store.media_files import open_media_file
from store.videos.locations import CheckedLocation, VideoLocations
from workers.child.context import WorkerContext
from workers.errors import JobError
from workers.indexing.media import path_of_uri

log = structlog.get_logger(__name__)

_CHUNK: Final = 500


def check_locations(context: WorkerContext, *, most: int = 10_000) -> None:
    """Check the locations that were checked longest ago.

    Args:
        context: of this process.
        most: how many at most; the others have their turn next time.
    """
    seen: set[UUID] = set()
    for _ in range(0, most, _CHUNK):
        with context.sessions.begin() as session:
            longest = VideoLocations(session).longest_unchecked(_CHUNK)
        checked = [location for location in longest if location.video_id not in seen]
        seen.update(location.video_id for location in checked)
        missing = {location.video_id for location in checked if not _is_there(context, location)}
        there = {location.video_id for location in checked} - missing
        with context.sessions.begin() as session:
            VideoLocations(session).note_checked(there=there, missing=missing)
        for location in checked:
            if location.is_missing != (location.video_id in missing):
                event = "video.found_again" if location.is_missing else "video.missing"
                log.info(event, video_id=str(location.video_id))
        if len(checked) < _CHUNK or context.is_stopping():
            return


def _is_there(context: WorkerContext, location: CheckedLocation) -> bool:
    try:
        with open_media_file(path_of_uri(location.uri), context.media_roots) as file:
            return location.size_bytes in {None, file.status.st_size}
    except (MediaFileError, JobError):
        return False
    except OSError:  # a disk that does not answer now says nothing of the file
        return not location.is_missing
