"""Lists under filters: complete and in order, whichever way each page is found."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import text

from store.bounded_lists import newest
from store.database import make_sessions
from store.labels.filters import LabelFilter
from store.labels.repository import LabelRepository
from store.videos.batches import BatchRepository
from store.videos.filters import VideoFilter
from store.videos.name_parts import NameFilter
from store.videos.records import ItemState
from store.videos.repository import VideoRepository
from store.videos.tables import Video
from tests.conftest import TEMPLATE, new_database

# Holidays are the oldest 4,000 but for each tenth, which is an IMG; each hundredth video failed,
# and those are all IMGs. Each seventh has a copy, and each 500th another.
FILL = (
    """
    INSERT INTO videos (id, uri, sha256, filename, state, is_still, probe, tags, metadata,
                        missing_since)
    SELECT lpad(to_hex(n), 32, '0')::uuid, 'file:///' || n, n::text,
           CASE WHEN n % 10 = 0 OR n > 4000 THEN 'IMG_' ELSE 'Holiday ' END || n || '.mp4',
           CASE WHEN n % 100 = 0 THEN 'failed' WHEN n % 101 = 0 THEN 'superseded' ELSE 'ready' END,
           false, '{}', ARRAY['all', 'tag ' || n % 3, 'rare ' || n % 1000], '{}',
           CASE WHEN n % 40 = 0 THEN now() END
    FROM generate_series(1, 5000) AS n
    """,
    """
    INSERT INTO jobs (id, kind, state, priority, input, video_id, result)
    SELECT lpad(to_hex(9000 * k + n), 32, '0')::uuid, 'ingest', 'succeeded', 5, '{}',
           lpad(to_hex(n), 32, '0')::uuid,
           jsonb_build_object('filename', CASE k WHEN 1 THEN 'copy_' ELSE 'SECOND 100% ' END
                              || n || '.mov')
    FROM generate_series(1, 5000) AS n, generate_series(1, 2) AS k
    WHERE n % CASE k WHEN 1 THEN 7 ELSE 500 END = 0
    """,
    """
    INSERT INTO labels (id, video_id, task, text, answer, choices, source, provenance, split,
                        content_sha256, created_at, deleted_at)
    SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(1 + n % 5000), 32, '0')::uuid,
           CASE WHEN n > 6000 THEN 'retrieval' ELSE 'qa' END,
           CASE WHEN n < 3000 THEN 'Where?' ELSE 'What?' END, 'answer ' || n, '{}',
           'from ' || n % 4, '{}', CASE WHEN n % 5 = 0 THEN 'holdout' ELSE 'train' END, n::text,
           timestamptz '2026-01-01 00:00Z' + n * interval '1 minute',
           CASE WHEN n % 9 = 0 THEN now() END
    FROM generate_series(1, 9000) AS n
    """,
)

_NAMED = """
(filename LIKE :like OR EXISTS (SELECT FROM jobs WHERE kind = 'ingest' AND video_id = videos.id
                                AND result ->> 'filename' LIKE :like))
