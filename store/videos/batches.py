"""Batches: many videos of one request, counted and listed by what became of each.

An item is an ingest job with the video it led to: it has succeeded when the video can be searched.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Text, Uuid, any_, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session, aliased

from store.bounded_lists import LOOKING_SECONDS
from store.errors import BatchNotFound, IdempotencyConflict
from store.identifiers import new_id
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.pages import Page, PageTokens, clamp_page_size
from store.videos.records import BatchItem, BatchProgress, ItemState
from store.videos.tables import Batch, BatchDelta, Video

_WINDOW: Final = 1000
"""Items that are looked through at once for those in a state, which is their videos' too."""


def _item_state() -> ColumnElement[str]:
    """Return the SQL of what became of an item: the function that counts them as well."""
    state: ColumnElement[str] = func.item_state(
        Job.state, Video.state, Video.error_code, type_=Text()
    )
    return state


class BatchRepository:
    """Every query about batches.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self,
        name: str | None = None,
        *,
        idempotency_key: str | None = None,
        request_sha256: str | None = None,
    ) -> Batch:
        """Insert a batch; its items are ingest jobs with its id and their index.

        Args:
            name: as people call it.
            idempotency_key: the same key makes one batch, for ever.
            request_sha256: of the request, to tell whether the key comes with the same again.

        Raises:
            IdempotencyConflict: the key was used before.
        """
        batch_id = self._session.scalar(
            insert(Batch)
            .values(
                id=new_id(),
                name=name,
                idempotency_key=idempotency_key,
                request_sha256=request_sha256,
            )
            .on_conflict_do_nothing()
            .returning(Batch.id)
        )
        if batch_id is None:
            raise IdempotencyConflict(idempotency_key or "")
        return self.get(batch_id)

    def find_by_idempotency_key(self, key: str) -> Batch | None:
        """Find the batch that was made with this key."""
        return self._session.scalar(select(Batch).where(Batch.idempotency_key == key))

    def get(self, batch_id: UUID) -> Batch:
        """Get a batch.

        Raises:
            BatchNotFound: there is none with this id.
        """
        batch = self._session.scalar(select(Batch).where(Batch.id == batch_id))
        if batch is None:
            raise BatchNotFound(batch_id)
        return batch

    def next_index(self, batch_id: UUID) -> int:
        """Return the index for an item to append; nobody else gets it before the commit.

        Raises:
            BatchNotFound: there is none with this id.
        """
        query = select(Batch.id).where(Batch.id == batch_id).with_for_update(key_share=True)
        if self._session.scalar(query) is None:
            raise BatchNotFound(batch_id)
        return self._last_index(batch_id) + 1

    def list(self, *, page_size: int = 50, page_token: str | None = None) -> Page[Batch]:
        """List batches, the newest first.

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        size, tokens = clamp_page_size(page_size), PageTokens("batches")
        query = select(Batch).order_by(Batch.id.desc()).limit(size + 1)
        if page_token is not None:
            query = query.where(Batch.id < tokens.id_of(page_token))
        rows = self._session.scalars(query).all()
        more = len(rows) > size
        return Page(rows[:size], tokens.of_id(rows[size - 1].id) if more else None)

    def progress(self, batch_ids: Collection[UUID]) -> dict[UUID, BatchProgress]:
        """Return how far batches are, all in one query; one without items is there too.

        No item is read: see store/counts.py.
        """
        query = (
            select(
                BatchDelta.batch_id,
                BatchDelta.state,
                func.sum(BatchDelta.change),
                func.sum(BatchDelta.duplicates),
                func.max(BatchDelta.ended_at),
            )
            .where(BatchDelta.batch_id.in_(batch_ids))
            .group_by(BatchDelta.batch_id, BatchDelta.state)
        )
        rows: dict[UUID, list[_StateRow]] = {batch_id: [] for batch_id in batch_ids}
        for batch_id, state, count, duplicates, ended_at in self._session.execute(query):
            row = _StateRow(ItemState(state), int(count), int(duplicates), ended_at)
            rows[batch_id].append(row)
        return {batch_id: _progress(found) for batch_id, found in rows.items()}

    def counts(self, batch_id: UUID) -> Mapping[ItemState, int]:
        """Count the items of a batch by state; every state is there, with 0 if it has none."""
        return self.progress([batch_id])[batch_id].counts

    def items(
        self,
        batch_id: UUID,
        *,
        state: ItemState | None = None,
        only_partial: bool = False,
        page_size: int = 50,
        page_token: str | None = None,
    ) -> Page[BatchItem]:
        """List the items of a batch in the order of the request.

        Of items in a state, or whose videos are read in part only, some thousands are looked
        through for a page: it may be short, or have nothing, and not be the last.

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        size = clamp_page_size(page_size)
        wanted = {"only_partial": True} if only_partial else {}
        tokens = PageTokens("batch_items", batch_id=batch_id, state=state, **wanted)
        start = None if page_token is None else tokens.index_of(page_token)
        if state is None and not only_partial:
            return _page(self._items_after(batch_id, start, limit=size + 1), size, tokens)
        began, found = time.monotonic(), list[BatchItem]()
        after, last = -1 if start is None else start, self._last_index(batch_id)
        while after < last:
            end = after + _WINDOW
            found += self._items_after(
                batch_id,
                after,
                limit=size + 1 - len(found),
                end=end,
                state=state,
                only_partial=only_partial,
            )
            after = end
            if len(found) > size:
                break
            if time.monotonic() >= began + LOOKING_SECONDS and after < last:
                return Page(found, tokens.of_index(after))
        return _page(found, size, tokens)

    def _items_after(
        self,
        batch_id: UUID,
        after: int | None,
        *,
        limit: int,
        end: int | None = None,
        state: ItemState | None = None,
        only_partial: bool = False,
    ) -> Sequence[BatchItem]:
        """Find items behind an index, up to another, in a state."""
        item_state = _item_state()
        query = (
            select(Job, Video, item_state)
            .outerjoin(Video, Video.id == Job.video_id)
            .where(Job.batch_id == batch_id, Job.kind == JobKind.INGEST)
            .order_by(Job.batch_index)
            .limit(limit)
        )
        if after is not None:
            query = query.where(Job.batch_index > after)
        if end is not None:
            query = query.where(Job.batch_index <= end)
        if state is not None:
            query = query.where(item_state == state.value)
        if only_partial:
            query = query.where(_is_of_partial_video())
        rows = self._session.execute(query.execution_options(populate_existing=True)).all()
        return [_item(job, video, ItemState(value)) for job, video, value in rows]

    def _last_index(self, batch_id: UUID) -> int:
        """Find the index of the last item there is; -1 if there is none."""
        query = select(func.max(Job.batch_index)).where(
            Job.batch_id == batch_id, Job.kind == JobKind.INGEST
        )
        last = self._session.scalar(query)
        return -1 if last is None else last

    def cancel(self, batch_id: UUID) -> int:
        """Cancel all jobs of a batch that are not over; of one that is finished there is none.

        The embed job of a video goes on if an item of another batch, or a single request, led to
        the same content.

        Returns:
            How many were cancelled or asked to stop.

        Raises:
            BatchNotFound: there is none with this id.
        """
        self.get(batch_id)
        counts = self.counts(batch_id)
        if not (counts[ItemState.QUEUED] or counts[ItemState.RUNNING]):
            return 0
        self._session.execute(
            update(Batch)
            .where(Batch.id == batch_id, Batch.cancel_requested_at.is_(None))
            .values(cancel_requested_at=func.now())
        )
        jobs = JobRepository(self._session)
        ingests = jobs.cancel_where((Job.batch_id == batch_id) & (Job.kind == JobKind.INGEST))
        return ingests + jobs.cancel_where(_is_embed_for_nobody_after(batch_id))

    def retry_failed(self, batch_id: UUID) -> int:
        """Send all items that failed or were quarantined round again.

        A batch that was cancelled is so no more if there are such items: they are wanted.

        Returns:
            How many jobs were queued.

        Raises:
            BatchNotFound: there is none with this id.
        """
        batch = self.get(batch_id)
        jobs = JobRepository(self._session)
        failed: ColumnElement[bool] = Job.state.in_([JobState.FAILED, JobState.QUARANTINED])
        if batch.cancel_requested_at is None:
            # What was cancelled with another batch, this one still wants.
            failed |= (Job.state == JobState.CANCELLED) & Job.batch_id.is_distinct_from(batch_id)
        ingests = jobs.retry_where(
            (Job.batch_id == batch_id) & (Job.kind == JobKind.INGEST) & failed
        )
        # Found once: retry_where asks for its condition several times.
        embeds = self._session.scalars(text(FAILED_EMBEDS), {"batch_id": batch_id}).all()
        among = Job.id == any_(literal(embeds, ARRAY(Uuid())))
        num_retried = ingests + (jobs.retry_where(among & failed) if embeds else 0)
        if num_retried:
            self.withdraw_cancel(batch_id)
        return num_retried

    def withdraw_cancel(self, batch_id: UUID) -> None:
        """Forget that a batch was to be cancelled: something of it is to be done after all."""
        self._session.execute(
            update(Batch)
            .where(Batch.id == batch_id, Batch.cancel_requested_at.is_not(None))
            .values(cancel_requested_at=None)
        )


def _is_of_partial_video() -> ColumnElement[bool]:
    """Return the condition that Video.is_partial is true, of an item that succeeded."""
    unread = Video.probe["mended"].contains(["unread_recordings"])
    is_partial = (func.jsonb_array_length(Video.damaged_spans) > 0) | unread
    return is_partial & (_item_state() == ItemState.SUCCEEDED.value)


def _is_embed_for_nobody_after(batch_id: UUID) -> ColumnElement[bool]:
    """Return the condition of an embed job of a cancelled batch that only cancelled batches want.

    It may have been left by another batch, cancelled before, for the sake of this one.
    """
    item, request, owner = aliased(Job), aliased(Batch), aliased(Batch)
    # An array, so that the jobs are led by these videos, and not all that wait are read.
    of_item = func.array(
        select(item.video_id)
        .where(item.batch_id == batch_id, item.kind == JobKind.INGEST, item.video_id.is_not(None))
        .scalar_subquery(),
        type_=ARRAY(Uuid()),
    )
    is_wanted = (
        select(item.id)
        .outerjoin(request, request.id == item.batch_id)
        .where(
            item.video_id == Job.video_id,
            item.kind == JobKind.INGEST,
            item.state != JobState.CANCELLED,
            request.cancel_requested_at.is_(None),
        )
        .correlate(Job)
        .exists()
    )
    is_cancelled = select(owner.id).where(owner.cancel_requested_at.is_not(None))
    return (
        (Job.kind == JobKind.EMBED)
        & Job.batch_id.in_(is_cancelled)
        & (Job.video_id == any_(of_item))
        & ~is_wanted
    )


# Of each failed video that an item led to: its last embed job, unless one is on its way.
FAILED_EMBEDS = """
SELECT DISTINCT ON (embed.video_id, embed.dedupe_key) embed.id
FROM jobs AS item
JOIN videos ON videos.id = item.video_id AND videos.state = 'failed'
JOIN jobs AS embed ON embed.video_id = item.video_id AND embed.kind = 'embed'
WHERE item.batch_id = :batch_id AND item.kind = 'ingest'
  AND NOT EXISTS (
      SELECT 1 FROM jobs AS active
      WHERE active.dedupe_key = embed.dedupe_key
        AND active.state NOT IN ('succeeded', 'failed', 'cancelled', 'quarantined'))
ORDER BY embed.video_id, embed.dedupe_key, embed.id DESC
"""


@dataclass(frozen=True)
class _StateRow:
    """The items of a batch in a state, and when the last of them came into it."""

    state: ItemState
    count: int
    duplicates: int
    ended_at: datetime | None


def _progress(rows: Sequence[_StateRow]) -> BatchProgress:
    ends = [row.ended_at for row in rows if row.ended_at is not None]
    return BatchProgress(
        counts=dict.fromkeys(ItemState, 0) | {row.state: row.count for row in rows},
        duplicates=sum(row.duplicates for row in rows if row.state == ItemState.SUCCEEDED),
        last_change=max(ends, default=None),
    )


def _page(found: Sequence[BatchItem], size: int, tokens: PageTokens) -> Page[BatchItem]:
    more = len(found) > size
    return Page(found[:size], tokens.of_index(found[size - 1].index) if more else None)


def _item(job: Job, video: Video | None, state: ItemState) -> BatchItem:
    code, message = job.error_code, job.error_message
    if job.state == JobState.SUCCEEDED and video is not None:
        code, message = video.error_code, video.error_message
    return BatchItem(job.batch_index or 0, state, job, video, code, message)
