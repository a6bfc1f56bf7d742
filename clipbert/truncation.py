"""Notice a file that ends before its own header says."""

from pathlib import Path


def check_whole(path: Path, container: str) -> None:
    """Raise TruncatedMedia if the file's own sizes go past its end."""
