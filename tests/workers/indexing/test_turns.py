from store.jobs.records import BULK_PRIORITY, SINGLE_PRIORITY
from workers.indexing.turns import MOST_SHORT_CLIPS, Share

REBUILD = 8  # of a generation that is not searched yet


def test_a_short_video_sent_alone_goes_before_bulk_and_a_long_one_with_it():
    alone, bulk = Share(SINGLE_PRIORITY), Share(BULK_PRIORITY)

    assert alone.level(MOST_SHORT_CLIPS) < bulk.level(4)
    assert alone.level(MOST_SHORT_CLIPS + 1) == bulk.level(4) == bulk.level(10_000)


def test_length_makes_no_video_sooner_than_its_job_was():
    rebuilt = Share(REBUILD)

    assert rebuilt.level(4) == rebuilt.level(10_000) == REBUILD


def test_who_comes_in_stands_where_those_stand_who_were_served_least():
    served = [Share(5, num_served=70), Share(5, num_served=12)]

    assert Share.beside(served, priority=5).num_served == 12
    assert Share.beside([], priority=5).num_served == 0


def test_clips_count_and_a_turn_that_brought_none_counts_as_one():
    share = Share(5)

    for num_clips in (0, 7, 1):
        share.begin_turn()
        share.end_turn(num_clips=num_clips)

    assert (share.num_served, share.num_at_work) == (9, 0)
