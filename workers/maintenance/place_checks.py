"""Look now and then whether the files that are indexed in place still lie there.

One that is gone, or of another length, makes its video `missing`: it is found still, and people are
told. It is there again as soon as the file is. Nothing is read: that the bytes are the same is
checked when they are used.
"""

from typing import Final
from uuid import UUID

import structlog

from store.errors import MediaFileError
from store.media_files import open_media_file
from store.videos.places import CheckedPlace, VideoPlaces
from workers.child.workplace import Workplace
from workers.errors import JobError
from workers.indexing.media import place_of_uri

log = structlog.get_logger(__name__)

_CHUNK: Final = 500


def check_places(workplace: Workplace, *, most: int = 10_000) -> None:
    """Look at the places that were looked at longest ago.

    Args:
        workplace: of this process.
        most: how many at most; the others have their turn next time.
    """
    seen: set[UUID] = set()
    for _ in range(0, most, _CHUNK):
        with workplace.sessions.begin() as session:
            longest = VideoPlaces(session).longest_unchecked(_CHUNK)
        checked = [place for place in longest if place.video_id not in seen]
        seen.update(place.video_id for place in checked)
        missing = {place.video_id for place in checked if not _is_there(workplace, place)}
        there = {place.video_id for place in checked} - missing
        with workplace.sessions.begin() as session:
            VideoPlaces(session).note_checked(there=there, missing=missing)
        for place in checked:
            if place.is_missing != (place.video_id in missing):
                event = "video.found_again" if place.is_missing else "video.missing"
                log.info(event, video_id=str(place.video_id))
        if len(checked) < _CHUNK or workplace.is_stopping():
            return


def _is_there(workplace: Workplace, place: CheckedPlace) -> bool:
    try:
        with open_media_file(place_of_uri(place.uri), workplace.media_roots) as file:
            return place.size_bytes in {None, file.status.st_size}
    except (MediaFileError, JobError):
        return False
    except OSError:  # a disk that does not answer now says nothing of the file
        return not place.is_missing
