"""What the service does all day and maintenance does all night, each on a large library."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from benchmarks.growing.library import DIM, LEASE, Library
from policy.generations import embed_job
from policy.library_walk import FILLING_STEP, STEP, take_step
from policy.video_references import find_videos
from store.counts import fold_counts
from store.errors import StoreError
from store.jobs.events import JobEventRepository
from store.jobs.repository import ClaimedJob, JobRepository, NewJob
from store.jobs.retention import prune_events, prune_jobs
from store.jobs.state import JobKind, JobState
from store.labels.filters import LabelFilter
from store.labels.repository import LabelRepository, NewLabel
from store.models.deletion import ModelDeletion
from store.models.generation_coverage import (
    check_videos,
    delete_clips,
    generations_to_empty,
    is_waited_for,
    settle_videos,
)
from store.models.repository import GenerationRepository, ModelRepository
from store.models.schedules import ScheduleRepository
from store.results.questions import QuestionRepository
from store.results.searches import SearchRepository
from store.results.suggestions import SuggestionRepository
from store.results.trials import TrialRepository
from store.videos.batches import BatchRepository
from store.videos.contents import _is_named_by_job, media_key
from store.videos.nearest_clips import nearest_clips
from store.videos.records import ItemState, NewClip
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState

Operation = Callable[[Library, Session], object]


def operations() -> Iterator[tuple[str, Operation]]:
    """All of them by name; each leaves its transaction to be rolled back."""
    yield from _job_operations()
    yield from _batch_operations()
    yield from _video_operations()
    yield from _answer_operations()
    yield from _label_operations()
    yield from _maintenance_operations()


def _job_operations() -> Iterator[tuple[str, Operation]]:
    def jobs(session: Session) -> JobRepository:
        return JobRepository(session)

    def new(kind: JobKind = JobKind.INGEST) -> NewJob:
        return NewJob(kind, {"blob_key": "media/new"}, idempotency_key=uuid4().hex)

    def claim(session: Session, kind: JobKind, limit: int = 4) -> Sequence[ClaimedJob]:
        return jobs(session).claim([kind], limit=limit, owner="a", lease=LEASE)

    yield "jobs: enqueue one", lambda lib, s: jobs(s).enqueue(new())
    yield "jobs: enqueue 200", lambda lib, s: jobs(s).enqueue_many(new() for _ in range(200))
    yield (
        "jobs: enqueue an embed job",
        lambda lib, s: jobs(s).enqueue(embed_job(lib.video_id, lib.building)),
    )
    for kind in (JobKind.INGEST, JobKind.EMBED, JobKind.QUESTION):
        yield f"jobs: claim {kind}", lambda lib, s, kind=kind: claim(s, kind)

    def extend(lib: Library, session: Session) -> None:
        held = [(each.id, each.lease_token) for each in claim(session, JobKind.INGEST)]
        jobs(session).extend(held, lease=LEASE)

    def finish(lib: Library, session: Session) -> None:
        jobs(session).finish(
            claim(session, JobKind.INGEST, 1)[0], {"filename": "a.mp4"}, video_id=lib.video_id
        )

    def fail(lib: Library, session: Session) -> None:
        jobs(session).fail(claim(session, JobKind.EMBED, 1)[0], code="bad", message="it is")

    def retry_later(lib: Library, session: Session) -> None:
        later = datetime.now(UTC) + timedelta(minutes=1)
        jobs(session).retry_later(
            claim(session, JobKind.EMBED, 1)[0], run_at=later, code="x", message="y"
        )

    def release(lib: Library, session: Session) -> None:
        jobs(session).release(claim(session, JobKind.EMBED, 1)[0])

    def progress(lib: Library, session: Session) -> None:
        jobs(session).report_progress(
            claim(session, JobKind.EMBED, 1)[0], done=1, total=2, stage="embedding"
        )

    yield "jobs: claim and extend", extend
    yield "jobs: claim and finish", finish
    yield "jobs: claim and fail", fail
    yield "jobs: claim and retry later", retry_later
    yield "jobs: claim and release", release
    yield "jobs: claim and report progress", progress
    yield "jobs: return lost ones", lambda lib, s: jobs(s).return_lost()
    yield "jobs: due up to 16", lambda lib, s: jobs(s).due_up_to(16)
    yield "jobs: get", lambda lib, s: jobs(s).get(lib.job_id)
    yield "jobs: events", lambda lib, s: JobEventRepository(s).after(lib.job_id, 0, limit=200)

    def cancel(lib: Library, session: Session) -> None:
        jobs(session).request_cancel(jobs(session).enqueue(new()).id)

    def retry(lib: Library, session: Session) -> None:
        repository = jobs(session)
        (failed,) = repository.list(kind=JobKind.EMBED, state=JobState.FAILED, page_size=1).items
        repository.retry(failed.id)

    yield "jobs: cancel one", cancel
    yield "jobs: retry one", retry
    filters = {
        "all": {},
        "kind": {"kind": JobKind.QUESTION},
        "a kind without jobs": {"kind": JobKind.FINETUNE},
        "state": {"state": JobState.QUEUED},
        "a state without jobs": {"state": JobState.PAUSED},
        "kind and state": {"kind": JobKind.EMBED, "state": JobState.FAILED},
        "kind and a state without jobs": {"kind": JobKind.EMBED, "state": JobState.QUARANTINED},
    }
    for name, filter in filters.items():
        yield f"jobs: list {name}", lambda lib, s, filter=filter: jobs(s).list(**filter)
    yield "jobs: list of a batch", lambda lib, s: jobs(s).list(batch_id=lib.batches[4])
    yield "jobs: list of a video", lambda lib, s: jobs(s).list(video_id=lib.video_id)
    yield (
        "jobs: list failed of a batch",
        lambda lib, s: jobs(s).list(batch_id=lib.batches[4], state=JobState.FAILED),
    )


def _batch_operations() -> Iterator[tuple[str, Operation]]:
    def batches(session: Session) -> BatchRepository:
        return BatchRepository(session)

    for index, size in ((2, "100"), (4, "10,000")):
        yield (
            f"batches: progress of {size}",
            lambda lib, s, index=index: batches(s).progress([lib.batches[index]]),
        )
    yield (
        "batches: progress of one that waits",
        lambda lib, s: batches(s).progress([lib.waiting_batch]),
    )
    yield "batches: list", lambda lib, s: batches(s).list()
    yield "batches: items", lambda lib, s: batches(s).items(lib.batches[4])
    for state in (ItemState.FAILED, ItemState.QUARANTINED):
        yield (
            f"batches: items {state}",
            lambda lib, s, state=state: batches(s).items(lib.batches[4], state=state),
        )
    yield "batches: next index", lambda lib, s: batches(s).next_index(lib.batches[4])
    yield "batches: cancel 100", lambda lib, s: batches(s).cancel(lib.batches[2])
    yield "batches: retry 100", lambda lib, s: batches(s).retry_failed(lib.batches[2])


def _video_operations() -> Iterator[tuple[str, Operation]]:
    def videos(session: Session) -> VideoRepository:
        return VideoRepository(session)

    clip = NewClip(0, 0.0, 1.0, [0.5], None, "tokens/new")
    yield "videos: create", lambda lib, s: videos(s).create(uri="file:///n.mp4", sha256=uuid4().hex)
    yield "videos: get", lambda lib, s: videos(s).get(lib.video_id)
    yield "videos: find by content", lambda lib, s: videos(s).find_by_sha256("f" * 64)
    yield "videos: delete", lambda lib, s: videos(s).delete(lib.other_video_id)
    yield (
        "videos: replace clips",
        lambda lib, s: videos(s).replace_clips(lib.video_id, lib.active, clips=[clip]),
    )
    yield "videos: clips", lambda lib, s: videos(s).clips(lib.video_id, lib.active)
    filters = {
        "all": {},
        "state": {"state": VideoState.FAILED},
        "tag": {"tag": "tag 7"},
        "an unknown tag": {"tag": "nothing"},
        "state and tag": {"state": VideoState.FAILED, "tag": "tag 50"},
        "name": {"name": "odd name.mov"},
        "an unknown name": {"name": "nothing.mov"},
        "name of a copy": {"name": "copy of 99.mp4"},
        "frequent part of a name": {"name_part": "mp4"},
        "part of a name": {"name_part": "each"},
        "rare part of a name": {"name_part": "d nam"},
        "unknown part of a name": {"name_part": "nowhere"},
        "part of the name of a copy": {"name_part": "f 99."},
        "short part of a name": {"name_part": "dd"},
        "part and state": {"name_part": "holi", "state": VideoState.FAILED},
        "part and tag": {"name_part": "旅行", "tag": "tag 4"},
    }
    for name, filter in filters.items():
        yield f"videos: list {name}", lambda lib, s, filter=filter: videos(s).list(**filter)
    yield (
        "videos: 100 by name",
        lambda lib, s: find_videos(
            s, [f"IMG_{n}.mp4" for n in range(50)] + [f"copy of {n}" for n in range(50)]
        ),
    )
    yield (
        "videos: 100 by folder and name",
        lambda lib, s: find_videos(
            s, [f"films/IMG_{n}.mp4" for n in range(50)] + [f"/films/{n}.mp4" for n in range(50)]
        ),
    )
    yield (
        "videos: some that lie in place",
        lambda lib, s: videos(s).sample_in_place(10_000),
    )


def _answer_operations() -> Iterator[tuple[str, Operation]]:
    def create_search(lib: Library, session: Session) -> None:
        job = JobRepository(session).enqueue(NewJob(JobKind.SEARCH, {"text": "a"}))
        SearchRepository(session).create(job, text="a")
        SearchRepository(session).complete(
            job.id, {}, model_id=lib.model_id, generation_id=lib.active
        )

    def create_question(lib: Library, session: Session) -> None:
        new = NewJob(JobKind.QUESTION, {"text": "a"}, video_id=lib.video_id)
        job = JobRepository(session).enqueue(new)
        QuestionRepository(session).create(job, text="a")
        QuestionRepository(session).complete(job.id, {}, uncertainty=0.5)

    yield "searches: create and complete", create_search
    yield "searches: get", lambda lib, s: SearchRepository(s).get(lib.search_id)
    yield "searches: list", lambda lib, s: SearchRepository(s).list()
    yield "questions: create and complete", create_question
    yield "questions: get", lambda lib, s: QuestionRepository(s).get(lib.question_id)
    yield "questions: list", lambda lib, s: QuestionRepository(s).list()
    yield (
        "questions: list of a video",
        lambda lib, s: QuestionRepository(s).list(video_id=lib.video_id),
    )
    vector = [1.0] * DIM
    yield (
        "clips: nearest",
        lambda lib, s: nearest_clips(s, lib.active, vector=vector, limit=400),
    )
    yield (
        "clips: nearest, by the index",
        lambda lib, s: nearest_clips(s, lib.active, vector=vector, limit=400, exact_up_to=1000),
    )
    yield (
        "clips: nearest of a tag",
        lambda lib, s: nearest_clips(s, lib.active, vector=vector, limit=400, tags=["tag 7"]),
    )
    yield (
        "clips: nearest of a video",
        lambda lib, s: nearest_clips(
            s, lib.active, vector=vector, limit=400, video_ids=[lib.video_id]
        ),
    )


def _label_operations() -> Iterator[tuple[str, Operation]]:
    def add(video_id: UUID, count: int, session: Session) -> None:
        new = [NewLabel(video_id, "qa", f"What is it? {n}", answer="x") for n in range(count)]
        LabelRepository(session).add_many(new)

    filters = {
        "all": LabelFilter(),
        "task": LabelFilter(task="qa"),
        "a task without labels": LabelFilter(task="retrieval"),
        "source": LabelFilter(sources=["import"]),
        "an unknown source": LabelFilter(sources=["nobody"]),
        "split": LabelFilter(split="holdout"),
        "created before": LabelFilter(created_before=datetime(2020, 1, 1, tzinfo=UTC)),
        "created after": LabelFilter(created_after=datetime(2020, 1, 1, tzinfo=UTC)),
        "tag": LabelFilter(tags=["tag 7"]),
    }
    for name, filter in filters.items():
        yield (
            f"labels: list {name}",
            lambda lib, s, filter=filter: LabelRepository(s).list(filter=filter),
        )
    yield (
        "labels: list of a video",
        lambda lib, s: LabelRepository(s).list(filter=LabelFilter(video_ids=[lib.video_id])),
    )
    yield "labels: add one", lambda lib, s: add(lib.video_id, 1, s)
    yield "labels: add 100", lambda lib, s: add(lib.video_id, 100, s)
    yield (
        "labels: count those of a page of videos",
        lambda lib, s: LabelRepository(s).counts_of(
            [video.id for video in VideoRepository(s).list(page_size=500).items]
        ),
    )
    yield (
        "labels: answers that nobody trains, after an import",
        lambda lib, s: (
            LabelRepository(s).held_out_answers([lib.video_id]),
            LabelRepository(s).trained_answers(most=5000),
        ),
    )
    yield "labels: suggest", lambda lib, s: SuggestionRepository(s).list("qa", limit=20)
    yield (
        "labels: suggest of a video",
        lambda lib, s: SuggestionRepository(s).list("qa", limit=20, video_id=lib.video_id),
    )


def _maintenance_operations() -> Iterator[tuple[str, Operation]]:
    def settle(lib: Library, session: Session) -> None:
        seen = check_videos(session, lib.active, limit=STEP)
        settle_videos(session, lib.active, seen=seen, failed=seen.failed)

    def fill(lib: Library, session: Session) -> None:
        seen = check_videos(session, lib.building, after=lib.video_id, limit=FILLING_STEP)
        JobRepository(session).enqueue_many(
            embed_job(video_id, lib.building) for video_id in seen.forgotten
        )

    def promote(lib: Library, session: Session) -> None:
        with suppress(StoreError):
            ModelRepository(session).rollback(lib.model_id)
        ModelRepository(session).promote(lib.model_id, ["qa"])

    generations = GenerationRepository
    yield "stats: jobs by kind and state", lambda lib, s: JobRepository(s).counts()
    yield "stats: due jobs", lambda lib, s: JobRepository(s).due_counts()
    yield "stats: videos by state", lambda lib, s: VideoRepository(s).counts()
    yield "stats: generation", lambda lib, s: generations(s).coverage(lib.active)
    yield "maintenance: fold counts", lambda lib, s: fold_counts(s)
    yield "maintenance: is a generation complete", lambda lib, s: is_waited_for(s, lib.building)
    yield "maintenance: step of the library's passage", lambda lib, s: take_step(s)
    yield "maintenance: step of a check", lambda lib, s: check_videos(s, lib.active, limit=STEP)
    yield "maintenance: step of states", settle
    yield "maintenance: step of jobs", fill
    yield "maintenance: promote", promote
    yield (
        "maintenance: clips of a deleted generation",
        lambda lib, s: delete_clips(s, lib.active, limit=1000),
    )
    yield "maintenance: generations to empty", lambda lib, s: generations_to_empty(s)
    yield (
        "sweep: is a blob needed",
        lambda lib, s: _is_named_by_job(s, media_key("f" * 32), timedelta(days=7)),
    )
    yield (
        "sweep: 500 blobs",
        lambda lib, s: VideoRepository(s).blob_keys([f"{n:032x}" for n in range(500)]),
    )
    yield (
        "sweep: 500 videos",
        lambda lib, s: VideoRepository(s).existing([uuid4() for _ in range(500)]),
    )
    yield "retention: step of events", lambda lib, s: prune_events(s, kept_for=timedelta(days=30))
    yield "retention: step of jobs", lambda lib, s: prune_jobs(s, kept_for=timedelta(days=90))
    yield (
        "retention: surplus candidates",
        lambda lib, s: ModelDeletion(s).surplus_candidates(kept=10),
    )
    yield "schedules: due", lambda lib, s: ScheduleRepository(s).lock_due(limit=1)
    yield "trials: may run", lambda lib, s: TrialRepository(s).may_run()
    yield "trials: counts", lambda lib, s: TrialRepository(s).counts(lib.model_id)
    yield "trials: remove outdated", lambda lib, s: TrialRepository(s).remove_outdated(lib.model_id)
    yield (
        "trials: outdated questions",
        lambda lib, s: TrialRepository(s).outdated_questions(lib.model_id, limit=16),
    )
    yield (
        "trials: frequent texts",
        lambda lib, s: TrialRepository(s).frequent_texts(lib.model_id, limit=50),
    )
    yield (
        "trials: unlabelled videos",
        lambda lib, s: TrialRepository(s).unlabelled_videos(
            lib.model_id, keys=["what is it"], limit=16
        ),
    )
