"""New labels, checked, put on their video's side of the split, and inserted by the thousand."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from store.errors import IllegalLabel
from store.identifiers import new_id
from store.labels.records import LabelRefused, LabelsAdded, NewLabel, checked, default_split
from store.labels.tables import LabelAction, Split

CHUNK = 2000
"""Rows of one INSERT of many: large enough to be fast, small enough to keep memory flat."""


class LabelledVideo(NamedTuple):
    """What of a video its labels depend on."""

    sha256: str
    duration_seconds: float | None
    split: Split | None


_SPAN_SLACK_SECONDS, _SPAN_SLACK_SHARE = 1.0, 0.1
# Any constant will do, as long as nothing else locks it: "labels" in ASCII.
_IMPORT_LOCK = 0x6C6162656C73


# Arrays, not lists of parameters: thousands of those take longer than the query.
_HOLD_VIDEOS = """
SELECT videos.id, sha256, duration_seconds, split
FROM videos LEFT JOIN video_splits ON video_splits.video_id = videos.id
WHERE videos.id = ANY(CAST(:ids AS uuid[]))
ORDER BY videos.id
FOR KEY SHARE OF videos
"""

_INSERT_SPLITS = """
INSERT INTO video_splits (video_id, split)
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:splits AS text[]))
ON CONFLICT DO NOTHING
"""

_SPLITS = """
SELECT video_id, split FROM video_splits WHERE video_id = ANY(CAST(:ids AS uuid[]))
"""

_KNOWN = """
SELECT content_sha256, id FROM labels
WHERE content_sha256 = ANY(CAST(:hashes AS text[])) AND deleted_at IS NULL
"""

_CONTENT = """jsonb_build_object(
    'video_id', video_id, 'task', task, 'text', text, 'answer', answer, 'choices', choices,
    'right_choice', right_choice, 'start_seconds', start_seconds, 'end_seconds', end_seconds,
    'split', split, 'source', source, 'provenance', provenance)"""

_INSERT_MANY = f"""
WITH new AS (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        id uuid, video_id uuid, task text, text text, answer text, choices text[],
        right_choice int, start_seconds float8, end_seconds float8, source text, provenance jsonb,
        split text, content_sha256 text)
), inserted AS (
    INSERT INTO labels (id, video_id, task, text, answer, choices, right_choice, start_seconds,
                        end_seconds, source, provenance, split, content_sha256, revision)
    SELECT id, video_id, task, text, answer, choices, right_choice, start_seconds,
           end_seconds, source, provenance, split, content_sha256, 1
    FROM new
    ON CONFLICT (content_sha256) WHERE deleted_at IS NULL DO NOTHING
    RETURNING *
), revisions AS (
    INSERT INTO label_revisions (label_id, revision, action, content)
    SELECT id, revision, 'created', {_CONTENT} FROM inserted
)
SELECT count(*) FROM inserted
"""  # noqa: S608 - put together from constants

_INSERT_REVISION = f"""
INSERT INTO label_revisions (label_id, revision, action, content, by)
SELECT id, revision, :action, {_CONTENT}, :by FROM labels WHERE id = :id
"""  # noqa: S608 - put together from constants


def add_labels(session: Session, new: Sequence[NewLabel]) -> LabelsAdded:
    """Add labels, as LabelRepository.add_many says."""
    if len(new) > 1:
        session.execute(text(f"SELECT pg_advisory_xact_lock({_IMPORT_LOCK})"))
    ids: list[UUID | None] = [None] * len(new)
    refused: list[LabelRefused] = []
    num_inserted = 0
    for start in range(0, len(new), CHUNK):
        rows = _settled(session, new[start : start + CHUNK], start, refused)
        num_inserted += _insert(session, rows)
        for row in rows:
            ids[row["index"]] = row["id"]
    num_unchanged = len(new) - len(refused) - num_inserted
    return LabelsAdded(ids, num_inserted, num_unchanged, refused)


def _settled(
    session: Session, new: Sequence[NewLabel], start: int, refused: list[LabelRefused]
) -> list[dict[str, Any]]:
    """Check labels, settle the splits of their videos, and give the rows to insert."""
    rows = []
    for index, label in enumerate(new, start):
        try:
            rows.append(checked(label) | {"index": index})
        except IllegalLabel as error:
            refused.append(LabelRefused(index, error.code, str(error)))
    videos = hold_videos(session, {row["video_id"] for row in rows})
    known = []
    for row in rows:
        try:
            check_video(row, videos)
            known.append(row)
        except IllegalLabel as error:
            refused.append(LabelRefused(row["index"], error.code, str(error)))
    splits = _settle_splits(session, known, videos)
    settled = []
    for row in known:
        split = splits[row["video_id"]]
        if row["split"] not in (None, split):
            conflict = split_conflict(split)
            refused.append(LabelRefused(row["index"], conflict.code, str(conflict)))
            continue
        settled.append(row | {"split": split, "id": new_id()})
    refused.sort(key=lambda label: label.index)
    return settled


def hold_videos(session: Session, video_ids: Collection[UUID]) -> dict[UUID, LabelledVideo]:
    """Get videos; until the commit a deletion waits, and then takes the labels along."""
    rows = session.execute(text(_HOLD_VIDEOS), {"ids": list(video_ids)})
    return {row[0]: LabelledVideo(row[1], row[2], row[3] and Split(row[3])) for row in rows}


def _settle_splits(
    session: Session, rows: Sequence[dict[str, Any]], videos: Mapping[UUID, LabelledVideo]
) -> dict[UUID, Split]:
    splits: dict[UUID, Split] = {}
    first: dict[UUID, Split] = {}
    for row in rows:
        video_id = row["video_id"]
        video = videos[video_id]
        if video.split is not None:
            splits[video_id] = video.split
        elif video_id not in first:
            first[video_id] = row["split"] or default_split(video.sha256)
    if first:
        parameters = {"ids": sorted(first), "splits": [first[id_].value for id_ in sorted(first)]}
        session.execute(text(_INSERT_SPLITS), parameters)
        # Read back, since somebody else may have been first.
        splits |= splits_of(session, first)
    return splits


def splits_of(session: Session, video_ids: Collection[UUID]) -> dict[UUID, Split]:
    """Return the split of videos; those that never had a label are left out."""
    rows = session.execute(text(_SPLITS), {"ids": list(video_ids)})
    return {row[0]: Split(row[1]) for row in rows}


def _insert(session: Session, rows: list[dict[str, Any]]) -> int:
    """Insert rows and give each the id of the label that now says what it says."""
    missing, count = rows, 0
    # Again: the label in the way may be deleted between the two statements.
    while missing:
        inserted = session.execute(text(_INSERT_MANY), {"rows": json.dumps(missing, default=str)})
        count += inserted.scalar_one()
        hashes = [row["content_sha256"] for row in missing]
        found = session.execute(text(_KNOWN), {"hashes": hashes})
        known = {row[0]: row[1] for row in found}
        for row in missing:
            row["id"] = known.get(row["content_sha256"], row["id"])
        missing = [row for row in missing if row["content_sha256"] not in known]
    return count


def record_revision(
    session: Session, label_id: UUID, *, action: LabelAction, by: str | None
) -> None:
    """Write down what a label says now."""
    parameters = {"id": label_id, "action": action.value, "by": by}
    session.execute(text(_INSERT_REVISION), parameters)


def check_video(columns: Mapping[str, Any], videos: Mapping[UUID, LabelledVideo]) -> None:
    """Check that the video of a label is there and long enough.

    Raises:
        IllegalLabel: it is not.
    """
    video = videos.get(columns["video_id"])
    if video is None:
        raise IllegalLabel("unknown_video", f"there is no video {columns['video_id']}")
    start, duration = columns["start_seconds"], video.duration_seconds
    if start is not None and duration is not None and start >= duration > 0:
        raise IllegalLabel(
            "invalid_span", f"a span cannot start at {start} s: the video ends at {duration} s"
        )
    end = columns["end_seconds"]
    if end is None or not duration:
        return
    # Annotators round, and containers tell other durations than their tracks.
    if end > duration + max(_SPAN_SLACK_SECONDS, _SPAN_SLACK_SHARE * duration):
        raise IllegalLabel(
            "invalid_span", f"a span cannot end at {end} s: the video ends at {duration} s"
        )


def split_conflict(split: Split) -> IllegalLabel:
    """Make the error of a label that wants its video on the other side."""
    return IllegalLabel(
        "split_conflict", f"the video is in {split}, where its first label has put it"
    )
