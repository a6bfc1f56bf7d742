"""Small files that only their owner reads: passwords, keys, addresses."""

import os
from pathlib import Path


def write_private(path: Path, content: str) -> None:
    """Write a file that only we can read, whole or not at all."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    staging.unlink(missing_ok=True)
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)
