"""Where videos are that a text may name: what an index leads to, to be compared in full.

Which of them the text means is decided by policy/video_references.py.
"""

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Text, Uuid, any_, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from store.jobs.tables import COPY_STEM
from store.videos.tables import FILENAME_STEM, Video, VideoState


@dataclass(frozen=True)
class BareName:
    """A file name that is looked for in all folders.

    Attributes:
        name: in NFC.
        may_lack_ending: whether it may also be that of a file without the ending.
        most: how many videos at most; None: all.
    """

    name: str
    may_lack_ending: bool
    most: int | None


class FoundPlace(NamedTuple):
    """A place of a video: its own, or one where a copy of its content is.

    Attributes:
        key: what it was looked for by: a URI, an end of a path, or a name.
        video_id: the video.
        uri: of the file; None: it was uploaded.
        filename: as people call it, in NFC.
    """

    key: str
    video_id: UUID
    uri: str | None
    filename: str | None


class NamedVideo(NamedTuple):
    """A video that something names.

    Attributes:
        id: its id.
        uri: where it is.
        state: its state.
        superseded_by_id: the video whose content lies at its place now.
    """

    id: UUID
    uri: str
    state: VideoState
    superseded_by_id: UUID | None


# OFFSET 0 keeps the planner from reading a whole table for a hundred names at once: every branch is
# led by an index. What was superseded has no place: its file has other content now.
_OWN = "FROM videos WHERE videos.state <> 'superseded'"
_COPY = (
    "FROM jobs JOIN videos ON videos.id = jobs.video_id AND videos.state <> 'superseded' "
    # Without a file name the copy was forgotten: other content lies there.
    "WHERE kind = 'ingest' AND video_id IS NOT NULL AND result ->> 'filename' IS NOT NULL"
)
_OWN_COLUMNS = "videos.id AS video_id, uri, filename"
_COPY_COLUMNS = "video_id, input ->> 'uri' AS uri, result ->> 'filename' AS filename"

_BY_URI = f"""
SELECT asked.key, found.* FROM unnest(CAST(:keys AS text[])) AS asked(key)
CROSS JOIN LATERAL (
    (SELECT {_OWN_COLUMNS} {_OWN} AND uri = asked.key OFFSET 0)
    UNION ALL
    (SELECT {_COPY_COLUMNS} {_COPY} AND (input ->> 'uri') = asked.key OFFSET 0)
) AS found
"""  # noqa: S608 - put together from constants

_BY_PATH_END = f"""
SELECT asked.key, found.*
FROM (SELECT key, ARRAY[hashtextextended(key, 0)] AS hashes
      FROM unnest(CAST(:keys AS text[])) AS given(key) OFFSET 0) AS asked
CROSS JOIN LATERAL (
    (SELECT {_OWN_COLUMNS} {_OWN} AND path_ends(uri) @> asked.hashes OFFSET 0)
    UNION ALL
    (SELECT {_COPY_COLUMNS} {_COPY} AND path_ends(input ->> 'uri') @> asked.hashes OFFSET 0)
) AS found
"""  # noqa: S608 - put together from constants

_HAS_ENDING = "lower(substring({name} FROM '[.][^.]*$')) = ANY(CAST(:endings AS text[]))"
_OWN_NAME, _COPY_NAME = "filename", "result ->> 'filename'"
_BY_NAME = f"""
SELECT asked.name, found.*
FROM (SELECT *, regexp_replace(name, '\\.[^.]*$', '') AS stem
      FROM unnest(CAST(:names AS text[]), CAST(:bare AS boolean[]), CAST(:most AS int[]))
           AS given(name, is_bare, most) OFFSET 0) AS asked
CROSS JOIN LATERAL (
    (SELECT {_OWN_COLUMNS} {_OWN} AND {FILENAME_STEM} = asked.stem AND {_OWN_NAME} = asked.name
     OFFSET 0 LIMIT asked.most)
    UNION ALL
    (SELECT {_COPY_COLUMNS} {_COPY} AND {COPY_STEM} = asked.stem AND {_COPY_NAME} = asked.name
     OFFSET 0 LIMIT asked.most)
    UNION ALL
    (SELECT {_OWN_COLUMNS} {_OWN} AND asked.is_bare AND {FILENAME_STEM} = asked.name
     AND {_HAS_ENDING.format(name=_OWN_NAME)} OFFSET 0 LIMIT asked.most)
    UNION ALL
    (SELECT {_COPY_COLUMNS} {_COPY} AND asked.is_bare AND {COPY_STEM} = asked.name
     AND {_HAS_ENDING.format(name=_COPY_NAME)} OFFSET 0 LIMIT asked.most)
) AS found
"""  # noqa: S608 - put together from constants


def places_of_uris(session: Session, uris: Collection[str]) -> Sequence[FoundPlace]:
    """Find the places that have these URIs, letter for letter."""
    return _places(session, _BY_URI, {"keys": list(uris)}) if uris else []


def places_of_path_ends(session: Session, ends: Collection[str]) -> Sequence[FoundPlace]:
    """Find the files in place whose paths end so: in a folder and a name, or more folders.

    A hash leads to them: some may end otherwise.
    """
    return _places(session, _BY_PATH_END, {"keys": list(ends)}) if ends else []


def places_of_names(
    session: Session, names: Sequence[BareName], *, endings: Collection[str]
) -> Sequence[FoundPlace]:
    """Find the places whose file has a name.

    Args:
        session: in a transaction of the caller's.
        names: each once.
        endings: those that may be left out, in lower case, with their dot.
    """
    if not names:
        return []
    parameters = {
        "names": [each.name for each in names],
        "bare": [each.may_lack_ending for each in names],
        "most": [each.most for each in names],
        "endings": list(endings),
    }
    return _places(session, _BY_NAME, parameters)


def named_by_ids(session: Session, video_ids: Collection[UUID]) -> dict[UUID, NamedVideo]:
    """Return the videos that have these ids, also those that were superseded."""
    if not video_ids:
        return {}
    columns = (Video.id, Video.uri, Video.state, Video.superseded_by_id)
    ids = any_(literal(list(video_ids), ARRAY(Uuid())))
    return {
        row[0]: NamedVideo(*row) for row in session.execute(select(*columns).where(Video.id == ids))
    }


def named_by_sha256(session: Session, sha256s: Collection[str]) -> dict[str, UUID]:
    """Return the ids of the videos that have these contents, also of those superseded."""
    if not sha256s:
        return {}
    contents = any_(literal(list(sha256s), ARRAY(Text())))
    query = select(Video.sha256, Video.id).where(Video.sha256 == contents)
    return {row[0]: row[1] for row in session.execute(query)}


def as_name(name: str) -> str:
    """Write a name in the Unicode form (NFC) in which names are stored and compared.

    macOS gives file names in NFD, keyboards and annotation files write NFC: to people they are one.
    """
    return unicodedata.normalize("NFC", name)


def _places(session: Session, query: str, parameters: Mapping[str, object]) -> Sequence[FoundPlace]:
    # Where many files share a name, the planner trusts that one comes soon in any order; if the
    # wanted one is not there, that is a scan of the whole table.
    session.execute(text("SET LOCAL enable_seqscan = off"))
    places = [FoundPlace(*row) for row in session.execute(text(query), parameters)]
    session.execute(text("SET LOCAL enable_seqscan = on"))
    return places
