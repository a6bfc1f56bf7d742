from datetime import timedelta

import pytest

from store.errors import LeaseLost
from store.jobs.pieces import JobPieces, Piece
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind

LEASE = timedelta(seconds=60)


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


def claim_one(session, *, lease=LEASE):
    jobs = JobRepository(session)
    if not jobs.due_counts():
        jobs.enqueue(NewJob(kind=JobKind.SEARCH, input={}))
    (claim,) = jobs.claim([JobKind.SEARCH], limit=1, owner="test", lease=lease)
    return claim


def test_pieces_come_back_in_the_order_in_which_they_were_kept(session):
    claim, pieces = claim_one(session), JobPieces(session)

    for number in range(3):
        pieces.add(claim, Piece({"by": number}, bytes([number])))

    assert pieces.list(claim.id) == [Piece({"by": n}, bytes([n])) for n in range(3)]


def test_a_worker_that_lost_the_job_keeps_nothing_and_the_next_one_reads_on(session):
    zombie, jobs, pieces = claim_one(session), JobRepository(session), JobPieces(session)
    pieces.add(zombie, Piece({}, b"first"))
    jobs.release(zombie)
    successor = claim_one(session)

    with pytest.raises(LeaseLost):
        pieces.add(zombie, Piece({}, b"of a zombie"))
    pieces.add(successor, Piece({}, b"second"))

    assert [piece.content for piece in pieces.list(zombie.id)] == [b"first", b"second"]


def test_pieces_of_jobs_that_are_over_are_swept_and_no_others(session):
    jobs, pieces = JobRepository(session), JobPieces(session)
    over, going_on = claim_one(session), claim_one(session)
    for claim in (over, going_on):
        pieces.add(claim, Piece({}, b"some"))
    jobs.release(over)
    jobs.request_cancel(over.id)

    assert pieces.remove_unneeded() == 1

    assert pieces.list(over.id) == []
    assert len(pieces.list(going_on.id)) == 1
