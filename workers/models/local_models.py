"""Model folders as folders of this machine: where they lie, or a copy. Never imports torch."""

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from clipbert.errors import CheckpointError
from store.blobs import COPY_BYTES, BlobStore
from store.errors import BlobNotFound, InvalidModelFolder
from store.media_files import hash_file
from store.models.folders import Manifest, read_manifest
from store.models.tables import Model

# A copy is read when a model is loaded, and then every time that it is loaded again. Finetunes of
# every night would fill the disk with models that nobody asks now.
_UNUSED_SECONDS: Final = 7 * 24 * 3600.0


def find_local_folder(blobs: BlobStore, model: Model, *, folder: Path | None) -> Path:
    """Return a registered model as a folder of this machine, its files checked.

    Args:
        blobs: where the model is.
        model: which one.
        folder: where models are copied to that are not local already; None for a temporary one.

    Raises:
        CheckpointError: the folder in the blob store is not what was registered.
    """
    try:
        manifest = read_manifest(blobs, model.folder_key)
    except InvalidModelFolder as error:
        raise CheckpointError(str(error)) from error
    if manifest.sha256 != model.sha256:
        raise CheckpointError(f"the files of model {model.name} are not those registered")
    found = _folder_in_blobs(blobs, model.folder_key, manifest)
    if found is None:
        found = _copied_folder(blobs, model.folder_key, manifest, folder)
    for name, sha256 in manifest.files.items():
        if hash_file(found / name) != sha256:
            raise CheckpointError(f"{name} of model {model.name} is not what was registered")
    return found


def _folder_in_blobs(blobs: BlobStore, folder_key: str, manifest: Manifest) -> Path | None:
    try:
        paths = [blobs.local_path(f"{folder_key}/{name}") for name in manifest.files]
    except BlobNotFound as error:
        raise CheckpointError(f"the model folder {folder_key} is incomplete") from error
    folders = {path.parent for path in paths if path is not None}
    return folders.pop() if None not in paths and len(folders) == 1 else None


def _copied_folder(
    blobs: BlobStore, folder_key: str, manifest: Manifest, root: Path | None
) -> Path:
    root = root or Path(tempfile.gettempdir()) / "clipbert-models"
    folder = root / manifest.sha256
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.utime(folder)
    _remove_unused(root)
    for name, sha256 in manifest.files.items():
        target = folder / name
        if target.exists() and hash_file(target) == sha256:
            continue
        with blobs.as_local_file(f"{folder_key}/{name}") as source:
            _copy_whole(source, target)
    return folder


def _remove_unused(root: Path) -> None:
    """Remove the copies that no worker of this machine asked for in a long time."""
    for folder in root.iterdir():
        with suppress(FileNotFoundError):  # another worker removes it too
            if time.time() - folder.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a file beside its place and rename it: another worker may be reading the old one."""
    descriptor, name = tempfile.mkstemp(dir=target.parent)
    copy = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as writer, source.open("rb") as reader:
            shutil.copyfileobj(reader, writer, COPY_BYTES)
        copy.replace(target)
    finally:
        copy.unlink(missing_ok=True)  # what has no room leaves the room that there is
