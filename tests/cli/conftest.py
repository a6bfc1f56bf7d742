"""The command line in the test's own process, against an API that the test speaks for."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import main
from tests.cli.fake_api import FakeApi, fake_api

NOBODY = 65534


@dataclass(frozen=True)
class Said:
    """What a command printed."""

    out: str
    err: str


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as api:
        yield api


@pytest.fixture
def clipbert(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Run a command against the fake API; fails unless it ends with `code`."""
    monkeypatch.setenv("CLIPBERT_API_URL", api.url)
    monkeypatch.setenv("CLIPBERT_API_KEY", "cb_key")
    monkeypatch.setenv("CLIPBERT_DATA", "/nowhere/clipbert")

    def run(*arguments: object, code: int = 0) -> Said:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["clipbert", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, out + err
        return Said(out, err)

    return run


@pytest.fixture
def as_nobody() -> Callable[[], object]:
    """A context in which root has no more rights than anybody else."""

    @contextmanager
    def dropped() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return dropped


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may look into, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="clipbert-cli-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
