"""What `make` does to an environment that is there already; nothing is installed here."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("requirements.lock", "requirements-docs.lock", "pyproject.toml")
LATER = 4_000_000_000  # newer than any stamp, in seconds


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose environments were made from its lock files, which a copy made newer."""
    folder = tmp_path / "checkout"
    for name in ("Makefile", *FILES, "clipbert/checkpoints/mini/build.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for environment, lock in ((".venv", FILES[0]), (".venv-docs", FILES[1])):
        made_from = hashlib.sha256((folder / lock).read_bytes()).hexdigest()[:16]
        (folder / environment / "bin").mkdir(parents=True)
        (folder / environment / f".made-from-{made_from}").touch()
        os.utime(folder / lock, (LATER, LATER))
    (folder / ".venv" / ".project").touch()
    (folder / ".cache" / "clipbert-mini").mkdir(parents=True)
    (folder / ".cache" / "clipbert-mini" / "config.json").touch()
    return folder


def make(folder, *arguments):
    command = ["make", "--no-print-directory", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("target", ["setup", "check", "test", "test-fast", "up", "docs"])
def test_an_environment_of_this_lock_file_is_kept_however_new_the_file(checkout, target):
    planned = make(checkout, "--dry-run", target)

    assert planned.returncode == 0, planned.stderr
    assert "venv --clear" not in planned.stdout
    assert "pip install" not in planned.stdout
    assert "weights mini" not in planned.stdout


@pytest.mark.parametrize(
    ("target", "lock"), [("setup", "requirements.lock"), ("docs", "requirements-docs.lock")]
)
def test_an_environment_of_another_lock_file_is_made_anew(checkout, target, lock):
    with (checkout / lock).open("a") as file:
        file.write("# another package\n")

    assert "venv --clear" in make(checkout, "--dry-run", target).stdout


@pytest.mark.parametrize(
    ("environment", "lock"), [(".venv", FILES[0]), (".venv-docs", FILES[1]), (".venv", FILES[2])]
)
def test_an_environment_behind_a_link_is_never_changed(checkout, tmp_path, environment, lock):
    theirs = tmp_path / "theirs"
    (checkout / environment).rename(theirs)
    (checkout / environment).symlink_to(theirs)
    before = sorted(theirs.iterdir())
    with (checkout / lock).open("a") as file:
        file.write("# another\n")
    os.utime(checkout / lock, (LATER, LATER))

    result = make(checkout, "docs" if environment == ".venv-docs" else "setup")

    assert result.returncode != 0
    assert f"{environment} is a link to {theirs}" in result.stdout
    assert sorted(theirs.iterdir()) == before


def test_links_to_what_is_ignored_are_ignored_too(tmp_path):
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True, timeout=60)
    names = [".venv", ".venv-docs", ".clipbert", ".cache"]
    for name in names:
        (tmp_path / name).symlink_to(tmp_path)

    seen = subprocess.run(
        ["git", "status", "--porcelain"], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert seen.stdout.split() == ["??", ".gitignore"]
