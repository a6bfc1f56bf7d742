import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.blobs import LocalBlobs
from store.models.folders import list_folder, put_folder
from store.models.tables import Model
from workers.models.local_models import find_local_folder


class RemoteFolder(LocalBlobs):
    """Blobs of another machine; a download lies where `downloads` says."""

    downloads = None

    def local_path(self, key):
        return None

    @contextmanager
    def as_local_file(self, key, *, on_piece=None):
        yield self.downloads or self._existing(key)


@pytest.fixture
def blobs(tmp_path):
    return RemoteFolder(tmp_path / "blobs")


@pytest.fixture
def model(blobs, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    manifest = list_folder(folder)
    put_folder(blobs, folder, folder_key="models/m", manifest=manifest)
    return Model(name="m", folder_key="models/m", sha256=manifest.sha256)


def test_a_model_of_another_machine_is_copied_with_its_name_as_its_hash(blobs, model, tmp_path):
    found = find_local_folder(blobs, model, folder=tmp_path / "cache")

    assert found == tmp_path / "cache" / model.sha256
    assert sorted(path.name for path in found.iterdir()) == ["config.json", "model.safetensors"]
    assert (found / "model.safetensors").read_bytes() == b"weights"


def test_a_copy_that_breaks_off_leaves_nothing_behind(blobs, model, tmp_path):
    blobs.downloads = Path("/proc/self/mem")  # opens, and fails to be read, as a broken disk does

    with pytest.raises(OSError, match="Input/output error"):
        find_local_folder(blobs, model, folder=tmp_path / "cache")

    assert list((tmp_path / "cache" / model.sha256).iterdir()) == []


def test_copies_that_nobody_asked_for_in_a_week_are_removed(blobs, model, tmp_path):
    cache = tmp_path / "cache"
    for name, days in (("old", 8), ("young", 6), (model.sha256, 9)):
        folder = cache / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        then = folder.stat().st_mtime - days * 24 * 3600
        os.utime(folder, (then, then))
    (cache / "removed meanwhile").symlink_to("nowhere")  # listed, and not there any more

    find_local_folder(blobs, model, folder=cache)

    assert {path.name for path in cache.iterdir() if path.exists()} == {"young", model.sha256}
