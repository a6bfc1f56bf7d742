"""Data sets: labels as they were at one moment, so that a finetune can be repeated.

The same content is the same data set: freezing unchanged labels again makes no new row.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    delete,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session, aliased

from store.errors import DatasetNotFound
from store.identifiers import new_id
from store.labels.filters import LabelFilter
from store.labels.records import DisputedQuestion
from store.labels.tables import Dataset, DatasetLabel, Label, Split
from store.labels.vocabularies import VocabularyRepository
from store.pages import Page, PageTokens, clamp_page_size
from store.table_base import Task
from store.videos.tables import Video, VideoState

__all__ = ["DatasetRepository", "VocabularyRepository"]

CHUNK = 2000
"""Rows that are in memory at once."""

MergeCounts = Callable[[Sequence[tuple[str, int]]], Sequence[tuple[str, int]]]

_DISPUTED_OF_DATASET = """
SELECT video_id, min(content ->> 'text'), array_agg(DISTINCT content ->> 'answer')
FROM dataset_labels
WHERE dataset_id = :dataset_id AND content ->> 'answer' IS NOT NULL
GROUP BY video_id, lower(normalize(content ->> 'text')), content ->> 'start_seconds',
         content ->> 'end_seconds', content -> 'choices'
HAVING count(DISTINCT content ->> 'answer') > 1
ORDER BY video_id, 2
"""

# Any constant will do, as long as nothing else locks it: "datasets" in ASCII, its top bit clear.
_FREEZE_LOCK = 0x6461746173657473


class DatasetRepository:
    """Every query about data sets.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def freeze(
        self,
        task: Task | str,
        filter: LabelFilter | None = None,
        *,
        only_ready: bool = False,
        merge: MergeCounts = list,
    ) -> Dataset:
        """Copy the labels that a filter means now, or find the data set with just this content.

        Labels of videos that failed are left out: there is nothing to learn from.

        Args:
            task: whose labels; a task in the filter counts for nothing.
            filter: which of them; None is all.
            only_ready: leave out those too whose videos are not indexed yet.
            merge: of (answer, count) as they were typed, those that are one answer, the most
                frequent first; it makes the vocabulary. By itself each is one.

        Returns:
            The data set; it may have no label.
        """
        task = Task(task)
        wanted = filter or LabelFilter()
        # One at a time: two with the same content must find each other, and versions are counted.
        self._session.execute(text(f"SELECT pg_advisory_xact_lock({_FREEZE_LOCK})"))
        dataset_id = new_id()
        # Its hash is known after the copy, which needs the row.
        made = Dataset(id=dataset_id, task=task, sha256=f"of {dataset_id}")
        made.filter = wanted.to_json() | {"task": task.value}
        self._session.add(made)
        self._session.flush()
        self._copy(dataset_id, task, wanted, only_ready=only_ready)
        sha256 = self._hash(dataset_id, task)
        found = self._session.scalar(select(Dataset).where(Dataset.sha256 == sha256))
        if found is None:
            return self._complete(made, sha256, merge)
        if self.missing_videos(found.id):
            self._renew(found.id, dataset_id)
        self._session.execute(delete(DatasetLabel).where(DatasetLabel.dataset_id == dataset_id))
        self._session.delete(made)
        self._session.flush()
        return found

    def get(self, dataset_id: UUID) -> Dataset:
        """Get a data set.

        Raises:
            DatasetNotFound: there is none with this id.
        """
        dataset = self._session.get(Dataset, dataset_id)
        if dataset is None:
            raise DatasetNotFound(dataset_id)
        return dataset

    def list(
        self, *, page_size: int = 50, page_token: str | None = None, task: Task | str | None = None
    ) -> Page[Dataset]:
        """List data sets, the newest first.

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        size, tokens = clamp_page_size(page_size), PageTokens("datasets", task=task)
        query = select(Dataset).order_by(Dataset.id.desc()).limit(size + 1)
        if page_token is not None:
            query = query.where(Dataset.id < tokens.id_of(page_token))
        if task is not None:
            query = query.where(Dataset.task == Task(task))
        rows = self._session.scalars(query).all()
        more = len(rows) > size
        return Page(rows[:size], tokens.of_id(rows[size - 1].id) if more else None)

    def numbers_of_choices(self, dataset_id: UUID, split: Split | str) -> Sequence[int]:
        """List how many choices the questions of a split have, each number once, ascending."""
        number = func.jsonb_array_length(DatasetLabel.content["choices"])
        query = select(number).where(
            DatasetLabel.dataset_id == dataset_id, DatasetLabel.split == Split(split)
        )
        return self._session.scalars(query.distinct().order_by(number)).all()

    def labels(self, dataset_id: UUID, split: Split | str | None = None) -> Iterator[DatasetLabel]:
        """Yield the labels of a data set in its order, in memory that does not grow with them.

        Args:
            dataset_id: the data set.
            split: only those of one.

        Raises:
            DatasetNotFound: there is none with this id.
        """
        self.get(dataset_id)
        query = select(DatasetLabel).where(DatasetLabel.dataset_id == dataset_id)
        if split is not None:
            query = query.where(DatasetLabel.split == Split(split))
        query = query.order_by(DatasetLabel.position)
        yield from self._session.scalars(query.execution_options(yield_per=CHUNK))

    def answer_counts(
        self, dataset_id: UUID, split: Split | str = Split.TRAIN
    ) -> Sequence[tuple[str, int]]:
        """List the answers of a split as they were typed and how often, the most frequent first."""
        answer = DatasetLabel.content["answer"].astext
        query = (
            select(answer, func.count())
            .where(DatasetLabel.dataset_id == dataset_id, DatasetLabel.split == Split(split))
            .group_by(answer)
            .order_by(func.count().desc(), answer.collate("C"))
        )
        return [(answer or "", count) for answer, count in self._session.execute(query)]

    def disputed(self, dataset_id: UUID) -> Iterator[DisputedQuestion]:
        """Yield the questions of a data set that have several answers as they were typed."""
        rows = self._session.execute(text(_DISPUTED_OF_DATASET), {"dataset_id": dataset_id})
        return (DisputedQuestion(*row) for row in rows)

    def missing_videos(self, dataset_id: UUID) -> Sequence[UUID]:
        """List the videos of a data set that were deleted or cannot be searched."""
        query = (
            select(DatasetLabel.video_id)
            .outerjoin(Video, Video.id == DatasetLabel.video_id)
            .where(
                DatasetLabel.dataset_id == dataset_id,
                or_(Video.id.is_(None), Video.state != VideoState.READY),
            )
            .distinct()
            .order_by(DatasetLabel.video_id)
        )
        return self._session.scalars(query).all()

    def count_new(
        self,
        dataset_id: UUID | None,
        task: Task | str,
        *,
        filter: LabelFilter | None = None,
        only_ready: bool = False,
    ) -> int:
        """Count the labels that a data set does not have, or has in an older revision.

        Args:
            dataset_id: the data set; None counts all labels.
            task: whose labels.
            filter: which of them; None is all.
            only_ready: count only those whose videos are indexed.
        """
        copied = select(DatasetLabel.label_id, DatasetLabel.revision).where(
            false() if dataset_id is None else DatasetLabel.dataset_id == dataset_id
        )
        now = select(Label.id, Label.revision).where(
            *_conditions(Task(task), filter, only_ready=only_ready)
        )
        # Not a join: without statistics, just after an import, that may take every label for each.
        query = select(func.count()).select_from(now.except_(copied).subquery())
        return self._session.scalars(query).one()

    def _copy(self, dataset_id: UUID, task: Task, wanted: LabelFilter, *, only_ready: bool) -> None:
        copied = {
            "dataset_id": literal(dataset_id),
            "position": func.row_number().over(order_by=Label.id) - 1,
            "label_id": Label.id,
            "revision": Label.revision,
            "video_id": Label.video_id,
            "video_sha256": Video.sha256,
            "split": Label.split,
            "content": func.jsonb_build_object(
                *("text", Label.text, "answer", Label.answer, "choices", Label.choices),
                *("right_choice", Label.right_choice, "start_seconds", Label.start_seconds),
                *("end_seconds", Label.end_seconds, "source", Label.source),
            ),
        }
        query = (
            select(*copied.values())
            .join(Video, Video.id == Label.video_id)
            .where(*_conditions(task, wanted, only_ready=only_ready))
            .order_by(Label.id)
        )
        self._session.execute(insert(DatasetLabel).from_select(list(copied), query))

    def _hash(self, dataset_id: UUID, task: Task) -> str:
        # Neither ids nor revisions: the same content in another library is the same data set.
        query = (
            select(DatasetLabel.video_sha256, DatasetLabel.split, DatasetLabel.content)
            .where(DatasetLabel.dataset_id == dataset_id)
            .order_by(DatasetLabel.position)
        )
        digest = hashlib.sha256(_line([task.value]))
        for row in self._session.execute(query.execution_options(yield_per=CHUNK)):
            digest.update(_line([row.video_sha256, row.split, row.content]))
        return digest.hexdigest()

    def _complete(self, dataset: Dataset, sha256: str, merge: MergeCounts) -> Dataset:
        is_train = DatasetLabel.split == Split.TRAIN
        counted = select(
            func.count().filter(is_train),
            func.count().filter(~is_train),
            func.count(DatasetLabel.video_id.distinct()),
        ).where(DatasetLabel.dataset_id == dataset.id)
        row = self._session.execute(counted).one()
        dataset.num_train, dataset.num_holdout, dataset.num_videos = row
        dataset.sha256 = sha256
        if dataset.task == Task.QA:
            merged = merge(self.answer_counts(dataset.id))
            dataset.answers = [answer for answer, _ in merged]
        if dataset.answers:
            dataset.vocabulary_id = VocabularyRepository(self._session).keep(dataset.answers).id
        self._session.flush()
        self._session.refresh(dataset)
        return dataset

    def _renew(self, dataset_id: UUID, copy_id: UUID) -> None:
        # The same content was deleted and has come again: the data set is about the new rows.
        new = aliased(DatasetLabel)
        self._session.execute(
            update(DatasetLabel)
            .where(
                DatasetLabel.dataset_id == dataset_id,
                new.dataset_id == copy_id,
                new.position == DatasetLabel.position,
            )
            .values(label_id=new.label_id, revision=new.revision, video_id=new.video_id)
            .execution_options(synchronize_session=False)
        )


def _conditions(
    task: Task, wanted: LabelFilter | None, *, only_ready: bool
) -> Sequence[ColumnElement[bool]]:
    # Labels of what was superseded stay with it, and nothing is learnt from them.
    lost = (VideoState.FAILED, VideoState.SUPERSEDED)
    usable = Video.state == VideoState.READY if only_ready else Video.state.not_in(lost)
    conditions = replace(wanted or LabelFilter(), task=task.value).conditions()
    return [*conditions, Label.video_id.in_(select(Video.id).where(usable))]


def _line(content: Sequence[object]) -> bytes:
    encoded = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return encoded.encode() + b"\n"
