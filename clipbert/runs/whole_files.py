"""Files that are there whole or not at all: written beside their place, then renamed."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_beside(path: Path) -> Iterator[Path]:
    """Yield where to write a file; it takes its place when the block ends, unless it raises.

        with write_beside(path) as beside, beside.open("wb") as file:
            file.write(content)

    Readers see the old content or the new one. Nothing is left beside it but by a process that is
    killed meanwhile.

    Raises:
        OSError: it cannot be renamed.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def replace_file(path: Path, text: str) -> None:
    """Write a text file so that readers see the old text or the new one."""
    with write_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")
