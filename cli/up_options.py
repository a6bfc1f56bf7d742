"""What `clipbert up` is asked for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class UpOptions:
    """What `clipbert up` was asked for, defaults filled in.

    Attributes:
        port: 0 takes a free one.
        model: folder of the default model; None: clipbert-mini, built when missing.
        given: names of those that were asked for, and are not defaults.
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
    given: frozenset[str] = frozenset()

    def as_strings(self) -> dict[str, list[str]]:
        """Return what another `up` on the same data folder can be asked for, and may not change."""
        return {
            "host": [self.host],
            "port": [str(self.port)],
            "media_root": sorted(str(root) for root in self.media_roots),
            "device": [self.device],
            "ingest_workers": [str(self.ingest_workers)],
            "model": [] if self.model is None else [str(self.model)],
            "api_processes": [str(self.api_processes)],
            "verbose": ["on" if self.verbose else "off"],
        }
