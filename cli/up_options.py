"""What `clipbert up` is asked for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class UpOptions:
    """What `clipbert up` was asked for, defaults filled in.

    Attributes:
        port: 0 takes a free one.
        model: folder of the default model; None: clipbert-mini, built when missing.
        log_file: what stdout and stderr are, if they are a log that we may change for a new one.
    """

    data: Path
    host: str
    port: int
    media_roots: tuple[Path, ...]
    device: str
    ingest_workers: int
    model: Path | None
    api_processes: int = 1
    verbose: bool = False
    log_file: Path | None = None