"""
_IN_ANY = "state <> 'superseded'"
FILTERS = [
    ({}, _IN_ANY, ""),
    ({"state": "failed"}, "state = 'failed'", ""),
    ({"state": "superseded"}, "state = 'superseded'", ""),
    ({"tag": "rare 7"}, f"{_IN_ANY} AND 'rare 7' = ANY(tags)", ""),
    ({"tag": "all", "state": "failed"}, "state = 'failed'", ""),
    ({"name_part": "oliday"}, f"{_IN_ANY} AND {_NAMED}", "%oliday%"),
    ({"name_part": "holiday", "state": "failed"}, "false", ""),
    ({"name_part": "Holi", "tag": "tag 1"}, f"{_IN_ANY} AND 'tag 1' = ANY(tags) AND {_NAMED}",
     "%Holi%"),
    ({"name_part": "y 1", "tag": "rare 7"}, f"{_IN_ANY} AND 'rare 7' = ANY(tags) AND {_NAMED}",
     "%y 1%"),
    ({"name_part": "y 9"}, f"{_IN_ANY} AND {_NAMED}", "%y 9%"),
    ({"name_part": "00%"}, f"{_IN_ANY} AND {_NAMED}", "%00\\%%"),
    ({"name_part": "opy"}, f"{_IN_ANY} AND {_NAMED}", "%opy%"),
    ({"name_part": "nowhere"}, "false", ""),
    ({"name": "Holiday 77.mp4"}, f"{_IN_ANY} AND {_NAMED}", "Holiday 77.mp4"),
    ({"name": "copy_77.mov", "name_part": "oliday"}, f"{_IN_ANY} AND {_NAMED}", "copy_77.mov"),
    ({"missing": True, "name_part": "img"}, f"{_IN_ANY} AND missing_since IS NOT NULL AND {_NAMED}",
     "%IMG%"),
    ({"missing": False, "state": "failed", "tag": "all"},
     "state = 'failed' AND missing_since IS NULL", ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def sessions(services):
    with new_database(services, TEMPLATE) as url:
        sessions = make_sessions(url)
        with sessions.begin() as session:
            for statement in FILL:
                session.execute(text(statement))
            session.execute(text("ANALYZE"))
        yield sessions
        sessions.kw["bind"].dispose()


def pages(repository, page_size, **filters):
    token = None
    while True:
        page = repository.list(page_size=page_size, page_token=token, **filters)
        yield page
        if (token := page.next_page_token) is None:
            return


@pytest.mark.parametrize(("filters", "condition", "like"), FILTERS)
def test_all_that_meet_the_filters_come_once_the_newest_first(sessions, filters, condition, like):
    with sessions() as session:
        wanted = text(f"SELECT id FROM videos WHERE {condition} ORDER BY id DESC")  # noqa: S608
        expected = list(session.scalars(wanted, {"like": like} if ":like" in condition else {}))

        found = list(pages(VideoRepository(session), 500, **filters))

    assert [video.id for page in found for video in page.items] == expected
    assert all(len(page.items) <= 500 for page in found)


_OF_TAG = "EXISTS (SELECT FROM videos WHERE id = video_id AND '{tag}' = ANY(tags))"
LABELS = [
    (LabelFilter(), "true"),
    (LabelFilter(task="qa"), "task = 'qa'"),
    (LabelFilter(tags=["all"], text="where"), "text = 'Where?'"),
    (LabelFilter(tags=["rare 7"], split="train"),
     f"split = 'train' AND {_OF_TAG.format(tag='rare 7')}"),
    (LabelFilter(tags=["tag 1"], task="retrieval"),
     f"task = 'retrieval' AND {_OF_TAG.format(tag='tag 1')}"),
    (LabelFilter(tags=["nothing"]), "false"),
    (LabelFilter(sources=["from 1", "nobody"], split="holdout"),
     "source = 'from 1' AND split = 'holdout'"),
    (LabelFilter(sources=["from 1"]), "source = 'from 1'"),
    (LabelFilter(video_ids=[UUID(int=8), UUID(int=9)]), "id IN (lpad('7', 32, '0')::uuid, "
     "lpad('8', 32, '0')::uuid, lpad(to_hex(5007), 32, '0')::uuid, "
     "lpad(to_hex(5008), 32, '0')::uuid)"),
    (LabelFilter(created_before=datetime(2026, 1, 1, 2, tzinfo=UTC)),
     "created_at < '2026-01-01 02:00Z'"),
    (LabelFilter(created_after=datetime(2026, 1, 2, tzinfo=UTC), text="answer 1"),
     "created_at >= '2026-01-02 00:00Z' AND answer LIKE 'answer 1%'"),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "condition"), LABELS)
def test_all_labels_that_are_meant_come_once_the_newest_first(sessions, wanted, condition):
    query = f"SELECT id FROM labels WHERE deleted_at IS NULL AND {condition} ORDER BY id DESC"  # noqa: S608

    with sessions() as session:
        expected = list(session.scalars(text(query)))

        found = list(pages(LabelRepository(session), 500, filter=wanted))

        assert LabelRepository(session).count(wanted) == len(expected)

    assert [label.id for page in found for label in page.items] == expected


def test_where_the_planner_takes_many_for_few_the_newest_are_looked_through(sessions):
    filters, condition, like = FILTERS[5]
    with sessions() as session:
        session.execute(text("DELETE FROM pg_statistic WHERE starelid = 'videos'::regclass"))
        session.execute(text("UPDATE pg_class SET reltuples = 10 WHERE relname = 'videos'"))
        wanted = text(f"SELECT id FROM videos WHERE {condition} ORDER BY id DESC")  # noqa: S608
        expected = list(session.scalars(wanted, {"like": like}))

        found = list(pages(VideoRepository(session), 500, **filters))

        assert [video.id for page in found for video in page.items] == expected
        session.rollback()


def test_a_page_for_which_time_is_up_goes_on_behind_what_was_looked_at(sessions):
    wanted = VideoFilter(names=[NameFilter("oliday", is_part=True)]).filters()
    looking = {"limit": 50, "window": 1000, "looking_seconds": 0}

    with sessions() as session:
        first = newest(session, Video, wanted=wanted, before=None, **looking)
        second = newest(session, Video, wanted=wanted, before=first.go_on_before, **looking)

    # The newest 1,000 are no holidays; the next thousand begins with one that is.
    assert (first.rows, first.go_on_before) == ([], UUID(int=4001))
    assert [video.id.int for video in second.rows[:2]] == [3999, 3998]
    assert len(second.rows) == 50
    assert second.go_on_before == second.rows[-1].id


def test_items_in_a_state_are_all_found_in_a_large_batch(sessions):
    with sessions.begin() as session:
        batches = BatchRepository(session)
        batch_id = batches.create().id
        session.execute(
            text("""
                INSERT INTO jobs (id, kind, state, priority, input, batch_id, batch_index, video_id)
                SELECT gen_random_uuid(), 'ingest',
                       CASE WHEN n % 800 = 5 THEN 'failed' ELSE 'succeeded' END, 5, '{}', :batch_id,
                       n, CASE WHEN n % 800 <> 5 THEN lpad(to_hex(n), 32, '0')::uuid END
                FROM generate_series(1, 2500) AS n
            """),
            {"batch_id": batch_id},
        )

    with sessions() as session:
        batches = BatchRepository(session)
        found = []
        for size in (500, 3):
            token, indexes = None, []
            while True:
                page = batches.items(
                    batch_id, state=ItemState.FAILED, page_size=size, page_token=token
                )
                indexes += [item.index for item in page.items]
                if (token := page.next_page_token) is None:
                    break
            found.append(indexes)

    # Those that failed themselves, and those whose video did: each hundredth.
    expected = sorted({5, 805, 1605, 2405} | set(range(100, 2501, 100)))
    assert found == [expected, expected]
