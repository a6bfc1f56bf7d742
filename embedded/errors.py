"""What the embedded services raise on purpose."""

from pathlib import Path


class EmbeddedServicesError(Exception):
    """PostgreSQL or Redis could not be started or stopped.

    Attributes:
        log: the server's own log, where it has one that says more.
    """

    def __init__(self, sentence: str, *, log: Path | None = None) -> None:
        super().__init__(sentence)
        self.log = log
