"""Model folders in the blob store: files under `models/{id}/`, listed with their hashes."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.blobs import BlobStore
from store.errors import BlobNotFound, InvalidModelFolder
from store.media_files import hash_file

_MANIFEST: Final = "manifest.json"
# As clipbert.model.config calls them; the store does not know the library.
_CONFIG_FILE: Final = "config.json"
_WEIGHTS_FILE: Final = "model.safetensors"
_NEEDED: Final = (_CONFIG_FILE, _WEIGHTS_FILE)
_HEADER_LENGTH_BYTES: Final = 8
# Everything before the visual embedding: what the cached tokens depend on.
_VISUAL_WEIGHTS: Final = ("backbone.", "grid_encoder.")
_VISUAL_FIELDS: Final = (
    "backbone",
    "grid_encoder",
    "max_side_px",
    "mean",
    "std",
    "channel_order",
    "frame_positions",
)


@dataclass(frozen=True)
class Manifest:
    """The files of a model folder by name, each with the SHA-256 of its content."""

    files: dict[str, str]

    @property
    def sha256(self) -> str:
        """One hash for the whole folder."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()


def list_folder(folder: Path) -> Manifest:
    """Hash the files of a local model folder.

    Raises:
        InvalidModelFolder: a file that every model has is missing.
    """
    for name in _NEEDED:
        if not (folder / name).is_file():
            raise InvalidModelFolder(f"{folder} is not a model folder: it has no {name}")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return Manifest({path.name: hash_file(path) for path in files if path.name != _MANIFEST})


def put_folder(blobs: BlobStore, folder: Path, *, folder_key: str, manifest: Manifest) -> None:
    """Copy a model folder into the blob store; the manifest last: it names only what is there."""
    for name in manifest.files:
        blobs.put_file(f"{folder_key}/{name}", folder / name)
    blobs.put_bytes(f"{folder_key}/{_MANIFEST}", json.dumps(manifest.files).encode())


def read_manifest(blobs: BlobStore, folder_key: str) -> Manifest:
    """Read what a model folder in the blob store consists of.

    Raises:
        InvalidModelFolder: there is no such folder.
    """
    try:
        with blobs.open_read(f"{folder_key}/{_MANIFEST}") as file:
            return Manifest(json.loads(file.read()))
    except (BlobNotFound, FileNotFoundError) as error:
        raise InvalidModelFolder(f"there is no model in {folder_key}") from error


def hash_visual_side(folder: Path) -> str:
    """Hash what a clip's visual tokens depend on: the CNN's weights and how pixels are prepared.

    Two models with the same hash share cached tokens. Reads the safetensors file by its header,
    without torch.
    """
    config = json.loads((folder / _CONFIG_FILE).read_text())
    fields = {name: config.get(name) for name in _VISUAL_FIELDS}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    path = folder / _WEIGHTS_FILE
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        header = json.loads(file.read(header_bytes))
        for name in sorted(header):
            if not name.startswith(_VISUAL_WEIGHTS):
                continue
            entry = header[name]
            begin, end = entry["data_offsets"]
            file.seek(_HEADER_LENGTH_BYTES + header_bytes + begin)
            digest.update(f"{name} {entry['dtype']} {entry['shape']}".encode())
            digest.update(file.read(end - begin))
    return digest.hexdigest()
