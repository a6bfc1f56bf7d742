"""Which videos a text means: by id, by content, or by the rule of what names a file."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote
from uuid import UUID

from sqlalchemy.orm import Session

from clipbert.datasets.video_references import FileName, Fit, VideoReference, file_of_uri
from clipbert.video.formats import MEDIA_EXTENSIONS
from store.texts import can_be_stored
from store.videos.names import (
    BareName,
    FoundPlace,
    NamedVideo,
    named_by_ids,
    named_by_sha256,
    places_of_names,
    places_of_path_ends,
    places_of_uris,
)

_Asked = defaultdict[str, list[VideoReference]]

MOST_CANDIDATES: Final = 100
"""Of a bare name that more videos have, about so many are found: enough to see the doubt."""

_MOST_LISTED: Final = 3
_ID: Final = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.IGNORECASE)
_SHA256: Final = re.compile(r"[0-9a-f]{1,64}", re.IGNORECASE)


def find_videos(session: Session, names: Iterable[str]) -> dict[str, Sequence[NamedVideo]]:
    """Find the videos that each text may mean.

    An id comes first, then the SHA-256 of a content, then what clipbert.datasets.video_references
    says of URIs, paths and names, of the video's own file and of each copy of it. What was
    superseded no longer has a file: it is found by its id and its content.

    Args:
        session: in a transaction of the caller's.
        names: any number.

    Returns:
        For each text the videos: none if there is no such video, several if it is ambiguous.
    """
    asked = {name: VideoReference(name) for name in names}
    # What PostgreSQL cannot hold is not a video's name.
    known = {name: each for name, each in asked.items() if can_be_stored(name)}
    ids = {name: UUID(name) for name in known if _ID.fullmatch(name)}
    hashes = {name: name.lower() for name in known if _SHA256.fullmatch(name)}
    by_sha256 = named_by_sha256(session, set(hashes.values()))
    there = named_by_ids(session, set(ids.values()))
    found: dict[str, Sequence[UUID]] = {
        name: [by_sha256[sha256]] for name, sha256 in hashes.items() if sha256 in by_sha256
    }
    found |= {name: [id_] for name, id_ in ids.items() if id_ in there}
    others = [each for name, each in known.items() if name not in found]
    found |= _by_places(session, others)
    videos = named_by_ids(session, {each for ids_ in found.values() for each in ids_})
    return {
        name: [videos[each] for each in sorted(found.get(name, ())) if each in videos]
        for name in asked
    }


def describe_unknown(written: str) -> str:
    """Say that a text names no video."""
    return f"no video is named {written!r}"


def describe_ambiguous(written: str, videos: Sequence[NamedVideo]) -> str:
    """Say which videos a text may mean, by what means one of them alone."""
    listed = ", ".join(f"{video.uri} ({video.id})" for video in videos[:_MOST_LISTED])
    more = ", ..." if len(videos) > _MOST_LISTED else ""
    count = str(len(videos)) if len(videos) < MOST_CANDIDATES else f"{MOST_CANDIDATES} or more"
    return f"{written!r} may be any of {count} videos, a URI or an id cannot: {listed}{more}"


def describe_superseded(video: NamedVideo) -> str:
    """Say that the labels of a video whose place has other content by now are of no use."""
    by = video.superseded_by_id
    now = "" if by is None else f", now video {by}"
    return (
        f"video {video.id} was superseded (other content is at {video.uri}{now}): its labels train "
        "nothing until its content is indexed again"
    )


def _by_places(
    session: Session, references: Sequence[VideoReference]
) -> Mapping[str, Sequence[UUID]]:
    fits: defaultdict[str, dict[UUID, Fit]] = defaultdict(dict)
    by_uri: _Asked = defaultdict(list)
    for each in references:
        if each.file.scheme is not None:
            for uri in {each.written, each.file.uri or each.written}:
                by_uri[uri].append(each)
    _note_fits(fits, places_of_uris(session, by_uri), by_uri)
    by_end: _Asked = defaultdict(list)
    by_name: _Asked = defaultdict(list)
    for each in references:
        parts = each.file.parts
        if fits[each.written] or not parts:  # nothing fits better than a URI
            continue
        (by_end if len(parts) > 1 else by_name)["/".join(parts)].append(each)
    names = [
        BareName(
            name,
            any(each.may_lack_ending for each in group),
            MOST_CANDIDATES if all(each.is_bare for each in group) else None,
        )
        for name, group in by_name.items()
    ]
    _note_fits(fits, places_of_path_ends(session, by_end), by_end)
    _note_fits(fits, places_of_names(session, names, endings=MEDIA_EXTENSIONS), by_name)
    best = {written: min(found.values()) for written, found in fits.items() if found}
    return {
        written: [video_id for video_id, fit in fits[written].items() if fit == least]
        for written, least in best.items()
    }


def _note_fits(
    fits: Mapping[str, dict[UUID, Fit]], places: Iterable[FoundPlace], asked: _Asked
) -> None:
    """Note how well each text fits the video of a place that it led to."""
    for place in places:
        files = _files(place)
        for each in asked[place.key]:
            kept = fits[each.written]
            for fit in (each.fit(file) for file in files):
                if fit is not None:
                    kept[place.video_id] = min(fit, kept.get(place.video_id, fit))


def _files(place: FoundPlace) -> Sequence[FileName]:
    """Return how the file of a place can be named: by its place, and by what people call it."""
    if place.uri is None:
        uri = f"upload:///{quote(place.filename or '')}"
        return [FileName("upload", (place.filename or "",), uri)]
    file = file_of_uri(place.uri)
    if place.filename is None or place.filename in file.parts[-1:]:
        return [file]
    return [file, FileName(None, (place.filename,))]
