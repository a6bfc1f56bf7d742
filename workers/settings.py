"""Where and how the workers run: WORKER_* variables."""

from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# Three digits: no machine has more GPUs, and what follows is a number to Python everywhere.
DEVICE_PATTERN: Final = r"^(auto|cpu|cuda(:[0-9]{1,3})?)$"


class WorkerSettings(BaseSettings):
    """What a worker process needs to know about its deployment; STORE_* says where the rows are."""

    model_config = SettingsConfigDict(env_prefix="WORKER_", frozen=True, extra="ignore")

    redis_url: str = "redis://localhost:6379/0"
    """Celery's broker. Its own database: the shortest visibility timeout on a database wins."""

    log_level: str = "INFO"
    """Least severe log line that is written."""

    device: str = Field("auto", pattern=DEVICE_PATTERN)
    """Where models run: with auto and cuda each child of a pool takes the GPU of its own number,
    with auto the CPU if there is none. A finetune takes all GPUs that are visible."""

    lease_seconds: float = Field(60, gt=0)
    """How long a job stays held without a heartbeat; a killed worker's jobs wait this long."""

    heartbeat_seconds: float = Field(10, gt=0)
    """How often the leases of held jobs are extended and cancel requests fetched."""

    stall_seconds: float = Field(120, gt=0)
    """Work that does not advance for so long is taken for hung, and its lease left to run out."""

    max_losses: int = Field(3, ge=1)
    """A job whose worker died so many times is quarantined."""

    look_seconds: float = Field(30, gt=0)
    """A look ends after about so long and rings again, so that others get their turn."""

    claim_limit: int = Field(16, ge=1)
    """Searches and questions claimed at once, to share one forward pass."""

    embed_claim_limit: int = Field(4, ge=1)
    """Videos claimed at once, to share the forward passes of the CNN. Long ones under way do not
    count, up to four times as many."""

    forward_megapixels: float | None = Field(None, gt=0)
    """Cost bound of one CNN forward: frames x pixels as the model sees them. None chooses by the
    device. A forward is smaller where it would take longer than a quarter of a second, which is
    how long a question waits behind it."""

    match_clips: int | None = Field(None, ge=1)
    """Most (text, clip) pairs that the cross-encoder scores in one forward. None chooses by the
    device. A forward is smaller where it would take longer than a quarter of a second."""

    decode_threads: int | None = Field(None, ge=1)
    """Threads that decode ahead of the model. None: one for each core that the process may use."""

    keep_seconds: float = Field(15, ge=0)
    """Work that a long video or an exhaustive search has done for so long is kept in the database,
    so that a worker that is lost costs no more than that."""

    token_cache_bytes: int = Field(512 * 2**20, ge=0)
    """Memory for the visual tokens of recently asked videos."""

    models_in_memory: int = Field(5, ge=1)
    """Models kept loaded in a process; the least recently used goes first."""

    model_cache: Path | None = None
    """Where models are copied to if the blobs are remote; None for the temporary folder."""

    recall_clips: int = Field(400, ge=1, le=1000)
    """Nearest clips a search fetches before it groups them by video."""

    exhaustive_clips: int = Field(100_000, ge=1)
    """Most clips an exhaustive search scores; one that would have to score more is refused."""

    rerank_videos: int = Field(20, ge=1)
    """Videos whose clips the cross-encoder scores after recall."""

    trials_waiting: int = Field(32, ge=0)
    """Questions that the service puts by itself to unlabelled videos and that wait for an answer:
    from them it learns where a label is worth most. 0 puts none."""

    trials_per_model: int = Field(200, ge=0)
    """Such questions kept of the serving model; those with a label make room for others."""

    rerank_clips_per_video: int = Field(16, ge=1)
    """At most so many clips of a video are reranked: those nearest to the text."""

    generation_retention: timedelta = timedelta(days=14)
    """How long the clips, tokens and index of a generation that is no longer searched are kept.
    Until then a rollback to it is instant; afterwards it is built anew."""

    event_retention: timedelta | None = timedelta(days=30)
    """How long after the end of a job its events are kept; None keeps them. Those of finetunes stay
    in any case: they are the curve."""

    job_retention: timedelta | None = timedelta(days=90)
    """How long after their end the ingest and embed jobs of videos are kept; None keeps them. Their
    videos stay, and so do the jobs of searches, questions and finetunes, and the items of a batch
    that is still at work."""

    candidates_kept: int | None = Field(10, ge=1)
    """Models that finetunes left and nobody promoted: so many of the newest of each task are kept,
    and the others deleted with their files. None keeps all."""

    probe_timeout_seconds: float = Field(60, gt=0)
    """A probe that takes longer is killed, and tried once more; large files get more."""

    probe_bytes_per_second: float = Field(20e6, gt=0)
    """What a probe's limit grows by: a file of so many bytes gets a second more."""

    settle_seconds: float = Field(2, ge=0)
    """A file in place that was written to within so long is looked at again later."""

    growing_seconds: float = Field(6 * 3600, ge=0)
    """A file that is still being written to after so long fails as `media_growing`."""

    probe_memory_bytes: int = Field(4 * 2**30, gt=0)
    """Address space of the probing subprocess."""

    run_folder: Path | None = None
    """Where finetunes keep what they go on from. None: `runs` beside the blobs if these are a
    folder; else in the temporary folder, and the last checkpoint is copied to the blobs."""

    finetune_memory_share: float = Field(0.5, gt=0, le=1)
    """Part of a GPU's memory that a finetune may take; searches, questions and embedding are held
    to the rest. With 1 neither is bounded."""

    finetune_niceness: int = Field(10, ge=0, le=19)
    """How much lower than searches and questions a finetune on a CPU runs in priority."""

    finetune_stall_seconds: float = Field(900, gt=0)
    """A trainer that does not get any further for so long is started again."""

    finetune_pause_seconds: float = Field(300, ge=0)
    """How long a trainer that is to pause may take to save a checkpoint, before it is killed and
    the last checkpoint is what it goes on from."""

    finetune_stop_seconds: float = Field(45, ge=0)
    """The same when the worker is shut down: less than whoever stops it waits."""

    @model_validator(mode="after")
    def _heartbeats_fit_into_a_lease(self) -> "WorkerSettings":
        if self.heartbeat_seconds * 3 > self.lease_seconds:
            raise ValueError(
                f"WORKER_HEARTBEAT_SECONDS={self.heartbeat_seconds} must be at most a third of "
                f"WORKER_LEASE_SECONDS={self.lease_seconds}: a job must survive two lost heartbeats"
            )
        return self
